"""Compile the kernels before the first order needs them, into the cache of exactly these sources.

python -m scripts.warm               compile what is not yet compiled, with a progress bar on a terminal
python -m scripts.warm --directory   print the directory that NUMBA_CACHE_DIR must name, and do nothing
"""

import importlib
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TextIO

from scripts import caches, progress

# A module with kernels defines `warm()`, which calls each entry point once, and has its line here: those that
# take longest first, so that no processor waits at the end.
MODULES = [
    "engine.exchange.apply",
    "engine.follow.parse",
    "gateway.encode",
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
    "engine.journal.runner",
    "engine.journal.record",
    "gateway.quotes",
    "gateway.interest",
    "gateway.door",
    "shm.region",
    "shm.seqlock",
    "shm.spsc",
    "shm.stats",
    "shm.wait",
]


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
    out.write(progress.CLEAR if out.isatty() else "")
    out.write(f"compiled {len(modules)} modules in {time.monotonic() - start:.0f} s\n")


def warm(name: str) -> None:
    """Compile one module's kernels, and those that they call."""
    importlib.import_module(name).warm()


def show(done: int, count: int, name: str, out: TextIO) -> None:
    """Say how far it is: a bar on a terminal, otherwise plain lines."""
    if out.isatty():
        out.write(f"{progress.CLEAR}compiling {progress.bar(done, count)} {done}/{count} {name}")
    else:
        out.write(f"compiling {done}/{count} {name}\n")
    out.flush()


def main() -> None:
    cache = caches.directory()
    if sys.argv[1:] == ["--directory"]:
        print(cache)
        return
    if os.environ.get("NUMBA_CACHE_DIR") != str(cache):
        sys.exit(f"warm: NUMBA_CACHE_DIR must be {cache}")
    complete = cache / caches.COMPLETE
    if not complete.exists():
        closures = caches.closures()
        cache.mkdir(parents=True, exist_ok=True)
        caches.inherit(cache, closures)
        compile_all(MODULES, sys.stderr, os.cpu_count() or 1)
        complete.write_text(json.dumps(closures))
    os.utime(cache)  # in use now, and so the newest
    caches.prune(caches.CACHES, time.time())


if __name__ == "__main__":
    main()
