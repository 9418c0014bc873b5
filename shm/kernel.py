"""How kernels are compiled: the ones that Python calls, and the ones that only kernels call.

An inner function gets no wrapper for Python and no entry in the cache of its own: it is compiled with the
entry points that use it. For functions that take many arrays this is half of all compile time. And it is
compiled into them: a call would hand over every array of the state, seven words each.
"""

from numba import njit

# No kernel of ours makes or keeps an array, so none counts references to one (`_nrt`): an atomic addition
# wherever a function names an array, which would be most of its time.
entry = njit(cache=True, nogil=True, _nrt=False)
inner = njit(nogil=True, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)
# What is long and seldom done is called after all: compiled once, and not into everything that uses it.
apart = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)


@inner
def copy_bytes(to, of):
    """Copy a fixed field of bytes (u1[n]) into another of the same length."""
    for i in range(len(to)):
        to[i] = of[i]


@inner
def same_bytes(one, other):
    """Whether two fixed fields of bytes of the same length (u1[n]) are equal: all are looked at, at once."""
    different = 0
    for i in range(len(one)):
        different |= one[i] ^ other[i]
    return different == 0


@inner
def clear_bytes(to):
    """Zero a fixed field of bytes."""
    for i in range(len(to)):
        to[i] = 0
