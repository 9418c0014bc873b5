"""Orders in slices over time, as the wire tells them: how they stand, how each began and ended, their fills.

A beginning and an end are entries of one chain; what runs is read as it stands, under its account's bracket.
"""

from typing import Any

import numpy as np

from gateway.accounts import hexed
from gateway.contracts import places, usd
from gateway.errors import NotNow
from gateway.world import LOOKUP_TRIES, Array, World
from shm import account_rows, layout
from shm.codes import Flag, Side, Twap
from shm.constants import TWAPS_MAX
from shm.units import format_decimal

ANSWER_MAX = 2000  # entries, or fills, in one answer, as on the wire
KEPT = 10_000  # of an account's entries, or fills, that are searched


def running(world: World, row: int) -> Array:
    """An account's TWAPs that run (TWAP[]), oldest first. Raises NotNow."""
    arrays, out = world.arrays, np.empty(TWAPS_MAX, layout.TWAP)
    tables = arrays["accounts"], arrays["funds"], arrays["running_twaps"]
    count = account_rows.read_running_twaps(*tables, row, out, LOOKUP_TRIES)
    if count < 0:
        raise NotNow
    return out[:count][::-1]


def history(world: World, row: int, most: int = KEPT) -> Array:
    """How an account's TWAPs began and ended (TWAP[]), newest first, as far as that is kept."""
    arrays, out = world.arrays, np.empty(most, layout.TWAP)
    count = account_rows.read_twaps(arrays["funds"], arrays["twap_ring"], arrays["twaps"], row, out)
    return out[:count]


def of_slices(fills: Array) -> Array:
    """Those of `fills` that a TWAP has placed the order of."""
    found: Array = fills[fills["twap"] >= 0]
    return found


def states(world: World, row: int | None) -> list[list[Any]]:
    """What runs for an account, each with its id. Raises NotNow."""
    return [] if row is None else [[int(twap["order"]), state(world, twap)] for twap in running(world, row)]


def state(world: World, twap: np.void) -> dict[str, Any]:
    market = int(twap["market"])
    world.learn()
    decimals = places(world, market).quantity
    return {
        "coin": world.coins[market],
        "user": hexed(twap["address"]),
        "side": "B" if twap["side"] == Side.BUY else "A",
        "sz": format_decimal(int(twap["quantity"]), decimals),
        "executedSz": format_decimal(int(twap["executed"]), decimals),
        "executedNtl": usd(int(twap["notional"])),
        "minutes": int(twap["minutes"]),
        "reduceOnly": bool(twap["flags"] & Flag.REDUCE_ONLY),
        "randomize": bool(twap["is_randomized"]),
        "timestamp": int(twap["began_ms"]),
        "stopPx": None,
        "trigger": None,
    }


def update(world: World, entry: np.void) -> dict[str, Any]:
    """A beginning or an end, as twapHistory and userTwapHistory tell it. Its time is in seconds."""
    return {
        "time": int(entry["time_ms"]) // 1000,
        "state": state(world, entry),
        "status": {"status": Twap(int(entry["state"])).name.lower()},
        "twapId": int(entry["order"]),
    }
