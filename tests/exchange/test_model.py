"""The engine, a naive model and the outcomes' own laws tell one story, command by command."""

import random

import numpy as np
import pytest

from engine.exchange.records import Kind
from engine.exchange.state import allocate
from shm.codes import Refusal
from tests.exchange.commands import TIGHT, Swarm
from tests.exchange.compare import Comparison, run
from tests.exchange.invariants import check_all
from tests.exchange.terms import encode
from tests.exchange.witness import Witness

SEEDS, COMMANDS = 32, 5000  # 160,000 commands in CI
SOAK_SEEDS, SOAK_COMMANDS = range(1000, 1200), 10_000  # 2,000,000
OF_STORMS = {  # what leads to these is in test_storms.py
    Refusal.TIER, Refusal.KILLED, Refusal.CLOSED,
    Refusal.INTEREST_FAST, Refusal.INTEREST_FLIP, Refusal.INTEREST_CAP,
}  # fmt: skip
OF_STOPS = {
    Refusal.TRIGGER, Refusal.GROUPING, Refusal.PARENT,
    Refusal.TWAP_MINUTES, Refusal.TWAP_VALUE, Refusal.TWAP_GONE,
}  # fmt: skip
ONLY_STOPS = {Kind.WAITING, Kind.TRIGGERED, Kind.TWAP, Kind.SLICE}
CHUNK = 400  # commands of a batch, at most
BATCHED = 8  # one stream of so many goes by batches; the others are looked at after every command


def world(seed):
    """Of four seeds, one in a world whose tables are soon full."""
    return Swarm(seed, TIGHT if seed % 4 == 3 else None)


def follow(swarm, count):
    """One world, compared all along, and scanned from end to end after each look at it."""
    seed = swarm.seed
    comparison, witness, chance = Comparison(swarm), Witness(), random.Random(seed)
    while comparison.swarm.sequence < count:
        batch = list(comparison.swarm.steps(chance.randint(1, CHUNK)))
        for steps in [batch] if seed % BATCHED == 0 else ([step] for step in batch):
            witness.hear(comparison.put(steps).outcomes)
            assert check_all(comparison.state) == witness.book, (
                "the book that is told is the book that is there"
            )


def pytest_generate_tests(metafunc):
    """Streams of CI, and with --soak those of the long run."""
    if "count" in metafunc.fixturenames:
        streams = [(seed, COMMANDS) for seed in range(SEEDS)]
        if metafunc.config.getoption("--soak"):
            streams += [(seed, SOAK_COMMANDS) for seed in SOAK_SEEDS]
        metafunc.parametrize(("seed", "count"), streams)


def test_the_engine_does_what_the_model_does(seed, count):
    follow(world(seed), count)


@pytest.mark.parametrize("seed", range(50, 56))
def test_how_commands_are_batched_makes_no_difference(seed):
    swarm, chance = Swarm(seed), random.Random(seed)
    commands = encode([step.command for step in swarm.steps(3000)])
    cuts = sorted(chance.sample(range(1, len(commands)), 60))
    one_by_one = [commands[i : i + 1] for i in range(len(commands))]
    told = []
    for batches in ([commands], np.split(commands, cuts), one_by_one):
        state = allocate(swarm.capacity)
        results = [run(state, batch) for batch in batches]
        rows = b"".join(result.rows.tobytes() for result in results)
        acks = [ack for result in results for ack in result.acks]
        told.append(
            (rows, acks, state.heap[0]["digest"], state.accounts.tobytes(), state.positions.tobytes())
        )
    assert told[0] == told[1] == told[2]


def test_a_digest_names_what_was_told():
    """Equal for equal commands; another if one price is another."""
    swarm = Swarm(3)
    commands = encode([step.command for step in swarm.steps(2000)])
    last = np.flatnonzero(commands["kind"] == 1)[-1]
    other = commands.copy()
    other["price"][last] += 1
    digests = []
    for stream in (commands, commands, other):
        state = allocate(swarm.capacity)
        run(state, stream)
        digests.append(int(state.heap[0]["digest"]))
    assert digests[0] == digests[1] != digests[2]


def test_the_streams_reach_every_outcome_and_refusal():
    """A stream that never meets a rule proves nothing about it. OPEN_ORDERS has its scenario by hand."""
    refusals, kinds = set(), set()
    for seed in range(SEEDS):
        for step in world(seed).steps(COMMANDS // 2):
            refusals.add(step.ack[8])
            kinds.update(row[0] for row in step.outcomes)
    assert set(Refusal) - refusals <= {Refusal.OPEN_ORDERS, *OF_STORMS, *OF_STOPS}
    assert kinds >= set(Kind) - {Kind.TIER, Kind.RATE, Kind.FUNDING, *ONLY_STOPS}
