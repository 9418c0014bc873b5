"""Compile the kernels before the first order needs them, into a cache that belongs to exactly these sources.

Numba's own cache does not notice that a callee in another file has changed, and would go on with the old
machine code. So the cache's directory is named by a digest of all that the machine code depends on; a changed
source is a new directory, and the old ones are pruned.

    python -m scripts.warm               compile what is not yet compiled, with a progress bar on a terminal
    python -m scripts.warm --directory   print the directory that NUMBA_CACHE_DIR must name, and do nothing
"""

import hashlib
import importlib
import multiprocessing
import os
import platform
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
CACHES = ROOT / ".cache" / "numba"

# A module with kernels defines `warm()`, which calls each entry point once, and has its line here: those that
# take longest first, so that no processor waits at the end.
MODULES = [
    "engine.follow.parse",
    "gateway.encode",
    "engine.exchange.apply",
    "engine.apply",
    "engine.exchange.project",
    "engine.image",
    "engine.publish",
    "shm.rows",
    "shm.account_rows",
    "shm.broadcast",
    "engine.follow.check",
    "engine.follow.join",
    "engine.exchange.doors",
    "engine.exchange.durable",
    "engine.exchange.snapshot",
    "gateway.interest",
    "gateway.door",
    "shm.region",
    "shm.seqlock",
    "shm.spsc",
    "shm.stats",
    "shm.wait",
]

PACKAGES = ["engine", "gateway", "shm"]
COMPILER = ["llvmlite", "numba", "numpy"]
KEPT_COUNT = 2  # caches: these sources, and those before them, for who goes back and forth between two
KEPT_SECONDS = 3600  # a younger cache may be that of a process which still compiles
BAR_CELLS = 24


def sources(root: Path) -> list[Path]:
    """All files whose text the machine code depends on, in a fixed order; this one holds the table."""
    found = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return [*found, Path(__file__).resolve()]


def cache_directory(root: Path = ROOT) -> Path:
    """Name the cache of the sources as they are now. The directory need not exist."""
    digest = hashlib.sha256()
    for path in sources(root):
        text = path.read_bytes()
        digest.update(f"{path}\0{len(text)}\0".encode() + text)  # numba, too, tells files by their full paths
    for name in COMPILER:
        digest.update(f"{name} {version(name)}\0".encode())
    digest.update(f"{platform.python_version()}\0{cpu_features()}".encode())
    return root / ".cache" / "numba" / digest.hexdigest()[:32]


def cpu_features() -> str:
    """What this CPU can do: code for another one is of no use, if the checkout moves to it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return line
    return platform.machine()


def compile_all(modules: list[str], out: TextIO, jobs: int = 1) -> None:
    """Call each module's `warm()`, in so many processes. Raises what one of them raises, after naming it."""
    start, done = time.monotonic(), 0
    if jobs == 1:
        for name in modules:
            show(done, len(modules), name, out)
            warm(name)
            done += 1
    else:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            under_way = {pool.submit(warm, name): name for name in modules}
            show(done, len(modules), modules[0], out)
            for finished in as_completed(under_way):
                if finished.exception() is not None:
                    out.write(f"\nfailed: {under_way[finished]}\n")
                finished.result()
                done += 1
                show(done, len(modules), under_way[finished], out)
    out.write("\r\x1b[K" if out.isatty() else "")
    out.write(f"compiled {len(modules)} modules in {time.monotonic() - start:.0f} s\n")


def warm(name: str) -> None:
    """Compile one module's kernels, and those that they call."""
    importlib.import_module(name).warm()


def show(done: int, count: int, name: str, out: TextIO) -> None:
    """Say how far it is: a bar on a terminal, otherwise plain lines."""
    if out.isatty():
        filled = BAR_CELLS * done // count
        bar = "#" * filled + "." * (BAR_CELLS - filled)
        out.write(f"\r\x1b[Kcompiling [{bar}] {done}/{count} {name}")
    else:
        out.write(f"compiling {done}/{count} {name}\n")
    out.flush()


def prune(caches: Path, now_seconds: float) -> None:
    """Remove all but the newest caches, and none that was in use within the last hour."""
    newest_first = sorted(caches.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in newest_first[KEPT_COUNT:]:
        if now_seconds - path.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(path)


def main() -> None:
    directory = cache_directory()
    if sys.argv[1:] == ["--directory"]:
        print(directory)
        return
    if os.environ.get("NUMBA_CACHE_DIR") != str(directory):
        sys.exit(f"warm: NUMBA_CACHE_DIR must be {directory}")
    complete = directory / "complete"
    directory.mkdir(parents=True, exist_ok=True)
    if not complete.exists():
        compile_all(MODULES, sys.stderr, os.cpu_count() or 1)
    complete.touch()
    os.utime(directory)  # in use now, and so the newest
    prune(CACHES, time.time())


if __name__ == "__main__":
    main()
