"""What a loop does as well, only slower: rows moved at once, or fetched before they are needed; a checksum.

Each is written as plain Python and has a compiled twin.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

_TWIN = {"_nrt": False, "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_CASTAGNOLI, _ONE, _WORD_BITS = np.uint64(0x82F63B78), np.uint64(1), 64
_FOR_READING, _KEEP, _OF_DATA = 0, 3, 1  # what LLVM's prefetch wants to know


def shift(rows, to, of, count):
    """Move rows[of:of+count] to rows[to:to+count]; they may overlap. All of it is in range, unchecked."""
    order = range(count) if to < of else range(count - 1, -1, -1)
    for i in order:
        rows[to + i] = rows[of + i]


def prefetch(rows, at):
    """Let the cache line in which rows[at] begins come nearer. `at` may be out of range."""


def crc32c_word(crc, word):
    """A CRC-32C (uint64, of which 32 bits are used) taken on over eight more bytes (uint64)."""
    crc ^= word
    for _ in range(_WORD_BITS):
        crc = (crc >> _ONE) ^ (_CASTAGNOLI * (crc & _ONE))
    return crc


def _address(context, builder, kind, value, at):
    array = context.make_array(kind)(context, builder, value)
    return cgutils.get_item_pointer(context, builder, kind, array, [at], wraparound=False, boundscheck=False)


@intrinsic
def _shift(typingctx, rows, to, of, count):
    def codegen(context, builder, signature, args):
        kind = signature.args[0]
        target, source = (_address(context, builder, kind, args[0], at) for at in args[1:3])
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        cgutils.raw_memmove(builder, target, source, args[3], context.get_constant(types.intp, size))
        return context.get_dummy_value()

    return types.void(rows, types.intp, types.intp, types.intp), codegen


@intrinsic
def _prefetch(typingctx, rows, at):
    def codegen(context, builder, signature, args):
        address = _address(context, builder, signature.args[0], args[0], args[1])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        wanted = (ir.Constant(word, each) for each in (_FOR_READING, _KEEP, _OF_DATA))
        builder.call(fetch, [builder.bitcast(address, byte), *wanted])
        return context.get_dummy_value()

    return types.void(rows, types.intp), codegen


@intrinsic
def _crc32c_word(typingctx, crc, word):
    def codegen(context, builder, signature, args):
        long = ir.IntType(64)
        step = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(long, [long, long]), "llvm.x86.sse42.crc32.64.64"
        )
        return builder.call(step, args)

    return types.uint64(types.uint64, types.uint64), codegen


@overload(shift, jit_options=_TWIN)
def _shift_compiled(rows, to, of, count):
    return lambda rows, to, of, count: _shift(rows, to, of, count)


@overload(prefetch, jit_options=_TWIN)
def _prefetch_compiled(rows, at):
    return lambda rows, at: _prefetch(rows, at)


@overload(crc32c_word, jit_options=_TWIN)
def _crc32c_word_compiled(crc, word):
    return lambda crc, word: _crc32c_word(crc, word)
