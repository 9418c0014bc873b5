"""Memory order, spelled in one place.

The only module that may emit LLVM atomics or fences. Each word is an aligned int64: a field of a record,
named by a literal, or an element of a plain array of words (the forms that end in `_at`). A call site reads
as a sentence:

    store_release(header, "tail", tail + 1)

A plain read of another party's word is a bug: LLVM may read it once and never again. What lies between two
such words is copied by `copy_rest`, which leaves the first word, the `sequence`, to the calls above.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue, TypingError
from numba.extending import intrinsic

WORD_BYTES = 8


def _word(record, field):
    """Check that `record.field` is an aligned int64, and return its type."""
    if not isinstance(field, types.StringLiteral):
        raise RequireLiteralValue("an atomic names its field with a literal")
    name = field.literal_value
    if not isinstance(record, types.Record) or name not in record.fields:
        raise TypingError(f"no field {name!r} in {record}")
    if record.typeof(name) != types.int64 or record.offset(name) % WORD_BYTES != 0 or not record.aligned:
        raise TypingError(f"{name!r} is not an aligned int64")
    return types.int64


def _word_of(words):
    """Check that `words` is a one-dimensional array of aligned int64, and return its element's type."""
    if not isinstance(words, types.Array) or words.ndim != 1:
        raise TypingError(f"{words} is not a row")
    if words.dtype != types.int64 or not words.aligned:
        raise TypingError(f"{words} does not hold aligned int64")
    return types.int64


def _field_address(context, builder, signature, args):
    record, field = signature.args[:2]
    offset = record.offset(field.literal_value)
    return cgutils.get_record_member(builder, args[0], offset, context.get_data_type(types.int64))


def _element_address(context, builder, signature, args):
    words = signature.args[0]
    array = context.make_array(words)(context, builder, args[0])
    return cgutils.get_item_pointer(
        context, builder, words, array, [args[1]], wraparound=False, boundscheck=False
    )


def _load(address, ordering):
    def codegen(context, builder, signature, args):
        at = address(context, builder, signature, args)
        return builder.load_atomic(at, ordering, align=WORD_BYTES, typ=ir.IntType(8 * WORD_BYTES))

    return codegen


def _store(address, ordering):
    def codegen(context, builder, signature, args):
        at = address(context, builder, signature, args)
        builder.store_atomic(args[2], at, ordering, align=WORD_BYTES)
        return context.get_dummy_value()

    return codegen


def _fence(ordering):
    def codegen(context, builder, signature, args):
        builder.fence(ordering)
        return context.get_dummy_value()

    return codegen


@intrinsic(prefer_literal=True)
def load_relaxed(typingctx, record, field):
    """Read the word once; order nothing."""
    return _word(record, field)(record, field), _load(_field_address, "monotonic")


@intrinsic(prefer_literal=True)
def load_acquire(typingctx, record, field):
    """Read the word; nothing after this call happens before it."""
    return _word(record, field)(record, field), _load(_field_address, "acquire")


@intrinsic(prefer_literal=True)
def store_relaxed(typingctx, record, field, value):
    """Write the word once; order nothing."""
    return types.void(record, field, _word(record, field)), _store(_field_address, "monotonic")


@intrinsic(prefer_literal=True)
def store_release(typingctx, record, field, value):
    """Write the word; everything before this call happens before it."""
    return types.void(record, field, _word(record, field)), _store(_field_address, "release")


@intrinsic
def load_relaxed_at(typingctx, words, i):
    """Read words[i] once; order nothing. `i` is in range: it is not checked."""
    return _word_of(words)(words, types.intp), _load(_element_address, "monotonic")


@intrinsic
def load_acquire_at(typingctx, words, i):
    """Read words[i]; nothing after this call happens before it. `i` is in range: it is not checked."""
    return _word_of(words)(words, types.intp), _load(_element_address, "acquire")


@intrinsic
def store_relaxed_at(typingctx, words, i, value):
    """Write words[i] once; order nothing. `i` is in range: it is not checked."""
    return types.void(words, types.intp, _word_of(words)), _store(_element_address, "monotonic")


@intrinsic
def store_release_at(typingctx, words, i, value):
    """Write words[i]; everything before this call happens before it. `i` is in range: it is not checked."""
    return types.void(words, types.intp, _word_of(words)), _store(_element_address, "release")


@intrinsic
def fence_acquire(typingctx):
    """Keep every later access after the reads that precede this fence."""
    return types.void(), _fence("acquire")


@intrinsic
def fence_release(typingctx):
    """Keep every earlier access before the writes that follow this fence."""
    return types.void(), _fence("release")


@intrinsic
def fence_full(typingctx):
    """Keep every later read, too, after the writes that precede this fence: the one order x86 does not keep
    by itself.

    For "I say that I sleep, then look once more" against "I publish, then look who sleeps".
    """
    return types.void(), _fence("seq_cst")


@intrinsic
def pause(typingctx):
    """Tell the core that this is a spin: its sibling and its power budget are better used elsewhere."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def copy_rest(typingctx, target, source):
    """Copy all of record `source` but its first word into record `target`, plainly: order it by what stands
    around.

    Both are of one dtype, whose first field is an int64.
    """
    if not isinstance(target, types.Record) or target != source:
        raise TypingError(f"{target} and {source} are not the same kind of record")
    first = min(target.fields, key=target.offset)
    if target.typeof(first) != types.int64 or target.offset(first) != 0:
        raise TypingError(f"{target} does not begin with a word")
    size = target.size - WORD_BYTES

    def codegen(context, builder, signature, args):
        byte = ir.IntType(8)
        to, come = (cgutils.get_record_member(builder, record, WORD_BYTES, byte) for record in args)
        count = ir.Constant(ir.IntType(8 * WORD_BYTES), size)
        cgutils.raw_memcpy(builder, to, come, count, 1)  # cgutils.memcpy would be a loop over bytes
        return context.get_dummy_value()

    return types.void(target, source), codegen
