"""Three ways to wait for another process's word: spin, yield, park. None loses a wake-up, and none locks.

Who parks says so in a BELL before it looks one last time; who publishes looks at the bell after it has
published. Between the two steps of each stands a full fence, so at least one of them sees the other: either
the sleeper finds what is new, or the writer finds that it must ring.

sleeper: wait.sleep(bell, ready) -> may sleep; wait.drain(fd) when woken; wait.woke(bell) writer: publish;
wait.ring_bells(bells, fds)

A loop (uvloop) sleeps on an eventfd that the writer rings. A kernel's runner without a loop parks on the
`tail` of the ring itself, by futex: its value changes with each publication, so a wake-up that comes too
early is not lost.

bell BELL[1]; its `sleeping` is written by the sleeper alone
"""

import ctypes
import errno
import os
import time
from collections.abc import Callable, Sequence

import numpy as np
from numba import types

from shm import layout
from shm.atomics import fence_full, load_acquire, load_relaxed, pause, store_relaxed
from shm.kernel import entry

_SYS_FUTEX = 202  # x86-64
_FUTEX_WAKE, _FUTEX_WAIT_BITSET = 1, 9  # not the private forms: the word is in memory of several processes
_ANY_BIT = 2**32 - 1
_EVERYONE = 2**31 - 1
_SECOND_NS = 1_000_000_000
_WORD32 = 2**32

_sched_yield = types.ExternalFunction("sched_yield", types.int32())


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64)]


_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [
    ctypes.c_long,
    ctypes.c_void_p,
    ctypes.c_long,
    ctypes.c_uint32,
    ctypes.POINTER(_Timespec),
    ctypes.c_void_p,
    ctypes.c_uint32,
]


# --- spinning -----------------------------------------------------------------------------------------------


@entry
def spin(ring, seen, turns):
    """Look at most `turns` times whether ring[0].tail has left `seen`; return whether it has."""
    for _ in range(turns):
        if load_acquire(ring[0], "tail") != seen:
            return True
        pause()
    return False


@entry
def yielding(ring, seen, turns):
    """Like `spin`, giving the core away between two looks: for machines with fewer cores than spinners."""
    for _ in range(turns):
        if load_acquire(ring[0], "tail") != seen:
            return True
        _sched_yield()
    return False


# --- the bell -----------------------------------------------------------------------------------------------


@entry
def will_sleep(bell):
    """Announce the sleep. What is read after this call is newer than the announcement."""
    store_relaxed(bell[0], "sleeping", 1)
    fence_full()


@entry
def is_sleeping(bell):
    """Say, after something was published, whether the sleeper must be woken to see it."""
    fence_full()
    return load_relaxed(bell[0], "sleeping") != 0


@entry
def woke(bell):
    """Take the announcement back."""
    store_relaxed(bell[0], "sleeping", 0)


def sleep(bell: np.ndarray, ready: Callable[[], bool]) -> bool:
    """Announce the sleep and look one last time; return whether the caller may sleep now.

    False: `ready()` found something, and the announcement is taken back. True: who publishes from now on
    rings.
    """
    will_sleep(bell)
    if ready():
        woke(bell)
        return False
    return True


# --- parking in a loop --------------------------------------------------------------------------------------


def new_eventfd() -> int:
    """Make the descriptor that wakes a loop: `add_reader(fd, ...)`, there `drain(fd)` and `woke(bell)`."""
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def ring_bells(bells: Sequence[np.ndarray], fds: Sequence[int]) -> int:
    """Wake those that sleep, after publishing; return how many. fds[i] wakes the owner of bells[i]."""
    rung = 0
    for bell, fd in zip(bells, fds, strict=True):
        if is_sleeping(bell):
            _write(fd)
            rung += 1
    return rung


def drain(fd: int) -> None:
    """Make `fd` silent again. It need not have been rung."""
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        pass


def _write(fd: int) -> None:
    try:
        os.eventfd_write(fd, 1)
    except BlockingIOError:
        pass  # 2**64 - 2 rings are waiting: it is awake enough


# --- parking on the ring itself -----------------------------------------------------------------------------


def park(bell: np.ndarray, ring: np.ndarray, seen: int, timeout_ns: int) -> bool:
    """Sleep until ring[0].tail has left `seen`, or for `timeout_ns`; return whether it has.

    The writer must call `unpark` after it publishes. `ring` may be memory that this process cannot write.
    """
    address, deadline = _tail_address(ring), time.monotonic_ns() + timeout_ns
    limit = ctypes.byref(_Timespec(*divmod(deadline, _SECOND_NS)))
    will_sleep(bell)
    timed_out = False
    while not (timed_out or spin(ring, seen, 1)):  # a wake-up may be for what was seen before: look again
        rest = _syscall(_SYS_FUTEX, address, _FUTEX_WAIT_BITSET, seen % _WORD32, limit, None, _ANY_BIT)
        timed_out = rest < 0 and ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR)
    woke(bell)
    return bool(spin(ring, seen, 1))


def unpark(bell: np.ndarray, ring: np.ndarray) -> bool:
    """Wake, after publishing, whoever is parked on `ring`, if its bell says so; return whether it did."""
    if not is_sleeping(bell):
        return False
    _syscall(_SYS_FUTEX, _tail_address(ring), _FUTEX_WAKE, _EVERYONE, None, None, 0)
    return True


def _tail_address(ring: np.ndarray) -> int:
    """The low half of `tail`: a futex is 32 bits, and the first of them on this machine are the lowest."""
    return int(ring.ctypes.data) + ring.dtype.fields["tail"][1]


def warm():
    """Compile the entry points, for both kinds of ring, and for a ring that cannot be written."""
    bell = np.zeros(1, layout.BELL)
    for dtype in (layout.BROADCAST, layout.RING):
        ring = np.zeros(1, dtype)
        for _ in range(2):
            spin(ring, 0, 1)
            yielding(ring, 0, 1)
            ring.flags.writeable = False
    for _ in range(2):
        is_sleeping(bell)
        if bell.flags.writeable:
            will_sleep(bell)
            woke(bell)
        bell.flags.writeable = False
