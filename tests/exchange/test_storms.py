"""Bad days: the engine does what the model does, as far as the rules are in it."""

import pytest

from engine.exchange.records import Kind
from shm.codes import NAMES, Ack, Refusal
from tests.exchange.stops import Stops
from tests.exchange.storms import Storm
from tests.exchange.terms import FIELDS, HEAD
from tests.exchange.test_model import OF_STOPS, OF_STORMS, ONLY_STOPS, follow

SEEDS, COMMANDS = 24, 1500  # 36,000 in CI, and as many with stops
SOAK_SEEDS, SOAK_COMMANDS = range(1000, 1100), 10_000  # 1,000,000 of each


ENDED_STATUS = HEAD + FIELDS[Kind.ENDED].split().index("status")


def pytest_generate_tests(metafunc):
    """Streams of CI, and with --soak those of the long run."""
    if "count" in metafunc.fixturenames:
        streams = [(seed, COMMANDS) for seed in range(SEEDS)]
        if metafunc.config.getoption("--soak"):
            streams += [(seed, SOAK_COMMANDS) for seed in SOAK_SEEDS]
        metafunc.parametrize(("seed", "count"), streams)


@pytest.mark.parametrize("world", [Storm, Stops])
def test_the_engine_does_what_the_model_does(world, seed, count):
    follow(world(seed), count)


def test_stops_reach_what_only_they_can():
    refusals, acks, told, ends = set(), set(), set(), set()
    for seed in range(SEEDS):
        for step in Stops(seed).steps(COMMANDS):
            refusals.add(step.ack[8])
            acks.add(step.ack[9])
            told.update(row[0] for row in step.outcomes)
            ends.update(row[ENDED_STATUS] for row in step.outcomes if row[0] == Kind.ENDED)
    assert refusals >= OF_STOPS and acks == set(Ack) and told >= ONLY_STOPS
    assert NAMES.index("siblingFilledCanceled") in ends


def test_storms_reach_what_only_they_can():
    """INTEREST_FAST takes ten billion dollars: test_prices.py has it by hand."""
    refusals, told = set(), set()
    for seed in range(SEEDS):
        for step in Storm(seed).steps(COMMANDS):
            refusals.add(step.ack[8])
            told.update((row[0], row[-1] if row[0] == Kind.LIQUIDATED else 0) for row in step.outcomes)
    assert OF_STORMS | {
        Refusal.TIER,
        Refusal.LEVERAGE_MARGIN,
    } <= refusals | {Refusal.INTEREST_FAST}
    assert {(kind, 0) for kind in (Kind.TIER, Kind.PRICES, Kind.RATE, Kind.FUNDING)} <= told
    assert {(Kind.LIQUIDATED, method) for method in (1, 2, 3)} <= told
