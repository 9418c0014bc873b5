"""Every decoder under a fuzzer, for a bounded number of inputs that are the same each time: no finding.

And the same with each decoder made worse: a finding, or the fuzzer does not look.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz import targets

ROOT = Path(__file__).parents[2]
RUNS, SOAK_RUNS = 1_500, 50_000  # inputs of each target, its seeds among them

pytestmark = [
    pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed"),
    pytest.mark.timeout(7200),  # of a soak
]


def fuzzed(found, runs, *more):
    """Run all targets; return each one's status, and all that was said."""
    command = [sys.executable, "-m", "tests.fuzz", "all", "--runs", str(runs), "--seed", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    command += ["--found", str(found), *more]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = done.stdout.decode(errors="replace")
    statuses = {
        name: int(status) for name, status in re.findall(r"^([a-z]+) (-?[0-9]+)$", said, re.MULTILINE)
    }
    assert done.returncode == any(statuses.values()), said
    return statuses, said


def test_nothing_is_found(tmp_path, pytestconfig):
    runs = SOAK_RUNS if pytestconfig.getoption("--soak") else RUNS
    statuses, said = fuzzed(tmp_path, runs)
    assert statuses == dict.fromkeys(targets.TARGETS, 0), said
    assert said.count(f"Done {runs} runs") == len(targets.TARGETS), "one has ended before"
    assert list(tmp_path.iterdir()) == []


def test_decoders_that_are_worse_are_found(tmp_path):
    statuses, said = fuzzed(tmp_path, RUNS, "--broken")
    assert statuses.keys() == targets.TARGETS.keys()
    assert [name for name, status in statuses.items() if status == 0] == [], said
    assert said.count("Uncaught Python exception") == len(targets.TARGETS), said
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == targets.TARGETS.keys()
