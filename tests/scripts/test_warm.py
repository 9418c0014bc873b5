"""The cache of kernels belongs to exactly the sources it was compiled from."""

import io
import os
import sys
import types

import pytest

from scripts import warm


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "shm").mkdir()
    (tmp_path / "shm" / "ring.py").write_text("x = 1\n")
    return tmp_path


@pytest.fixture
def warmed(monkeypatch):
    """Two modules with kernels; returns the names of those that were warmed."""
    names = []
    for name in ("kernels_a", "kernels_b"):
        module = types.ModuleType(name)
        module.warm = lambda name=name: names.append(name)
        monkeypatch.setitem(sys.modules, name, module)
    return names


def test_the_same_sources_have_the_same_cache(tree):
    assert warm.cache_directory(tree) == warm.cache_directory(tree)
    assert warm.cache_directory(tree).parent == tree / ".cache" / "numba"


@pytest.mark.parametrize(
    "file", ["shm/ring.py", "shm/other.py", "engine/follow/parse.py", "gateway/rings.py"]
)
def test_changed_or_new_sources_have_another_cache(tree, file):
    before = warm.cache_directory(tree)
    (tree / file).parent.mkdir(parents=True, exist_ok=True)
    (tree / file).write_text("x = 2\n")
    assert warm.cache_directory(tree) != before


def test_text_that_moves_from_one_file_to_the_next_is_a_change(tree):
    (tree / "shm" / "sides.py").write_text("y = 2\n")
    before = warm.cache_directory(tree)
    (tree / "shm" / "ring.py").write_text("x = 1\ny = 2\n")
    (tree / "shm" / "sides.py").write_text("")
    assert warm.cache_directory(tree) != before


@pytest.mark.parametrize("change", ["version", "cpu_features"])
def test_another_compiler_or_cpu_has_another_cache(tree, monkeypatch, change):
    before = warm.cache_directory(tree)
    monkeypatch.setattr(warm, change, lambda *_: "another")
    assert warm.cache_directory(tree) != before


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


def test_pruning_keeps_the_newest_and_those_in_use(tmp_path):
    ages = {"now": 0, "before": 9_000, "older": 10_000, "oldest": 20_000}
    for name, age in ages.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (100_000 - age, 100_000 - age))
    (tmp_path / "in use").mkdir()
    os.utime(tmp_path / "in use", (99_000, 99_000))
    warm.prune(tmp_path, now_seconds=100_000)
    assert {path.name for path in tmp_path.iterdir()} == {"now", "in use"}
