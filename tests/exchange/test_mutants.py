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
    """How each mutant was caught, or None."""
    command, environment = [sys.executable, "-m", "tests.exchange.mutants"], {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, check=True, stdout=subprocess.PIPE, timeout=600
    )
    return {each["mutant"]: each["caught"] for each in map(json.loads, done.stdout.splitlines())}


@pytest.mark.timeout(700)
@pytest.mark.parametrize("name", [name for name in MUTANTS if name != NONE])
def test_a_mutant_is_caught(caught, name):
    assert caught[name] is not None


@pytest.mark.timeout(700)
def test_the_engine_itself_is_not(caught):
    assert caught[NONE] is None
