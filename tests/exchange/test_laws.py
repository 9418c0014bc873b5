"""The laws can fail: a state with one wrong word breaks one, and so does a story with one wrong outcome."""

import numpy as np
import pytest

from engine.exchange.records import Kind
from engine.exchange.state import State, allocate
from shm.codes import Flag, OrderState
from tests.exchange.commands import Swarm
from tests.exchange.compare import run
from tests.exchange.invariants import check_all
from tests.exchange.terms import FIELDS, HEAD, encode
from tests.exchange.witness import Witness

SEED, COMMANDS = 2, 1200


@pytest.fixture(scope="module")
def played():
    swarm = Swarm(SEED)
    state = allocate(swarm.capacity)
    return state, run(state, encode([step.command for step in swarm.steps(COMMANDS)])).outcomes


def open_slot(state):
    return np.flatnonzero(state.orders["state"] == OrderState.RESTING)[0]


def named_slot(state):
    return np.flatnonzero((state.orders["state"] != 0) & (state.orders["flags"] & Flag.HAS_CLOID != 0))[0]


def side_in_use(state):
    return np.flatnonzero(state.sides["count"])[0]


def add(table, row, field, change=1):
    """A wrong word: one field of one row, found in the state, is changed."""

    def spoil(state):
        at = row(state) if callable(row) else row
        getattr(state, table)[field][at] += change

    return spoil


def held(state):
    return np.flatnonzero(state.positions["size"] > 0)[0]


def counted(state):
    """An account whose sums are those at the marks as they are."""
    rows = state.accounts
    return np.flatnonzero((rows["first_held"] != 0) & (rows["marks"] == state.heap["marks"][0]))[0]


def level(state):
    return state.sides[side_in_use(state)]["offset"]


def drop_a_free_slot(state):
    state.free_orders[0] = state.free_orders[1]


def repeat_a_nonce(state):
    signer = state.signers[np.argmax(state.signers["nonce_count"])]
    signer["nonces"][1] = signer["nonces"][0]


def forget(index):
    def spoil(state):
        words = getattr(state, index)
        words[np.flatnonzero(words)[0]] = 0

    return spoil


WRONG = {
    "a cent of cash": add("accounts", 1, "cash"),
    "a position": add("positions", held, "size"),
    "an entry": add("positions", held, "entry"),
    "money set aside": add("positions", held, "isolated"),
    "profit": add("positions", held, "realised"),
    "an account's margin": add("accounts", counted, "used"),
    "an account's maintenance margin": add("accounts", counted, "maintenance"),
    "profit not taken": add("accounts", counted, "profit"),
    "a list of positions": add("accounts", counted, "first_held"),
    "a list of holders": add("markets", 0, "first_holder"),
    "holders": add("markets", 0, "holders"),
    "all deposits": add("heap", 0, "deposited"),
    "funding out of nothing": add("accounts", counted, "funding"),
    "a sum of buys": add("positions", held, "buys"),
    "open interest": add("markets", 0, "open_interest"),
    "an order's size": add("orders", open_slot, "quantity"),
    "an order's price": add("orders", open_slot, "price"),
    "an order's link": add("orders", open_slot, "prior"),
    "an account's link": add("orders", open_slot, "account_next"),
    "an oid": add("orders", open_slot, "order", 10**6),
    "a level's size": add("levels", level, "quantity"),
    "a level's count": add("levels", level, "count"),
    "a level's price": add("levels", level, "price"),
    "a side's count": add("sides", side_in_use, "order_count"),
    "an extent": add("sides", side_in_use, "offset", -1),
    "orders of an account": add("accounts", 1, "order_count"),
    "reduce-only orders of an account": add("accounts", 1, "reduce_count"),
    "sub-accounts": add("accounts", 1, "subs"),
    "a free slot": drop_a_free_slot,
    "a nonce": repeat_a_nonce,
    "the index of oids": forget("order_index"),
    "the index of cloids": forget("cloid_index"),
    "the index of accounts": forget("account_index"),
    "the index of signers": forget("signer_index"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_word_breaks_a_law(played, name):
    state = State(*(array.copy() for array in played[0]))
    check_all(state)
    WRONG[name](state)
    with pytest.raises((AssertionError, IndexError)):
        check_all(state)


def at_first(kind, **changes):
    """The story with other fields in the first outcome of a kind that has something in them."""

    def spoil(outcomes):
        names = FIELDS[kind].split()
        places = {HEAD + names.index(name): change for name, change in changes.items()}
        at = next(
            i for i, row in enumerate(outcomes) if row[0] == kind and all(row[place] for place in places)
        )
        row = list(outcomes[at])
        for place, change in places.items():
            row[place] += change
        return [*outcomes[:at], tuple(row), *outcomes[at + 1 :]]

    return spoil


def without_first(kind):
    def spoil(outcomes):
        at = next(i for i, row in enumerate(outcomes) if row[0] == kind)
        return outcomes[:at] + outcomes[at + 1 :]

    return spoil


def told_twice(kind):
    def spoil(outcomes):
        at = next(i for i, row in enumerate(outcomes) if row[0] == kind)
        return [*outcomes[: at + 1], *outcomes[at:]]

    return spoil


STORIES = {
    "a fill of another price": at_first(Kind.FILLED, price=1),
    "a fill of another size": at_first(Kind.FILLED, quantity=1),
    "a fill of another fee": at_first(Kind.FILLED, fee=1),
    "a fill from another position": at_first(Kind.FILLED, start=1),
    "profit out of nothing": at_first(Kind.FILLED, amount=1),
    "an order of another size": at_first(Kind.OPENED, quantity=1),
    "more left at the end": at_first(Kind.ENDED, quantity=1),
    "another cash": at_first(Kind.FUNDS, price=1),
    "another position": at_first(Kind.POSITION, price=1),
    "a block left out": at_first(Kind.BLOCK, order=1),
    "a fill left out": without_first(Kind.FILLED),
    "an order left out": without_first(Kind.OPENED),
    "an end left out": without_first(Kind.ENDED),
    "a deposit left out": without_first(Kind.MONEY),
    "a fill told twice": told_twice(Kind.FILLED),
    "an order told twice": told_twice(Kind.OPENED),
    "an end told twice": told_twice(Kind.ENDED),
    "a deposit told twice": told_twice(Kind.MONEY),
}


@pytest.mark.parametrize("name", STORIES)
def test_a_wrong_story_is_not_believed(played, name):
    Witness().hear(played[1])
    with pytest.raises((AssertionError, KeyError)):
        Witness().hear(STORIES[name](played[1]))
