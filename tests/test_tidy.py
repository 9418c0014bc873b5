"""The rules of the house that a program can check. Each is a function from a tree to its breaches."""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from scripts import warm

ROOT = Path(__file__).parents[1]

PACKAGES = ["engine", "gateway", "shm"]
DOCUMENTED = [*PACKAGES, "perf", "scripts", "tests"]
FILE_LINES_MAX = 500
NAMES_TOO_VAGUE = {"common", "helpers", "utils"}

# Written so that they do not match their own text.
MACHINE_PATH = re.compile(r"/(?:far[m]|roo[t]|wor[k])/|/hom[e]/\w")
PACKAGE_INDEX = re.compile(
    r"index-ur[l]|find-link[s]|^registry *[=]|source = \{ *registr[y]|\"resolved\" *[:]|://\S+/simpl[e]\b",
    re.MULTILINE,
)
CLOCK = re.compile(r"\b(?:elapsed|monotonic|perf_counter|process_time)|\btime\.time")


@cache
def tracked(root: Path) -> list[Path]:
    """The files of the tree that are, or would be, committed; all of them where there is no repository."""
    if not (root / ".git").exists():
        return sorted(path for path in root.rglob("*") if path.is_file())
    command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True).stdout
    paths = [root / os.fsdecode(name) for name in listed.split(b"\0") if name]
    return sorted(path for path in paths if path.is_file())


def modules(root: Path, rooms: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield the name below the root, and the path, of each Python file in some top-level directories."""
    for path in tracked(root):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".py" and name.partition("/")[0] in rooms:
            yield name, path


def texts(root: Path) -> Iterator[tuple[str, str]]:
    for path in tracked(root):
        text = path.read_bytes()
        if b"\0" not in text:
            yield path.relative_to(root).as_posix(), text.decode(errors="replace")


def floats_of_money(root: Path) -> list[str]:
    return [
        f"{name}:{node.lineno} calls float"
        for name, path in modules(root, ["engine", "shm"])
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float"
    ]


def vague_names(root: Path) -> list[str]:
    return [
        name for name, path in modules(root, DOCUMENTED) if NAMES_TOO_VAGUE & {path.stem, path.parent.name}
    ]


def long_files(root: Path) -> list[str]:
    lengths = {name: path.read_text().count("\n") for name, path in modules(root, PACKAGES)}
    return [f"{name} has {lines} lines" for name, lines in lengths.items() if lines > FILE_LINES_MAX]


def undocumented(root: Path) -> list[str]:
    return [
        name
        for name, path in modules(root, DOCUMENTED)
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]


def packages_with_code(root: Path) -> list[str]:
    """Packages whose `__init__` is anything but a docstring. Those of the tests may be empty."""
    found = []
    for name, path in modules(root, DOCUMENTED):
        if path.name == "__init__.py":
            module = ast.parse(path.read_text())
            documented = ast.get_docstring(module) is not None
            if len(module.body) != documented or not (documented or name.startswith("tests/")):
                found.append(name)
    return found


def machine_paths(root: Path) -> list[str]:
    return [f"{name}: {found[0]}" for name, text in texts(root) if (found := MACHINE_PATH.search(text))]


def package_indexes(root: Path) -> list[str]:
    return [f"{name}: {found[0]}" for name, text in texts(root) if (found := PACKAGE_INDEX.search(text))]


def timed_assertions(root: Path) -> list[str]:
    return [
        f"{name}:{node.lineno} asserts a duration"
        for name, path in modules(root, ["tests"])
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
        and any(isinstance(part, (ast.Lt, ast.LtE, ast.Gt, ast.GtE)) for part in ast.walk(node.test))
        and CLOCK.search(ast.unparse(node.test))
    ]


def scripts_not_executable(root: Path) -> list[str]:
    return [
        path.relative_to(root).as_posix()
        for path in tracked(root)
        if path.read_bytes()[:2] == b"#!" and not os.access(path, os.X_OK)
    ]


def kernels_not_warmed(root: Path) -> list[str]:
    """Modules that define `warm()` and have no line in the table of scripts/warm.py."""
    found = []
    for name, path in modules(root, PACKAGES):
        module = name.removesuffix(".py").replace("/", ".")
        defined = {
            node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
        }
        if "warm" in defined and module not in warm.MODULES:
            found.append(f"{module} is not in MODULES of scripts/warm.py")
    return found


RULES_AND_BREACHES = [
    (floats_of_money, "engine/book.py", '"""Doc."""\nprice = float("1.5")\n'),
    (vague_names, "gateway/utils.py", '"""Doc."""\n'),
    (vague_names, "tests/helpers/test_book.py", '"""Doc."""\n'),
    (long_files, "shm/ring.py", '"""Doc."""\n' + "x = 1\n" * FILE_LINES_MAX),
    (undocumented, "engine/book.py", "x = 1\n"),
    (undocumented, "tests/engine/test_book.py", "x = 1\n"),
    (packages_with_code, "engine/__init__.py", '"""Doc."""\nimport os\n'),
    (packages_with_code, "engine/__init__.py", ""),
    (packages_with_code, "tests/__init__.py", "x = 1\n"),
    (machine_paths, "README.md", "cd /" + "work/main\n"),
    (package_indexes, "requirements.lock", "--extra-index" + "-url https://example.org/\n"),
    (package_indexes, "notes.lock", "source = { " + 'registry = "x" }\n'),
    (
        timed_assertions,
        "tests/test_book.py",
        '"""Doc."""\nassert perf_' + "counter() - start < (\n    5\n)\n",
    ),
    (timed_assertions, "tests/test_book.py", '"""Doc."""\nassert 5 > elapsed_ms\n'),
    (scripts_not_executable, "scripts/run", "#!/bin/sh\n"),
    (kernels_not_warmed, "shm/ring.py", '"""Doc."""\n\n\ndef warm():\n    pass\n'),
]


@pytest.mark.parametrize("rule", dict.fromkeys(rule for rule, _, _ in RULES_AND_BREACHES))
def test_the_tree_keeps(rule):
    assert rule(ROOT) == []


@pytest.mark.parametrize(("rule", "file", "text"), RULES_AND_BREACHES)
def test_a_breach_is_found(tmp_path, rule, file, text):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (found,) = rule(tmp_path)
    assert file.removesuffix(".py") in found.replace(".", "/") or file in found


def test_a_tidy_tree_has_no_breach(tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text('"""The engine."""\n')
    (tmp_path / "engine" / "book.py").write_text('"""The book."""\n\nlevel_count: float = 20\n')
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_book.py").write_text('"""Doc."""\nassert time_' + "ns(1) < time_" + "ns(2)\n")
    assert [breach for rule, _, _ in RULES_AND_BREACHES for breach in rule(tmp_path)] == []
