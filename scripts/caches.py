"""Which directory holds the machine code of exactly these sources, and what an older one can give it.

Numba's own cache does not notice that a callee in another file has changed, and would go on with the old
machine code. So a cache's directory is named by a digest of all that the machine code depends on: a changed
source is a new directory. What it may take over from an older one is the code of each module whose `closure`
is the same: its text, that of all it imports of ours, directly or not, the compiler and the CPU.
"""

import ast
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHES = ROOT / ".cache" / "numba"
PACKAGES = ["engine", "gateway", "shm"]
COMPILER = ["llvmlite", "numba", "numpy"]
COMPLETE = "complete"  # a file in a directory in which nothing is missing; it holds the closures
KEPT_COUNT = 2  # caches: these sources, and those before them, for who goes back and forth between two
KEPT_SECONDS = 3600  # a younger cache may be that of a process which still compiles


def sources(root: Path) -> list[Path]:
    """All files whose text the machine code depends on, in a fixed order."""
    return [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]


def settle() -> None:
    """Have this process, and those that it starts, use the cache of the checkout, if this is one."""
    if (ROOT / "pyproject.toml").exists():  # a checkout, which has a place for compiled kernels
        os.environ.setdefault("NUMBA_CACHE_DIR", str(directory()))


def directory(root: Path = ROOT) -> Path:
    """Name the cache of the sources as they are now. It need not exist."""
    digest = hashlib.sha256(_machine())
    for path in [*sources(root), *(Path(__file__).with_name(name) for name in ("caches.py", "warm.py"))]:
        text = path.read_bytes()
        digest.update(f"{path}\0{len(text)}\0".encode() + text)  # numba, too, tells files by their full paths
    return root / ".cache" / "numba" / digest.hexdigest()[:32]


def _machine() -> bytes:
    compiler = [f"{name} {version(name)}" for name in COMPILER]
    return "\0".join([*compiler, platform.python_version(), cpu_features()]).encode()


def cpu_features() -> str:
    """What this CPU can do: code for another one is of no use, if the checkout moves to it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return line
    return platform.machine()


def closures(root: Path = ROOT) -> dict[str, str]:
    """Name what the machine code of each module depends on: its file, below the root -> a digest."""
    texts = {path.relative_to(root).with_suffix(""): path.read_bytes() for path in sources(root)}
    files = {".".join(path.parts): path for path in texts}
    imported = {name: {n for n in _imports(texts[path]) if n in files} for name, path in files.items()}
    machine, found = _machine(), {}
    for name, path in files.items():
        reached, new = {name}, {name}
        while new:
            new = {further for near in new for further in imported[near]} - reached
            reached |= new
        digest = hashlib.sha256(machine)
        for each in sorted(reached):
            digest.update(f"\0{each}\0{len(texts[files[each]])}\0".encode() + texts[files[each]])
        found[f"{path}.py"] = digest.hexdigest()[:32]
    return found


def _imports(text: bytes) -> Iterator[str]:
    """The dotted names of all modules that a file may mean by its imports."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inherit(cache: Path, wanted: dict[str, str], root: Path = ROOT) -> int:
    """Fill a cache from those beside it with what holds for these closures; return for how many modules."""
    from numba.core.caching import _CacheLocator  # noqa: PLC0415 (who names the cache must not load numba yet)

    still = dict(wanted)
    for older in sorted(cache.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            known = json.loads((older / COMPLETE).read_bytes())
        except (OSError, ValueError):
            continue
        for file in [file for file, digest in still.items() if known.get(file) == digest]:
            del still[file]
            folder = _CacheLocator.get_suitable_cache_subpath(str(root / file))
            for kept in (older / folder).glob(f"{Path(file).stem}.*"):
                (cache / folder).mkdir(exist_ok=True)
                if not (cache / folder / kept.name).exists():
                    shutil.copy2(kept, cache / folder / kept.name)
    return len(wanted) - len(still)


def prune(caches: Path, now_seconds: float) -> None:
    """Remove all but the newest caches, and none that was in use within the last hour."""
    newest_first = sorted(caches.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in newest_first[KEPT_COUNT:]:
        if now_seconds - path.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(path)
