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
def caught():
    """What was found of each mutant."""
    command, environment = [sys.executable, "-m", "tests.exchange.mutants"], {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, check=True, stdout=subprocess.PIPE, timeout=1200
    )
    return {each["mutant"]: each for each in map(json.loads, done.stdout.splitlines())}


@pytest.mark.timeout(1300)
@pytest.mark.parametrize("name", [name for name in MUTANTS if name != NONE])
def test_a_mutant_is_caught(caught, name):
    assert caught[name]["caught"] is not None


@pytest.mark.timeout(1300)
def test_the_engine_itself_is_not(caught):
    assert caught[NONE] == {"mutant": NONE, "caught": None, "scanned": None}


@pytest.mark.timeout(1300)
@pytest.mark.parametrize(
    "name", [name for name, mutant in MUTANTS.items() if mutant.unsound and name != NONE]
)
def test_a_state_that_breaks_a_law_is_seen_without_the_model(caught, name):
    assert caught[name]["scanned"] is not None
