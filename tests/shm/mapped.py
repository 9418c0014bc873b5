"""Memory as production has it: mapped, page aligned, shared with forked children."""

import mmap

import numpy as np


def zeros(count, dtype):
    """An array of `count` zero records that a forked child shares."""
    dtype = np.dtype(dtype)
    return np.frombuffer(mmap.mmap(-1, count * dtype.itemsize), dtype)


def cell(words):
    """A record of a `sequence` and `words` more int64."""
    return np.dtype([("sequence", "i8"), ("words", "i8", (words,))], align=True)
