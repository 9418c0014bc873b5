"""What a process counts: its stats region of counters and histograms, written by it alone, read by anyone.

The names are in the region, so a reader needs no schema. It also holds the process's BELL: the one word by
which it tells others that it sleeps. A kernel takes `counters` or `histograms` as an argument and calls
`add` and `observe`; a figure is visible at once, and each is whole by itself (figures are not of one
moment).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from shm import layout, region
from shm.atomics import load_relaxed_at, store_relaxed_at
from shm.kernel import entry

NAME_BYTES = 48
BUCKETS = 64  # one for each length in bits: bucket b holds values of b bits, 2**(b-1) to 2**b - 1; 0 holds 0
TOTAL = BUCKETS  # the word after the buckets: the sum of all values
HISTOGRAM_WORDS = 72  # whole cache lines

NAME = layout.record(("text", f"S{NAME_BYTES}"))
STATS = {  # section -> dtype
    "bell": layout.BELL,
    "counter_names": NAME,
    "counters": layout.WORD,
    "histogram_names": NAME,
    "histograms": layout.WORD,  # HISTOGRAM_WORDS for each name
}


@entry
def add(counters, index, count):
    """Add `count` to counter `index`."""
    store_relaxed_at(counters, index, counters[index] + count)


@entry
def put(counters, index, value):
    """Let counter `index` say `value`."""
    store_relaxed_at(counters, index, value)


@entry
def observe(histograms, index, value):
    """Count `value` (ns, bytes, ...; less than 0 is 0) in histogram `index`."""
    value = max(value, 0)
    bits, rest = 0, value
    while rest > 0:
        bits, rest = bits + 1, rest >> 1
    first = index * HISTOGRAM_WORDS
    store_relaxed_at(histograms, first + bits, histograms[first + bits] + 1)
    store_relaxed_at(histograms, first + TOTAL, histograms[first + TOTAL] + value)


@entry
def copy_words(words, out):
    """Copy another process's figures, each whole."""
    for i in range(len(out)):
        out[i] = load_relaxed_at(words, i)


class Stats:
    """The writer's side. Others are handed `region.fd`; kernels take `counters`, `histograms`, `bell`."""

    def __init__(
        self,
        counters: Sequence[str] = (),
        histograms: Sequence[str] = (),
        epoch: int = 0,
        name: str = "stats",
    ):
        self.region = region.create(
            name,
            {
                "bell": (layout.BELL, 1),
                "counter_names": (NAME, len(counters)),
                "counters": (layout.WORD, len(counters)),
                "histogram_names": (NAME, len(histograms)),
                "histograms": (layout.WORD, len(histograms) * HISTOGRAM_WORDS),
            },
            epoch,
        )
        arrays = self.region.arrays
        self.bell, self.counters, self.histograms = arrays["bell"], arrays["counters"], arrays["histograms"]
        self.index = _write_names(arrays["counter_names"], counters)
        self.histogram_index = _write_names(arrays["histogram_names"], histograms)
        self.region.seal()

    def add(self, counter: str | int, count: int = 1) -> None:
        """Add to a counter, by its name or its place in the list it was made from."""
        add(self.counters, self.index[counter] if isinstance(counter, str) else counter, count)

    def set(self, counter: str | int, value: int) -> None:
        """Let a counter say `value`."""
        put(self.counters, self.index[counter] if isinstance(counter, str) else counter, value)

    def observe(self, histogram: str | int, value: int) -> None:
        """Count `value` in a histogram."""
        index = self.histogram_index[histogram] if isinstance(histogram, str) else histogram
        observe(self.histograms, index, value)


def _write_names(section: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Write the names and return the index of each. Raises ValueError if one is too long, or comes twice."""
    for i, name in enumerate(names):
        section["text"][i] = name.encode()
        if section["text"][i].decode() != name:
            raise ValueError(f"name {name!r} does not fit {NAME_BYTES} bytes")
    index = {name: i for i, name in enumerate(names)}
    if len(index) != len(names):
        raise ValueError("a name comes twice")
    return index


def attach(fd: int) -> region.Region:
    """Map another process's stats for reading. Raises region.Refused."""
    return region.attach(fd, STATS)


def read(of: region.Region) -> dict[str, Any]:
    """Read all figures: {"counters": {name: value}, "histograms": {name: {"count", "total", "buckets"}}}.

    buckets[b] counts the values of b bits: those below 2**b that are not in an earlier one.
    """
    arrays = of.arrays
    counters = np.zeros(len(arrays["counters"]), layout.WORD)
    histograms = np.zeros(len(arrays["histograms"]), layout.WORD)
    copy_words(arrays["counters"], counters)
    copy_words(arrays["histograms"], histograms)
    rows = histograms.reshape(-1, HISTOGRAM_WORDS)
    return {
        "counters": dict(zip(_read_names(arrays["counter_names"]), counters.tolist(), strict=True)),
        "histograms": {
            name: {
                "count": int(row[:BUCKETS].sum()),
                "total": int(row[TOTAL]),
                "buckets": row[:BUCKETS].tolist(),
            }
            for name, row in zip(_read_names(arrays["histogram_names"]), rows, strict=True)
        },
    }


def _read_names(section: np.ndarray) -> list[str]:
    return [text.decode("ascii", "replace") for text in section["text"].tolist()]


def warm():
    """Compile the entry points, for the owner and for a reader."""
    words, out = np.zeros(HISTOGRAM_WORDS, layout.WORD), np.zeros(1, layout.WORD)
    add(words, 0, 1)
    put(words, 0, 0)
    observe(words, 0, 0)
    copy_words(words, out)
    words.flags.writeable = False
    copy_words(words, out)
