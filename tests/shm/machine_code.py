"""Read what LLVM made of a kernel: does it look at the sequence on both sides of the copy?

For a record of COPIED words behind its sequence, the copy is vector instructions; sequence and counters are
plain 64-bit moves and compares. So the check needs no knowledge of registers: a scalar access must stand
before the copy, and another one behind it, before the code goes elsewhere.
"""

import re
from typing import NamedTuple

from numba import njit, typeof

COPIED_WORDS = 8  # one line: enough for vectors, too little for a call of memcpy

_OPERAND = r"(?:[^(),]|\([^)]*\))+"
_INSTRUCTION = re.compile(rf"\s+(?P<name>[a-z]\w+)\s+(?P<operands>{_OPERAND}(?:,\s*{_OPERAND})*)")
_STACK = re.compile(r"%(?:rsp|rbp)\)")


class Access(NamedTuple):
    """One instruction that touches memory outside of the stack."""

    kind: str  # "load" or "store"
    vector: bool
    block: int  # which straight piece of code it is in


def native(kernel, *arguments):
    """Compile `kernel` for these arguments; return the lines of the function itself, not of its wrappers."""
    dispatcher = njit(nogil=True, _nrt=False)(kernel.py_func)  # anew: numba does not list what it had cached
    dispatcher.compile(tuple(typeof(argument) for argument in arguments))
    listing = dispatcher.inspect_asm(dispatcher.signatures[0]).split("\n")
    start = next(i for i, line in enumerate(listing) if re.match(r"_ZN(?!7cpython|\d*cfunc)\S+:$", line))
    end = next(i for i in range(start, len(listing)) if listing[i].startswith(".Lfunc_end"))
    return listing[start + 1 : end]


def accesses(lines):
    """List their accesses, in order."""
    found, block = [], 0
    for line in lines:
        if re.match(r"\.L", line):
            block += 1
        instruction = _INSTRUCTION.match(line)
        if instruction is None:
            continue
        name, operands = instruction["name"], re.findall(_OPERAND, instruction["operands"])
        if name.startswith("j"):
            block += 1
        memory = [i for i, operand in enumerate(operands) if "(" in operand and not _STACK.search(operand)]
        if memory and not name.startswith("lea"):
            kind = (
                "store" if memory[0] == len(operands) - 1 and not name.startswith(("cmp", "test")) else "load"
            )
            found.append(Access(kind, "mm" in instruction["operands"], block))
    return found


def looks_on_both_sides(kind, kernel, *arguments):
    """Say whether a scalar `kind` stands before the copy's first vector access, and one right after its last.

    Right after: in the same straight piece of code, so that nobody comes from the copy to its end without it.
    """
    found = accesses(native(kernel, *arguments))
    copy = [i for i, access in enumerate(found) if access.vector]
    assert copy, "the copy is not made of vectors: choose another size of record"
    before = [access for access in found[: copy[0]] if access.kind == kind]
    after = [a for a in found[copy[-1] + 1 :] if a.kind == kind and a.block == found[copy[-1]].block]
    return bool(before) and bool(after)


def count(kind, kernel, *arguments):
    """How many instructions of the kernel load, or store, outside of the stack."""
    return sum(access.kind == kind for access in accesses(native(kernel, *arguments)))
