"""A cache of kernels belongs to exactly the sources it was compiled from, and takes over what still holds."""

import json
import os

import pytest
from numba.core.caching import _CacheLocator

from scripts import caches


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "shm").mkdir()
    (tmp_path / "shm" / "ring.py").write_text("x = 1\n")
    return tmp_path


def test_the_same_sources_have_the_same_cache(tree):
    assert caches.directory(tree) == caches.directory(tree)
    assert caches.directory(tree).parent == tree / ".cache" / "numba"


@pytest.mark.parametrize(
    "file", ["shm/ring.py", "shm/other.py", "engine/follow/parse.py", "gateway/rings.py"]
)
def test_changed_or_new_sources_have_another_cache(tree, file):
    before = caches.directory(tree)
    (tree / file).parent.mkdir(parents=True, exist_ok=True)
    (tree / file).write_text("x = 2\n")
    assert caches.directory(tree) != before


def test_text_that_moves_from_one_file_to_the_next_is_a_change(tree):
    (tree / "shm" / "sides.py").write_text("y = 2\n")
    before = caches.directory(tree)
    (tree / "shm" / "ring.py").write_text("x = 1\ny = 2\n")
    (tree / "shm" / "sides.py").write_text("")
    assert caches.directory(tree) != before


@pytest.mark.parametrize("change", ["version", "cpu_features"])
def test_another_compiler_or_cpu_has_another_cache(tree, monkeypatch, change):
    before = caches.directory(tree)
    monkeypatch.setattr(caches, change, lambda *_: "another")
    assert caches.directory(tree) != before


def test_pruning_keeps_the_newest_and_those_in_use(tmp_path):
    ages = {"now": 0, "before": 9_000, "older": 10_000, "oldest": 20_000}
    for name, age in ages.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (100_000 - age, 100_000 - age))
    (tmp_path / "in use").mkdir()
    os.utime(tmp_path / "in use", (99_000, 99_000))
    caches.prune(tmp_path, now_seconds=100_000)
    assert {path.name for path in tmp_path.iterdir()} == {"now", "in use"}


@pytest.fixture
def chain(tmp_path):
    """apply calls book, which calls layout; codec calls layout; alone calls nobody."""
    for file, text in {
        "shm/layout.py": "x = 1\n",
        "engine/book.py": "from shm.layout import x\n",
        "engine/apply.py": "from engine import book\n",
        "gateway/codec.py": "import shm.layout\n",
        "gateway/alone.py": "import numpy\n",
    }.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "still"),
    [
        ("shm/layout.py", {"gateway/alone.py"}),
        ("engine/book.py", {"gateway/alone.py", "gateway/codec.py", "shm/layout.py"}),
        ("engine/apply.py", {"engine/book.py", "gateway/alone.py", "gateway/codec.py", "shm/layout.py"}),
    ],
)
def test_what_imports_a_changed_module_is_compiled_anew_and_nothing_else(chain, changed, still):
    before = caches.closures(chain)
    (chain / changed).write_text((chain / changed).read_text() + "y = 2\n")
    after = caches.closures(chain)
    assert {file for file in after if after[file] == before[file]} == still


def test_a_new_cache_takes_over_what_still_holds_and_only_from_a_complete_one(chain):
    folders = {
        file: _CacheLocator.get_suitable_cache_subpath(str(chain / file)) for file in caches.closures(chain)
    }
    old, torn, new = (chain / ".cache" / "numba" / name for name in ("old", "torn", "new"))
    for cache in (old, torn):
        for file, folder in folders.items():
            (cache / folder).mkdir(parents=True, exist_ok=True)
            stem = file.rsplit("/", 1)[1].removesuffix(".py")
            (cache / folder / f"{stem}.f-1.nbi").write_text(f"{cache.name} {file}")
    (old / caches.COMPLETE).write_text(json.dumps(caches.closures(chain)))
    (chain / "engine" / "book.py").write_text("y = 3\n")
    new.mkdir()
    assert caches.inherit(new, caches.closures(chain), chain) == 3
    found = {path.read_text() for path in new.rglob("*.nbi")}
    assert found == {"old gateway/alone.py", "old gateway/codec.py", "old shm/layout.py"}
