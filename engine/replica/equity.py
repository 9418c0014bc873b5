"""What accounts are worth at the first block of each hour, by the time of blocks: portfolios are told of it.

It follows from the journal alone: when, since a block's time is in it, and what, since a row is written where
it differs from the account's last one. So a hundred thousand accounts cost nothing but at an hour's turn, and
then those alone that anything has moved: their trades, their money, or the marks of what they hold.
"""

import numpy as np

from engine.exchange.world import World
from shm.archived import EQUITY, SAMPLE_MS

NS_PER_MS = 1_000_000


def time_of(world: World) -> int:
    """Of the last whole block, in ms."""
    return int(world.state.status[0]["time_ns"]) // NS_PER_MS


def is_due(before_ms: int, now_ms: int) -> bool:
    """Whether a block at `now_ms`, after one at `before_ms`, is the first of its hour."""
    return now_ms // SAMPLE_MS > before_ms // SAMPLE_MS


def of_accounts(world: World) -> np.ndarray:
    """What each account is worth now (EQUITY[], by its row), as the wire counts it: all its cash, what is set
    aside for positions, and what these have gained at the mark.
    """
    status = world.state.status[0]
    funds, positions = world.funds[: status["account_count"]], world.positions[: status["position_count"]]
    worth = np.zeros(len(funds), EQUITY)
    worth["time_ms"] = time_of(world)
    worth["value"] = funds["cash"]
    marks = world.contracts["mark"][positions["market"]]
    gained = positions["size"] * marks - positions["entry"]
    np.add.at(worth["value"], positions["account"], positions["isolated"] + gained)
    worth["deposited"], worth["volume"] = funds["deposited"], funds["volume"]
    return worth


def differing(worth: np.ndarray, told: np.ndarray) -> np.ndarray:
    """The rows (i8[]) of the accounts that are not as they were told; those not told of had nothing."""
    before = np.zeros(len(worth), EQUITY)
    before[: len(told)] = told
    same = np.ones(len(worth), np.bool_)
    for field in ("value", "deposited", "volume"):
        same &= worth[field] == before[field]
    return np.flatnonzero(~same)
