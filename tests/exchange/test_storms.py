"""Bad days: the engine does what the model does, as far as the rules are in it."""

from engine.exchange.records import Kind
from shm.codes import Refusal
from tests.exchange.storms import Storm
from tests.exchange.test_model import OF_STORMS, follow

SEEDS, COMMANDS = 24, 1500  # 36,000 in CI
SOAK_SEEDS, SOAK_COMMANDS = range(1000, 1100), 10_000  # 1,000,000


def pytest_generate_tests(metafunc):
    """Streams of CI, and with --soak those of the long run."""
    if "count" in metafunc.fixturenames:
        streams = [(seed, COMMANDS) for seed in range(SEEDS)]
        if metafunc.config.getoption("--soak"):
            streams += [(seed, SOAK_COMMANDS) for seed in SOAK_SEEDS]
        metafunc.parametrize(("seed", "count"), streams)


def test_the_engine_does_what_the_model_does(seed, count):
    follow(Storm(seed), count)


def test_storms_reach_what_only_they_can():
    """INTEREST_FAST takes ten billion dollars: test_prices.py has it by hand."""
    refusals, told = set(), set()
    for seed in range(SEEDS):
        for step in Storm(seed).steps(COMMANDS):
            refusals.add(step.ack[8])
            told.update((row[0], row[-1] if row[0] == Kind.LIQUIDATED else 0) for row in step.outcomes)
    assert OF_STORMS | {Refusal.TIER, Refusal.LEVERAGE_MARGIN} <= refusals | {Refusal.INTEREST_FAST}
    assert {(kind, 0) for kind in (Kind.TIER, Kind.PRICES, Kind.RATE, Kind.FUNDING)} <= told
    assert {(Kind.LIQUIDATED, method) for method in (1, 2, 3)} <= told
