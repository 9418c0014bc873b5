"""What must hold between any two commands, whatever they were: of the engine's arrays, scanned from scratch.

`check_sums` is a few sums over whole tables, cheap enough after every command of a small world. `check_all`
walks every list and looks up every key. Both raise AssertionError, with what does not hold as its text.
"""

import numpy as np
from numba import njit

from engine.exchange import cloids
from engine.exchange.records import NONCES_KEPT
from engine.exchange.state import State
from shm import index
from shm.codes import Flag, OrderState, Side, Tif
from shm.constants import SIDE_LEVELS_MIN
from shm.layout import NO_ACCOUNT, NO_SLOT
from tests.exchange.interpreted import state_for_kernels

LEVERAGE_DEFAULT = 20


@njit
def _find_cloid(state, account, cloid):
    return cloids.find(state, account, cloid)


def check_sums(state: State) -> None:
    """Money is conserved, positions cancel out, books are not crossed, and no order slot is lost."""
    markets, accounts, positions = state.markets, state.accounts, state.positions
    heap, status = state.heap[0], state.status[0]
    held = positions.reshape(len(accounts), len(markets))
    assert (held["size"].sum(axis=0) == 0).all(), "positions of a market sum to zero"
    longs = np.maximum(held["size"], 0).sum(axis=0)
    assert (longs == markets["open_interest"]).all(), "open interest is the sum of longs"
    wealth = accounts["cash"].sum() + positions["isolated"].sum() - positions["entry"].sum()
    assert wealth == accounts["deposited"].sum(), "money is what came in less what went out"
    realised = held["realised"].sum(axis=1)
    assert (realised == accounts["realised"]).all(), "an account realises what its positions do"
    assert positions["realised"].sum() == positions["entry"].sum(), "what one side won the other lost or owes"
    taken = accounts["fees"].sum()
    assert taken >= 0, "rebates never exceed fees"
    assert (held["used"].sum(axis=1) == accounts["used"]).all(), "an account uses what its positions use"
    assert (positions["entry"][positions["size"] == 0] == 0).all(), "no position, no entry"
    assert (np.sign(positions["entry"]) == np.sign(positions["size"])).all(), (
        "an entry is on its position's side"
    )
    assert (positions["isolated"][positions["size"] == 0] == 0).all(), "no position, no money set aside"
    assert (positions["isolated"] >= 0).all(), "money set aside is not a debt"
    assert accounts["order_count"].sum() == status["order_count"], "accounts count all orders"
    assert markets["order_count"].sum() == status["order_count"], "markets count all orders"
    assert heap["free_orders"] + status["order_count"] == len(state.orders), "a slot is free or used"
    _check_touch(state)


def _check_touch(state):
    for market in range(state.status[0]["market_count"]):
        bid, ask = (state.sides[2 * market + side] for side in (Side.BUY, Side.SELL))
        if bid["count"] > 0 and ask["count"] > 0:
            best = [state.levels[side["offset"] + side["count"] - 1]["price"] for side in (bid, ask)]
            assert best[0] < best[1], f"market {market} is crossed: {best}"


def check_all(state: State) -> None:
    """Everything, each table against the others."""
    check_sums(state)
    live = np.flatnonzero(state.orders["state"] != OrderState.FREE)
    _check_orders(state, live)
    _check_free_slots(state, live)
    _check_books(state, live)
    _check_extents(state)
    _check_lists_of_accounts(state, live)
    _check_indexes(state, live)
    _check_margin(state, live)
    _check_signers(state)
    due = state.accounts["schedule_ms"][state.accounts["schedule_ms"] > 0]
    assert len(due) == 0 or 0 < state.heap[0]["schedule_ms"] <= due.min(), "the next schedule is known"


def _check_orders(state, live):
    orders = state.orders[live]
    assert (orders["state"] == OrderState.RESTING).all()
    assert len(np.unique(orders["order"])) == len(orders), "an oid is open once"
    assert (orders["order"] <= state.heap[0]["orders"]).all() and (orders["order"] > 0).all()
    assert ((orders["quantity"] > 0) & (orders["quantity"] <= orders["original"])).all(), "what remains"
    assert np.isin(orders["tif"], (Tif.GTC, Tif.ALO)).all(), "only Gtc and Alo rest"
    sizes = state.positions["size"][orders["account"] * len(state.markets) + orders["market"]]
    reduces = orders["flags"] & Flag.REDUCE_ONLY != 0
    against = np.where(orders["side"] == Side.BUY, -sizes, sizes)
    assert (against[reduces] > 0).all(), "a reduce-only order has something to reduce"


def _check_free_slots(state, live):
    free = state.free_orders[: state.heap[0]["free_orders"]]
    assert sorted([*free, *live]) == list(range(len(state.orders))), "a slot is free or used, once"


def _check_books(state, live):
    seen = 0
    for row, side in enumerate(state.sides):
        levels = state.levels[side["offset"] : side["offset"] + side["count"]]
        rising = np.diff(levels["price"]) * (1 if row % 2 == Side.BUY else -1)
        assert (rising > 0).all(), "levels stand in order, the touch at the end"
        count = sum(_check_queue(state, level, row) for level in levels)
        assert count == side["order_count"], "a side counts its orders"
        seen += count
    assert seen == len(live), "every open order stands in one queue"


