"""What the parser of node lines hands over: blocks of lines, their records, and the lines that nobody could
read.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from shm.layout import record


class Kind(IntEnum):
    """The streams of a node; each has a directory of its own in either form."""

    STATUSES = 0
    DIFFS = 1
    FILLS = 2


class Stop(IntEnum):
    """Why the kernel gave the chunk back."""

    END = 0
    FULL = 1  # no room for the records of the line at `at`
    UNRECOGNISED = 2  # the line at `at` is for the general decode


class Why(IntEnum):
    """What a bad line suffers from."""

    CORRUPT = 0  # not what a node writes
    TOO_LONG = 1
    CAPACITY = 2  # it names a market for which the table has no row left


SEGMENT = record(  # lines of one block that follow each other in a chunk
    ("height", "i8"),
    ("time_ns", "i8"),  # of the block, as its first line has it
    ("start", "i8"),  # chunk[start:end] are its lines, with the newline of the last
    ("end", "i8"),
    ("first", "i8"),  # records[first:first+count] are its events, in order
    ("count", "i8"),
    ("lines", "i8"),
)

CURSOR = record(("at", "i8"), ("records", "i8"), ("segments", "i8"), ("reserved", "i8"))


class BadLine(NamedTuple):
    """A line that even the general decode refuses: in no segment, or inside one that goes on behind it."""

    offset: int  # in the chunk
    length: int  # without its newline
    why: Why
    reason: str
    market: str | None  # the only market that it can be about; None: it may be any


class Batch(NamedTuple):
    """All of one chunk. The arrays are the caller's own."""

    segments: np.ndarray  # SEGMENT[], in the order of the lines
    records: np.ndarray  # layout.EVENT[] of statuses or diffs, layout.FILL[] of fills
    bad: list[BadLine]


class Corrupt(ValueError):
    """A text that is not what a node writes: `offset` says where, as far as that is known."""

    def __init__(self, reason: str, offset: int = 0, why: Why = Why.CORRUPT):
        super().__init__(reason)
        self.reason, self.offset, self.why = reason, offset, why
