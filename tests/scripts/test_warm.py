"""Every module with kernels is compiled, and one sees how far it is."""

import io
import sys
import types

import pytest

from scripts import warm


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def warmed(monkeypatch):
    """Two modules with kernels; returns the names of those that were warmed."""
    names = []
    for name in ("kernels_a", "kernels_b"):
        module = types.ModuleType(name)
        module.warm = lambda name=name: names.append(name)
        monkeypatch.setitem(sys.modules, name, module)
    return names


def test_every_module_of_the_table_is_warmed_in_its_order_and_told_in_plain_lines(warmed):
    out = io.StringIO()
    warm.compile_all(["kernels_b", "kernels_a"], out)
    assert warmed == ["kernels_b", "kernels_a"]
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["compiling 0/2 kernels_b", "compiling 1/2 kernels_a"]
    assert lines[2].startswith("compiled 2 modules in ")


def test_a_terminal_sees_a_bar_that_fills(warmed):
    out = Terminal()
    warm.compile_all(["kernels_a", "kernels_b"], out)
    assert [part.count("#") for part in out.getvalue().split("\r") if "[" in part.lstrip("\x1b[K")] == [0, 12]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_module_of_the_table_that_does_not_exist_is_an_error(jobs):
    with pytest.raises(ModuleNotFoundError):
        warm.compile_all(["shm.no_such_module"], io.StringIO(), jobs)


def test_several_processes_warm_them_all():
    out = io.StringIO()
    warm.compile_all(["shm.stats", "shm.spsc"], out, jobs=2)
    assert "compiling 2/2" in out.getvalue() and "compiled 2 modules" in out.getvalue()
