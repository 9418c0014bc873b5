"""The streams that the exchange is measured with: nothing is refused but what is meant to be."""

from collections import Counter

import numpy as np
import pytest

from engine.exchange.apply import apply_commands
from engine.exchange.state import allocate
from perf import apply_commands as streams
from shm.codes import Ack, Ask, Command, Refusal


def acks_of(stream):
    """Acks of the measured part, and the state after it."""
    engine = allocate(stream.capacity)
    acks, told = [], 0
    for at in [*range(0, stream.start, 1000), *range(stream.start, len(stream.commands), 1000)]:
        commands = stream.commands[at : min(at + 1000, stream.start if at < stream.start else at + 1000)]
        assert apply_commands(engine, commands, len(commands)) == len(commands)
        if at >= stream.start:
            acks.append(engine.acks[: len(commands)].copy())
            told += engine.heap[0]["outcomes"]
    assert told == stream.told[stream.start :].sum()
    return np.concatenate(acks), engine


def refusals(acks):
    return Counter(Refusal(code) for code in acks["code"].tolist() if code)


@pytest.mark.parametrize("nonces", [False, True])
def test_the_mix_keeps_its_book_and_nothing_is_refused(nonces):
    stream = streams.mix(200, 6000, nonces)
    acks, engine = acks_of(stream)
    assert len(acks) >= 6000
    assert not refusals(acks)
    assert 100 < engine.status[0]["order_count"] < 400
    kinds = Counter(stream.commands["kind"][stream.start :].tolist())
    assert kinds[Command.MODIFY] > kinds[Command.ORDER] > kinds[Command.CANCEL] / 2 > 0
    assert (acks["outcome"] == Ack.FILLED).any()
    asked = stream.commands[stream.start :]
    asked = asked[asked["kind"] != Command.END_BLOCK]
    assert ((asked["flags"] & Ask.SESSION == 0) == nonces).all()


def test_the_same_seed_is_the_same_stream():
    one, again, other = (streams.mix(100, 1000, seed=seed).commands for seed in (1, 1, 2))
    assert (one == again).all()
    assert len(one) != len(other) or (one != other).any()


@pytest.mark.parametrize("name", streams.SHAPES)
def test_in_a_shape_only_late_orders_and_second_cancels_are_refused(name):
    stream = streams.shape(name, 20_000)
    acks, _ = acks_of(stream)
    refused = refusals(acks)
    assert set(refused) == {Refusal.IOC, Refusal.GONE}
    orders = (stream.commands["kind"][stream.start :] == Command.ORDER).sum()
    assert orders == 20_000
    cancels = (stream.commands["kind"][stream.start :] == Command.CANCEL).sum()
    assert 0 < refused[Refusal.GONE] < cancels / 20


def test_the_price_goes_where_the_shape_says():
    paths = {name: streams.path(name, 10_000) - streams.MIDDLE for name in streams.SHAPES}
    assert not paths["static"].any()
    assert paths["trending"][-1] > 500
    assert np.ptp(paths["volatile"]) > 20
    assert np.abs(np.diff(paths["gap"])).max() == 150
    assert paths["flash crash"].min() < -700 and paths["flash crash"][-1] == 0
