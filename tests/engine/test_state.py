"""How much of each there is, and what an empty state looks like."""

import numpy as np
import pytest

from engine import state as states
from engine import verify
from engine.state import Capacity, allocate, power_of_two, world_counts
from shm import codes, layout, region
from shm.codes import NAMES, Feed, Mode, Status
from tests.engine import made


@pytest.mark.parametrize("count,power", [(1, 2), (2, 2), (3, 4), (4, 4), (5, 8), (1024, 1024), (1025, 2048)])
def test_power_of_two(count, power):
    assert power_of_two(count) == power


@pytest.mark.parametrize("capacity", [states.TINY, made.SMALL, Capacity(markets=3, orders=1000, events=1000)])
def test_a_world_has_every_section_with_room_for_its_capacity(capacity):
    counts = world_counts(capacity)
    assert list(counts) == list(layout.WORLD), "the order is part of the region's digest"
    assert counts["sides"][1] == 2 * capacity.markets
    for index, rows in (("order_index", "orders"), ("account_index", "accounts")):
        words = counts[index][1]
        assert words >= 2 * counts[rows][1] and words & (words - 1) == 0, "at most half full"
    for ring in states.RINGS.values():
        slots = counts[ring][1]
        assert slots >= getattr(capacity, ring) and slots & (slots - 1) == 0


def test_an_empty_state_keeps_the_laws():
    state = allocate(made.SMALL)
    verify.verify(state)
    assert (state.status[0]["mode"], state.status[0]["state"]) == (Mode.FOLLOW, Feed.WAITING)
    assert state.history.fill_ring[0]["capacity"] == len(state.history.fills)
    assert state.work.event_ring[0]["capacity"] == len(state.work.events)


def test_a_followed_world_has_one_of_each_table_of_an_exchange():
    counts = world_counts(Capacity())
    assert [counts[table][1] for table in states.EXCHANGE_TABLES] == [1] * len(states.EXCHANGE_TABLES)


def test_a_state_over_a_region_is_the_region():
    world = region.create("world", world_counts(made.SMALL), 1)
    state = allocate(made.SMALL, world.arrays)
    state.markets[1]["epoch"] = 7
    assert world.arrays["markets"][1]["epoch"] == 7 and state.work.books is world.arrays["books"]
    world.close()


def test_names_are_seeded_and_judged():
    state = allocate(made.SMALL)
    assert [states.row_text(row["text"]) for row in state.names[: len(NAMES)]] == list(NAMES)
    assert state.refusals[Status.REJECTED] == 1 and state.refusals[Status.FILLED] == 0
    assert [bool(judged) for judged in state.refusals[: len(NAMES)]] == [codes.is_refusal(t) for t in NAMES]
    text = b"someNewRejected"
    state.names[len(NAMES)]["text"][: len(text)] = np.frombuffer(text, np.uint8)
    state.status["name_count"] = len(NAMES) + 1
    assert states.learn_names(state, len(NAMES)) == len(NAMES) + 1
    assert state.refusals[len(NAMES)] == 1
    assert states.market_name(made.world(), 1) == "M1"
