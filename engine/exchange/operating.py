"""What the operator says, as the supervisor passes it on, in commands: names and texts become numbers.

    {"kind": "deposit", "address": "0x...", "amount": 100250000}        withdraw likewise
    {"kind": "oracle", "coin": "BTC", "price": "60000", "external": "60010.5"}      external may be left out
    {"kind": "mode", "coin": "BTC", "amount": 1}                        codes.Trading
    {"kind": "limits", "coin": "BTC", "amount": 0, "quantity": 800, "price": 0, "order": 20000}
    {"kind": "tier", "coin": "BTC", "quantity": 150000000000000, "amount": 20}
    {"kind": "kill", "address": "0x...", "amount": 1}                   the address of zeros: everyone

Only the core knows a market's number and the places of its prices; all else was checked at the desk.
"""

from typing import Any

import numpy as np

from engine.exchange.doors import OPERATOR
from engine.exchange.state import State
from shm import layout, units
from shm.codes import Command, Refusal
from shm.constants import PERP_DECIMALS

PRICES = {"price": "price", "external": "trigger_price"}  # texts of ORACLE, and their fields


class Refused(Exception):
    """There is no such command; `code` says why."""

    def __init__(self, code: Refusal):
        super().__init__(code.name)
        self.code = code


def command(kind: Command, **fields: int | bytes) -> np.ndarray:
    """A COMMAND[1] of the operator's. Bytes fill their field from the left."""
    made = np.zeros(1, layout.COMMAND)
    made["kind"], made["count"], made["gateway"] = kind, 1, OPERATOR
    for name, value in fields.items():
        if isinstance(value, bytes):
            made[name][0, : len(value)] = np.frombuffer(value, np.uint8)
        else:
            made[name] = value
    return made


def asked(core: State, message: dict[str, Any]) -> np.ndarray:
    """The command that is meant, a COMMAND[1]. Raises Refused."""
    kind = Command[message["kind"].upper()]
    fields = {name: value for name, value in message.items() if name not in ("kind", "coin", "address")}
    if "address" in message:
        fields["other"] = bytes.fromhex(message["address"][2:])
    if "coin" in message:
        market = _market_named(core, message["coin"])
        fields["market"] = market
        if kind == Command.ORACLE:
            places = PERP_DECIMALS - int(core.markets[market]["size_decimals"])
            fields = {PRICES.get(name, name): _whole(value, places) for name, value in fields.items()}
    return command(kind, **fields)


def _market_named(core: State, coin: str) -> int:
    for market in range(int(core.status[0]["market_count"])):
        if bytes(core.markets[market]["name"]).rstrip(b"\0") == coin.encode():
            return market
    raise Refused(Refusal.UNKNOWN_MARKET)


def _whole(value: int | str, places: int) -> int:
    """A decimal text in whole units, or the number that it is."""
    if isinstance(value, int):
        return value
    try:
        return units.parse_decimal(value.encode(), places)
    except units.NotADecimal:
        raise Refused(Refusal.AMOUNT) from None
