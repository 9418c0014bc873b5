"""What a loop does as well, only slower: rows moved at once, and fetched before they are needed.

Each is written as plain Python and has a compiled twin.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

_TWIN = {"_nrt": False, "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_FOR_READING, _KEEP, _OF_DATA = 0, 3, 1  # what LLVM's prefetch wants to know


def shift(rows, to, of, count):
    """Move rows[of:of+count] to rows[to:to+count]; they may overlap. All of it is in range, unchecked."""
    order = range(count) if to < of else range(count - 1, -1, -1)
    for i in order:
        rows[to + i] = rows[of + i]


def prefetch(rows, at):
    """Let the cache line in which rows[at] begins come nearer. `at` may be out of range."""


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


@overload(shift, jit_options=_TWIN)
def _shift_compiled(rows, to, of, count):
    return lambda rows, to, of, count: _shift(rows, to, of, count)


@overload(prefetch, jit_options=_TWIN)
def _prefetch_compiled(rows, at):
    return lambda rows, at: _prefetch(rows, at)
