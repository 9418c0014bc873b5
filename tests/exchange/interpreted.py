"""Run kernels as the Python that they are written in: under NUMBA_DISABLE_JIT, on rows that look compiled.

Compiled code reads a record's field by its name and computes with 64 bits; numpy's own records do neither
(`flags` is something else there, and an int32 stays one), so these stand between. One process, no compiling:
where a line of a kernel is to be changed and looked at, this is the quick way.
"""

import numpy as np
from numba import config

from engine.exchange.state import State

if config.DISABLE_JIT:
    np.seterr(over="ignore")  # hashes wrap around, as compiled code does without a word


class Row:
    """One record: its fields as attributes, numbers as int64."""

    __slots__ = ("void",)

    def __init__(self, void):
        object.__setattr__(self, "void", void)

    def __getattr__(self, name):
        value = self.void[name]
        return np.int64(value) if isinstance(value, np.integer) else value

    def __setattr__(self, name, value):
        self.void[name] = value


class Table:
    """An array of records."""

    def __init__(self, array):
        self.array = array

    def __getitem__(self, at):
        assert at >= 0, "compiled, no index counts from the end"
        return Row(self.array[at])

    def __setitem__(self, at, row):
        self.array[at] = row.void

    def __len__(self):
        return len(self.array)


def state_for_kernels(state: State) -> State:
    """The same memory, as the kernels of this process take it."""
    return State(*map(rows_for_kernels, state)) if config.DISABLE_JIT else state


def rows_for_kernels(array: np.ndarray) -> np.ndarray | Table:
    return Table(array) if config.DISABLE_JIT and array.dtype.names else array
