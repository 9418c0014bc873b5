"""What does the hand-over ring cost beyond what any hand-over must do?

copies      one thread, 64 bytes an item, batches of 64: push and pop / two bare copies over the same slots
throughput  two threads, one item a call: ours / the same ring in C, where there is a compiler
round trip  two threads: one item there and one back / one cache line bounced there and back
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numba import njit

from perf import mapped, ratio
from shm import layout, spsc
from shm.atomics import load_acquire_at, pause, store_release_at
from shm.constants import LINE

ITEM = np.dtype([("sequence", "i8"), ("words", "i8", (7,))], align=True)
BATCH, BATCHES = 64, 10_000
CAPACITY = 1_024
HANDED_OVER = 1_000_000
TRIPS = 50_000
WORDS_A_LINE = LINE // 8

C_RING = r"""
#include <stdatomic.h>
#include <string.h>
typedef struct { long w[8]; } item;
typedef struct { _Alignas(128) _Atomic long tail; long head_seen;
                 _Alignas(128) _Atomic long head; long tail_seen; } ring;
static int push(ring *r, item *slots, const item *in, long n) {
    long t = atomic_load_explicit(&r->tail, memory_order_relaxed);
    if (t - r->head_seen == n) r->head_seen = atomic_load_explicit(&r->head, memory_order_acquire);
    if (t - r->head_seen == n) return 0;
    slots[t & (n - 1)] = *in;
    atomic_store_explicit(&r->tail, t + 1, memory_order_release);
    return 1;
}
static int pop(ring *r, item *slots, item *out, long n) {
    long h = atomic_load_explicit(&r->head, memory_order_relaxed);
    if (r->tail_seen == h) r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
    if (r->tail_seen == h) return 0;
    *out = slots[h & (n - 1)];
    atomic_store_explicit(&r->head, h + 1, memory_order_release);
    return 1;
}
void produce(ring *r, item *slots, long n, long count) {
    item in; memset(&in, 0, sizeof in);
    for (long i = 0; i < count; i++) { in.w[0] = i; while (!push(r, slots, &in, n)) ; }
}
long consume(ring *r, item *slots, long n, long count) {
    item out; long sum = 0;
    for (long i = 0; i < count; i++) { while (!pop(r, slots, &out, n)) ; sum += out.w[0] ^ i; }
    return sum;
}
"""


# --- copies -----------------------------------------------------------------------------------------------


@njit
def through_the_ring(ring, slots, items, out):
    digest = 0
    for _ in range(BATCHES):
        spsc.push(ring, slots, items)
        spsc.pop(ring, slots, out)
        digest += out[-1].sequence
    return digest


@njit
def copied_twice(slots, items, out):
    digest = 0
    for batch in range(BATCHES):
        start = batch * BATCH % len(slots)  # over the same slots as the ring, not over a warm few
        for i in range(BATCH):
            slots[start + i] = items[i]
        for i in range(BATCH):
            out[i] = slots[start + i]
        digest += out[-1].sequence
    return digest


def copies() -> tuple[ratio.Work, ratio.Work]:
    items, out = mapped.zeros(BATCH, ITEM), mapped.zeros(BATCH, ITEM)
    items["sequence"] = np.arange(BATCH)
    ring, slots = mapped.zeros(1, layout.RING), mapped.zeros(CAPACITY, ITEM)
    return lambda: through_the_ring(ring, slots, items, out), lambda: copied_twice(slots, items, out)


# --- throughput -------------------------------------------------------------------------------------------


@njit(nogil=True)
def produce(ring, slots, items, count):
    for i in range(count):
        items[0].sequence = i
        while spsc.push(ring, slots, items) == 0:
            pass


@njit(nogil=True)
def consume(ring, slots, out, count):
    digest = 0
    for i in range(count):
        while spsc.pop(ring, slots, out) == 0:
            pass
        digest += out[0].sequence ^ i
    return digest


def together(one: Callable[[], object], other: Callable[[], int]) -> int:
    """Run both, each pinned to a core of its own where there are two; return what `other` returns."""
    cores = sorted(os.sched_getaffinity(0))

    def pinned() -> None:
        os.sched_setaffinity(0, {cores[-1]})
        one()

    thread = threading.Thread(target=pinned)
    os.sched_setaffinity(0, {cores[0]})
    thread.start()
    result = other()
    thread.join()
    os.sched_setaffinity(0, cores)
    return result


def compiled() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "ring.c", Path(folder) / "ring.so"
        source.write_text(C_RING)
        subprocess.run(["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source], check=True)
        loaded = ctypes.CDLL(str(library))
    pointer, long = ctypes.c_void_p, ctypes.c_long
    loaded.produce.argtypes = loaded.consume.argtypes = [pointer, pointer, long, long]
    loaded.consume.restype = long
    return loaded


def throughput() -> tuple[ratio.Work, ratio.Work]:
    ring, slots = mapped.zeros(1, layout.RING), mapped.zeros(CAPACITY, ITEM)
    c_ring, c_slots = mapped.zeros(1, layout.RING), mapped.zeros(CAPACITY, ITEM)
    item, out, c = mapped.zeros(1, ITEM), mapped.zeros(1, ITEM), compiled()
    produce(ring, slots, item, 0), consume(ring, slots, out, 0)
    return (
        lambda: together(
            lambda: produce(ring, slots, item, HANDED_OVER), lambda: consume(ring, slots, out, HANDED_OVER)
        ),
        lambda: together(
            lambda: c.produce(c_ring.ctypes.data, c_slots.ctypes.data, CAPACITY, HANDED_OVER),
            lambda: c.consume(c_ring.ctypes.data, c_slots.ctypes.data, CAPACITY, HANDED_OVER),
        ),
    )


# --- round trip -------------------------------------------------------------------------------------------


@njit(nogil=True)
def answer(there, there_slots, back, back_slots, item, count):
    for _ in range(count):
        while spsc.pop(there, there_slots, item) == 0:
            pause()
        spsc.push(back, back_slots, item)


@njit(nogil=True)
def ask(there, there_slots, back, back_slots, item, count):
    for _ in range(count):
        spsc.push(there, there_slots, item)
        while spsc.pop(back, back_slots, item) == 0:
            pause()
    return count


@njit(nogil=True)
def bounce(words, mine, theirs, first, count):
    """Both write words of one line in turn; `first` serves."""
    start = load_acquire_at(words, mine)
    for turn in range(start + 1, start + count + 1):
        if first:
            store_release_at(words, mine, turn)
        while load_acquire_at(words, theirs) < turn:
            pause()
        if not first:
            store_release_at(words, mine, turn)
    return count


def round_trip() -> tuple[ratio.Work, ratio.Work]:
    rings = [mapped.zeros(1, layout.RING), mapped.zeros(CAPACITY, ITEM)]
    rings += [mapped.zeros(1, layout.RING), mapped.zeros(CAPACITY, ITEM)]
    items, words = [mapped.zeros(1, ITEM) for _ in range(2)], mapped.zeros(WORDS_A_LINE, layout.WORD)
    answer(*rings, items[0], 0), ask(*rings, items[1], 0), bounce(words, 0, 1, True, 0)
    return (
        lambda: together(lambda: answer(*rings, items[0], TRIPS), lambda: ask(*rings, items[1], TRIPS)),
        lambda: together(lambda: bounce(words, 0, 1, False, TRIPS), lambda: bounce(words, 1, 0, True, TRIPS)),
    )


if __name__ == "__main__":
    ratio.report("spsc, push and pop / two bare copies", copies)
    if shutil.which("cc"):
        ratio.report("spsc, throughput between two threads / the same ring in C", throughput)
    ratio.report("spsc, round trip between two threads / one line bounced there and back", round_trip)
