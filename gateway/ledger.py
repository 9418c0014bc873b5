"""What moved an account's money other than by trading, as the wire tells it: transfers, funding, liquidation.

One chain of entries has them all; the wire tells funding apart from the rest, under names of its own.
"""

from typing import Any

import numpy as np

from gateway.accounts import hexed
from gateway.contracts import places, usd
from gateway.world import Array, World
from shm import account_rows, layout
from shm.codes import Flag, Ledger
from shm.constants import FUNDING_PLACES
from shm.layout import NO_MARKET
from shm.units import format_decimal

ANSWER_MAX = 500  # entries in one answer, as on the wire
KEPT = 10_000  # of an account's entries that are searched
FILLS_SEARCHED = 2_000  # of an account, for what a liquidation took from it


def read(world: World, row: int, most: int = KEPT) -> Array:
    """An account's newest entries (LEDGER[]), newest first, as far as they are kept."""
    arrays, out = world.arrays, np.zeros(most, layout.LEDGER)
    count = account_rows.read_ledger(arrays["funds"], arrays["ledger_ring"], arrays["ledger"], row, out)
    return out[:count]


def of_funding(entries: Array) -> Array:
    found: Array = entries[entries["kind"] == Ledger.FUNDING]
    return found


def of_the_rest(entries: Array) -> Array:
    found: Array = entries[entries["kind"] != Ledger.FUNDING]
    return found


def update(world: World, entry: np.void) -> dict[str, Any]:
    """An entry as userFunding and userNonFundingLedgerUpdates tell it."""
    return {"time": int(entry["time_ms"]), "hash": hexed(entry["hash"]), "delta": _delta(world, entry)}


def funding(world: World, entry: np.void) -> dict[str, Any]:
    """An hour's payment as userFundings and userEvents tell it."""
    return {"time": int(entry["time_ms"]), **_payment(world, entry)}


def liquidation(entry: np.void) -> dict[str, Any]:
    """A liquidation as userEvents tells it."""
    return {
        "lid": int(entry["sequence"]),
        "liquidator": hexed(entry["other"]),
        "liquidated_user": hexed(entry["address"]),
        "liquidated_ntl_pos": usd(int(entry["size"])),
        "liquidated_account_value": usd(int(entry["price"])),
    }


def _payment(world: World, entry: np.void) -> dict[str, Any]:
    market = int(entry["market"])
    world.learn()
    return {
        "coin": world.coins[market],
        "usdc": usd(int(entry["amount"])),
        "szi": format_decimal(int(entry["size"]), places(world, market).quantity),
        "fundingRate": format_decimal(int(entry["rate"]), FUNDING_PLACES),
        "nSamples": int(entry["samples"]),
    }


def _delta(world: World, entry: np.void) -> dict[str, Any]:
    kind, amount, nothing = Ledger(int(entry["kind"])), int(entry["amount"]), usd(0)
    money, mine, other = usd(abs(amount)), hexed(entry["address"]), hexed(entry["other"])
    giver, taker = (mine, other) if amount < 0 else (other, mine)
    if kind == Ledger.DEPOSIT:
        return {"type": "deposit", "usdc": money}
    if kind == Ledger.WITHDRAW:
        return {"type": "withdraw", "usdc": money, "nonce": int(entry["nonce"]), "fee": nothing}
    if kind == Ledger.SUB_TRANSFER:
        return {"type": "subAccountTransfer", "usdc": money, "user": giver, "destination": taker}
    if kind == Ledger.FUNDING:
        return {"type": "funding", **_payment(world, entry)}
    if kind == Ledger.TAKEN:
        return {
            "type": "liquidation",
            "liquidatedNtlPos": usd(int(entry["size"])),
            "accountValue": usd(int(entry["price"])),
            "leverageType": "Cross" if entry["market"] == NO_MARKET else "Isolated",
            "liquidatedPositions": _taken(world, entry),
        }
    return {"type": "internalTransfer", "usdc": money, "user": giver, "destination": taker, "fee": nothing}


def _taken(world: World, entry: np.void) -> list[dict[str, Any]]:
    """The positions that a liquidation began with, of its fills, as far as these are kept."""
    fills, found = world.fills(int(entry["account"]), FILLS_SEARCHED), {}
    is_its = (fills["height"] == entry["height"]) & (fills["flags"] & int(Flag.LIQUIDATION) != 0)
    is_its &= (fills["liquidated"] == entry["address"]).all(axis=1)
    if entry["market"] != NO_MARKET:
        is_its &= fills["market"] == entry["market"]
    for fill in fills[is_its]:  # the newest first: the first of each market is what stays
        found[int(fill["market"])] = int(fill["start_position"])
    world.learn()
    return [
        {"coin": world.coins[market], "szi": format_decimal(size, places(world, market).quantity)}
        for market, size in sorted(found.items())
    ]
