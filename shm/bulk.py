"""What a loop does as well, only slower: rows moved at once, or fetched before they are needed; fields of
bytes taken as one number; a checksum.

Each is written as plain Python and has a compiled twin.
"""

from functools import partial

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

_TWIN = {"_nrt": False, "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
CACHE_LINE = 64  # bytes
_CASTAGNOLI, _ONE, _WORD_BITS = np.uint64(0x82F63B78), np.uint64(1), 64
_FOR_READING, _KEEP, _OF_DATA = 0, 3, 1  # what LLVM's prefetch wants to know


def shift(rows, to, of, count):
    """Move rows[of:of+count] to rows[to:to+count]; they may overlap. All of it is in range, unchecked."""
    order = range(count) if to < of else range(count - 1, -1, -1)
    for i in order:
        rows[to + i] = rows[of + i]


def prefetch(rows, at, line):
    """Let a cache line of rows[at] come nearer: 0 is that in which it begins. `at` may be out of range."""


def copy_bytes(to, of):
    """Copy a fixed field of bytes (u1[n]) into another of the same length."""
    for i in range(len(to)):
        to[i] = of[i]


def clear_bytes(to):
    """Zero a fixed field of bytes."""
    for i in range(len(to)):
        to[i] = 0


def same_bytes(one, other):
    """Whether two fixed fields of bytes (u1[n]) of the same length are equal."""
    for i in range(len(one)):
        if one[i] != other[i]:
            return False
    return True


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
def _prefetch(typingctx, rows, at, line):
    def codegen(context, builder, signature, args):
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.bitcast(_address(context, builder, signature.args[0], args[0], args[1]), byte)
        address = builder.gep(address, [builder.mul(args[2], context.get_constant(types.intp, CACHE_LINE))])
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        wanted = (ir.Constant(word, each) for each in (_FOR_READING, _KEEP, _OF_DATA))
        builder.call(fetch, [address, *wanted])
        return context.get_dummy_value()

    return types.void(rows, types.intp, types.intp), codegen


def _number(context, builder, kind, field):
    """Where a field of a row stands, as one number of so many bits."""
    address = context.make_array(kind)(context, builder, field).data
    return builder.bitcast(address, ir.IntType(8 * kind.nitems).as_pointer())


@intrinsic
def _copy_field(typingctx, to, of):
    def codegen(context, builder, signature, args):
        target, source = map(partial(_number, context, builder), signature.args, args)
        builder.store(builder.load(source, align=1), target, align=1)
        return context.get_dummy_value()

    return types.void(to, of), codegen


@intrinsic
def _clear_field(typingctx, to):
    def codegen(context, builder, signature, args):
        target = _number(context, builder, signature.args[0], args[0])
        builder.store(ir.Constant(target.type.pointee, 0), target, align=1)
        return context.get_dummy_value()

    return types.void(to), codegen


@intrinsic
def _same_field(typingctx, one, other):
    def codegen(context, builder, signature, args):
        fields = map(partial(_number, context, builder), signature.args, args)
        return builder.icmp_unsigned("==", *(builder.load(field, align=1) for field in fields))

    return types.boolean(one, other), codegen


def _are_fields(*kinds):
    """Whether all are fields of rows, and of one length: so that is known when they are compiled."""
    return (
        all(isinstance(kind, types.NestedArray) for kind in kinds) and len({kind.key for kind in kinds}) == 1
    )


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
def _prefetch_compiled(rows, at, line):
    return lambda rows, at, line: _prefetch(rows, at, line)


@overload(copy_bytes, jit_options=_TWIN)
def _copy_bytes_compiled(to, of):
    return (lambda to, of: _copy_field(to, of)) if _are_fields(to, of) else copy_bytes


@overload(clear_bytes, jit_options=_TWIN)
def _clear_bytes_compiled(to):
    return (lambda to: _clear_field(to)) if _are_fields(to) else clear_bytes


@overload(same_bytes, jit_options=_TWIN)
def _same_bytes_compiled(one, other):
    return (lambda one, other: _same_field(one, other)) if _are_fields(one, other) else same_bytes


@overload(crc32c_word, jit_options=_TWIN)
def _crc32c_word_compiled(crc, word):
    return lambda crc, word: _crc32c_word(crc, word)