def _check_queue(state, level, row):
    """Walk a level's queue; return how many orders wait in it."""
    prior, slot, total, count, oid = NO_SLOT, level["head"], 0, 0, 0
    while slot != NO_SLOT:
        order = state.orders[slot]
        assert order["prior"] == prior, "a queue is linked both ways"
        assert order["price"] == level["price"] and 2 * order["market"] + order["side"] == row
        assert order["order"] > oid, "first come, first in the queue"
        oid, total, count = order["order"], total + order["quantity"], count + 1
        prior, slot = slot, order["next"]
    assert (level["tail"], level["quantity"], level["count"]) == (prior, total, count), (
        "a level sums its orders"
    )
    assert count > 0, "no level is empty"
    return count


def _check_extents(state):
    """Every extent of levels belongs to one side or is free; together they are all that was handed out."""
    extents = [(side["offset"], side["capacity"]) for side in state.sides if side["capacity"] > 0]
    for size_class, first in enumerate(state.free_extents):
        while first > 0:
            extents.append((first - 1, SIDE_LEVELS_MIN << size_class))
            first = state.levels[first - 1]["price"]
    end = 0
    for offset, size in sorted(extents):
        assert offset == end, "extents neither overlap nor leave holes"
        end += size
    assert end == state.heap[0]["levels_top"]


def _check_lists_of_accounts(state, live):
    seen = 0
    for account, row in enumerate(state.accounts[: state.status[0]["account_count"]]):
        prior, slot, count, reducing, oid = NO_SLOT, row["first_order"], 0, 0, 0
        while slot != NO_SLOT:
            order = state.orders[slot]
            assert order["account"] == account and order["account_prior"] == prior
            assert order["order"] > oid, "an account's orders stand oldest first"
            oid, count = order["order"], count + 1
            reducing += order["flags"] & Flag.REDUCE_ONLY != 0
            prior, slot = slot, order["account_next"]
        facts = (row["last_order"], row["order_count"], row["reduce_count"])
        assert facts == (prior, count, reducing), f"account {account} knows its orders"
        seen += count
    assert seen == len(live), "every open order is in its account's list"


def _check_indexes(state, live):
    kernels = state_for_kernels(state)
    for slot in live:
        order = state.orders[slot]
        assert index.find_order(state.order_index, kernels.orders, order["order"]) == slot
        if order["flags"] & Flag.HAS_CLOID:
            assert _find_cloid(kernels, int(order["account"]), state.facts[slot]["cloid"]) == slot
    named = np.count_nonzero(state.orders[live]["flags"] & Flag.HAS_CLOID)
    assert np.count_nonzero(state.order_index) == len(live), "the index of oids holds open orders alone"
    assert np.count_nonzero(state.cloid_index) == named, "the index of cloids holds open orders alone"
    status = state.status[0]
    tables = (
        (state.account_index, kernels.accounts, state.accounts, status["account_count"]),
        (state.signer_index, kernels.signers, state.signers, status["signer_count"]),
    )
    for words, kernel_rows, rows, count in tables:
        assert np.count_nonzero(words) == count
        for row in range(count):
            assert index.find_account(words, kernel_rows, rows[row]["address"], 0) == row, (
                "an address has one row"
            )


def _check_margin(state, live):
    orders = state.orders[live]
    orders = orders[orders["flags"] & Flag.REDUCE_ONLY == 0]
    rows = orders["account"] * len(state.markets) + orders["market"]
    sums = {side: np.zeros(len(state.positions), np.int64) for side in Side}
    for side in Side:
        mine = orders["side"] == side
        np.add.at(sums[side], rows[mine], (orders["price"] * orders["quantity"])[mine])
    positions = state.positions
    assert (positions["buys"] == sums[Side.BUY]).all() and (positions["sells"] == sums[Side.SELL]).all()
    most = np.minimum(LEVERAGE_DEFAULT, np.maximum(state.markets["max_leverage"], 1))
    default = np.tile(most, len(state.accounts))
    leverage = np.where(positions["leverage"] > 0, positions["leverage"], default)
    entry = positions["entry"]
    largest = np.maximum(np.maximum(entry + sums[Side.BUY], sums[Side.SELL] - entry), 0)
    assert (positions["used"] == -(-largest // leverage)).all(), "margin in use, from scratch"


def _check_signers(state):
    count = state.status[0]["signer_count"]
    signers = state.signers[:count]
    for signer in signers:
        kept = signer["nonces"][: signer["nonce_count"]]
        assert signer["nonce_count"] <= NONCES_KEPT and (np.diff(kept) > 0).all(), "nonces rise"
    listed = []
    for account, row in enumerate(state.accounts[: state.status[0]["account_count"]]):
        own = signers[row["signer"]]
        assert own["account"] == account and (own["address"] == row["address"]).all() and not own["is_agent"]
        subs = np.count_nonzero(state.accounts["master"][: state.status[0]["account_count"]] == account)
        assert row["subs"] == subs and (row["master"] == NO_ACCOUNT or row["subs"] == 0)
        agent = row["first_agent"]
        while agent != NO_SLOT:
            assert signers[agent]["account"] == account and signers[agent]["is_agent"]
            listed.append(agent)
            agent = signers[agent]["next"]
    live = np.flatnonzero(signers["is_agent"] & signers["is_live"])
    assert sorted(listed) == live.tolist(), "live agents are listed, once"
