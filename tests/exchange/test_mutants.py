"""Do the tests of the exchange notice a wrong line? Each mutant must be caught, the engine itself not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exchange.mutants import MUTANTS, NONE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found():
    """What is found of a mutant, by its name. They are tried in their order; who asks waits."""
    command, environment = [sys.executable, "-m", "tests.exchange.mutants"], {"NUMBA_DISABLE_JIT": "1"}
    known = {}
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE) as process:

        def of(name):
            while name not in known:
                one = json.loads(process.stdout.readline())
                known[one["mutant"]] = one
            return known[name]

        yield of
        process.terminate()


@pytest.mark.parametrize("name", [name for name in MUTANTS if name != NONE])
def test_a_mutant_is_caught(found, name):
    assert found(name)["caught"] is not None


def test_the_engine_itself_is_not(found):
    assert found(NONE) == {"mutant": NONE, "caught": None, "scanned": None}


@pytest.mark.parametrize(
    "name", [name for name, mutant in MUTANTS.items() if mutant.unsound and name != NONE]
)
def test_a_state_that_breaks_a_law_is_seen_without_the_model(found, name):
    assert found(name)["scanned"] is not None
