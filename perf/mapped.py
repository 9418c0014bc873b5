"""Memory as production has it: mapped, on pages of its own. np.zeros starts anywhere, and takes up to 2x."""

import mmap

import numpy as np


def zeros(count: int, dtype: np.dtype) -> np.ndarray:
    """An array of `count` zero records, page aligned, every page touched."""
    made = np.frombuffer(mmap.mmap(-1, count * dtype.itemsize), dtype)
    made.view(np.uint8)[:: mmap.PAGESIZE] = 0
    return made
