"""The same commands have the same outcomes on any processor, compiled for it or not at all.

The digest covers every byte of every outcome. Each way is a process of its own: numba decides at import.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.exchange.state import allocate
from tests.exchange.commands import Swarm
from tests.exchange.compare import run
from tests.exchange.terms import encode

ROOT = Path(__file__).parents[2]
LONG, SHORT = [[2, 6000], [9, 6000], [24, 6000]], [[2, 600], [39, 600]]  # seed, commands


def digests(streams: list[list[int]]) -> list[int]:
    """The digest after each of the streams."""
    found = []
    for seed, count in streams:
        swarm = Swarm(seed)
        state = allocate(swarm.capacity)
        run(state, encode([step.command for step in swarm.steps(count)]))
        found.append(int(state.heap[0]["digest"]))
    return found


def digests_elsewhere(streams: list[list[int]], **environment: str) -> list[int]:
    """The same from a process with another environment."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.exchange.test_same_everywhere", json.dumps(streams)],
        cwd=ROOT, env={**os.environ, **environment}, check=True, capture_output=True, timeout=240,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.timeout(300)
def test_a_generic_processor_gives_the_same_digests(tmp_path):
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    assert digests_elsewhere(LONG, **generic) == digests(LONG)
    assert list(tmp_path.rglob("*.nbc")), "it was compiled anew, for that processor"


def test_interpreted_kernels_give_the_same_digests():
    assert digests_elsewhere(SHORT, NUMBA_DISABLE_JIT="1") == digests(SHORT)


def test_other_commands_give_another_digest():
    assert len(set(digests(LONG) + digests(SHORT))) == len(LONG) + len(SHORT)


if __name__ == "__main__":
    print(json.dumps(digests(json.loads(sys.argv[1]))))
