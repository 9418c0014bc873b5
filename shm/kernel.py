"""How kernels are compiled: the ones that Python calls, and the ones that only kernels call.

An inner function gets no wrapper for Python and no entry in the cache of its own. It is compiled with the
entry points that use it, and into them. What is long or has many callers stands `apart`: it is called after
all, so that its code is there once.

Numba optimises and assembles the code of each function together with that of all it calls; so what lies ten
calls deep would be optimised ten times over. Here only an entry point is: an inner function's code is kept as
it was written, until it is linked into one. There nobody else calls it, and the optimiser leaves out what it
is handed and does not use: so a call costs little.

An index of a kernel is never negative, so none is looked at in case it counts from the end: numba does that
at each, and kernels hardly do anything but index.
"""

from copy import copy
from typing import Any

from numba import njit, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.np import arrayobj


class _Whole(JITCodeLibrary):
    """The code of an entry point, and that of all it calls, which is its own."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage.name == "linkonce_odr":
                function.linkage = "internal"
        super()._optimize_final_module()


class _Linked(JITCodeLibrary):
    """The code of an inner function: others link it, and nothing runs it from here."""

    class _Nowhere:
        """Stands for the place where code that runs would be told its Python environment."""

        def set_env(self, *_: Any) -> None:
            pass

    codegen = _Nowhere()

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0


def _ours(targetctx: Any) -> Any:
    """The context in which a kernel is compiled, which is known by its mark."""
    ours = copy(targetctx)
    ours.is_of_kernel = True
    return ours


_index_of_anybody = arrayobj.fix_integer_index


def _index(context: Any, builder: Any, kind: Any, value: Any, size: Any) -> Any:
    """An index of ours stands for itself."""
    if getattr(context, "is_of_kernel", False):
        return context.cast(builder, value, kind, types.intp)
    return _index_of_anybody(context, builder, kind, value, size)


arrayobj.fix_integer_index = _index


class _EntryCompiler(Compiler):
    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *rest: Any) -> None:
        library = library or _Whole(targetctx.codegen(), "entry")
        library.enable_object_caching()
        super().__init__(typingctx, _ours(targetctx), library, *rest)


class _InnerCompiler(Compiler):
    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *rest: Any) -> None:
        library = library or _Linked(targetctx.codegen(), "inner")
        super().__init__(typingctx, _ours(targetctx), library, *rest)


# No kernel of ours makes or keeps an array, so none counts references to one (`_nrt`): an atomic addition
# wherever a function names an array, which would be most of its time.
# Inlined or not is said aloud: left open, a function would be as its caller is.
_options = {"nogil": True, "_nrt": False, "forceinline": False}
_inner = {**_options, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _InnerCompiler}
entry = njit(cache=True, pipeline_class=_EntryCompiler, **_options)
inner = njit(**{**_inner, "forceinline": True})
apart = njit(**_inner)
