"""Run a compiled kernel in a forked child, and stop it at every instruction.

A stop is a crash: what the child has stored so far is what would be left if it were killed there (x86 keeps
stores in program order). So a check at each stop tries every point at which a writer can die, and an action
at one stop tries every point at which a reader can be overrun. The kernel says where the part to be stepped
begins and ends:

    stop_here(marks); ...; end_here(marks)
"""

import ctypes
import os
import signal

import numpy as np
import pytest
from numba import njit, types

from shm.atomics import store_release_at
from tests.shm import mapped

TRACED, STAGE = 0, 1  # words of `marks`: whether a tracer waits; where the kernel is
BEFORE, INSIDE, AFTER = 0, 1, 2
STEPS_MAX = 2_000_000

_TRACEME, _CONT, _SINGLESTEP = 0, 7, 9
_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long
_raise = types.ExternalFunction("raise", types.int32(types.int32))
_SIGTRAP = int(signal.SIGTRAP)


@njit(nogil=True)
def stop_here(marks):
    if marks[TRACED] != 0:
        _raise(_SIGTRAP)
    store_release_at(marks, STAGE, INSIDE)


@njit(nogil=True)
def end_here(marks):
    store_release_at(marks, STAGE, AFTER)


class Stepped:
    """A child that runs `kernel(*arrays, marks)`, stopped before the first instruction inside. Use it with
    `with`.

    `kernel` is called once in this process before, which compiles it: `arrays` must stand that, or be reset.
    """

    def __init__(self, kernel, *arrays):
        self.marks = mapped.zeros(2, np.int64)
        self._kernel, self._arrays = kernel, arrays

    def __enter__(self):
        self.marks[:] = 1, BEFORE
        self._pid = os.fork()
        if self._pid == 0:
            self._run_traced()
        self._wait()
        while self.marks[STAGE] == BEFORE:
            self._step()
        return self

    def __exit__(self, *_):
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def step(self):
        """Execute one instruction; return False when the kernel has come to its end."""
        self._step()
        return self.marks[STAGE] != AFTER

    def steps(self):
        """Yield the number of instructions executed so far, at each stop, to the end."""
        for count in range(STEPS_MAX):
            yield count
            if not self.step():
                return
        pytest.fail(f"the kernel is not at its end after {STEPS_MAX} instructions")

    def run_to_end(self):
        """Let the kernel run on, and return when the child has ended."""
        _ptrace(_CONT, self._pid, None, None)
        ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None and ended.si_status == 0, "the stepped child failed"

    def _step(self):
        _ptrace(_SINGLESTEP, self._pid, None, None)
        self._wait()

    def _wait(self):
        _, status = os.waitpid(self._pid, 0)
        if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != signal.SIGTRAP:
            pytest.fail(f"the stepped child ended, or had another signal: status {status:#x}")

    def _run_traced(self):
        try:
            if _ptrace(_TRACEME, 0, None, None) == 0:
                self._kernel(*self._arrays, self.marks)
                os._exit(0)
        finally:
            os._exit(1)
