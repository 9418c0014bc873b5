"""Read texts, whole, cut anywhere and wounded, that end exactly where readable memory ends.

A program of its own, since what it looks for ends it: `python -m tests.engine.follow.edge_of_memory`.
"""

import ctypes
import mmap
import random

import numpy as np

from engine.follow import parse, snapshot
from engine.follow.records import Corrupt, Kind
from tests.engine.follow import node_text
from tests.engine.follow.test_decode import EXAMPLES, mutated
from tests.engine.follow.test_snapshot import example

PAGES = 4  # readable ones; the text ends with the last
WOUNDS = 300  # of each example


class Edge:
    """Memory of which the last page may not be touched."""

    def __init__(self):
        self._memory = mmap.mmap(-1, (PAGES + 1) * mmap.PAGESIZE)
        self._bytes = np.frombuffer(self._memory, np.uint8)
        guard = ctypes.c_void_p(self._bytes.ctypes.data + PAGES * mmap.PAGESIZE)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(guard, mmap.PAGESIZE, 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")

    def put(self, text):
        """Return the text, at the end of what can be read."""
        end = PAGES * mmap.PAGESIZE
        place = self._bytes[end - len(text) : end]
        place[:] = np.frombuffer(text, np.uint8)
        return place


def main():
    chance, edge, tables = random.Random(5), Edge(), node_text.shared(names=1 << 14, markets=1 << 13)
    for kind in Kind:
        parser = parse.Parser(kind, tables)
        for text in EXAMPLES[kind]:
            for end in range(1, len(text) + 1):
                parser.parse(edge.put(text[:end]))
            for _ in range(WOUNDS):
                parser.parse(edge.put(mutated(chance, text)))
    whole = example()
    for end in range(1, len(whole) + 1):
        try:
            snapshot.parse_snapshot(edge.put(whole[:end]), tables)
        except Corrupt:
            pass
    print("stayed inside")


if __name__ == "__main__":
    main()
