"""What an exchange's outcomes say, in words: a table of their fields by kind, and its reader.

A word is `name field how`: what it is called, the field of OUTCOME, and the entry of READ that reads it; what
it makes None is left out. Amounts are decimal text, exactly; times are ms.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.exchange.records import Kind
from engine.exchange.state import State
from shm import units
from shm.codes import NAMES, Command, Condition, Flag, Ledger, Oracle, Refusal, Side, Tif, Trading, Twap
from shm.constants import FUNDING_PLACES, PERP_DECIMALS, USD_PLACES
from shm.layout import NO_ACCOUNT, NO_MARKET

Facts = dict[str, Any]
How = Callable[[State, np.void, Any], Any]  # the core, the outcome (or command), the field's value
NS_PER_MS = 1_000_000
RATE_PLACES = 6  # of a notional

# --- how a field is read ------------------------------------------------------------------------------------


def _decimal(places: int) -> How:
    return lambda core, row, value: units.format_decimal(int(value), places, point=False)


def _size(core: State, row: np.void, value: Any) -> str:
    return units.format_decimal(int(value), int(core.markets["size_decimals"][row["market"]]), point=False)


def _price(core: State, row: np.void, value: Any) -> str:
    places = PERP_DECIMALS - int(core.markets["size_decimals"][row["market"]])
    return units.format_decimal(int(value), places, point=False)


def _code(names: Any) -> How:
    return lambda core, row, value: names(int(value)).name.lower()


READ: dict[str, How] = {
    "number": lambda core, row, value: int(value),
    "some": lambda core, row, value: int(value) or None,
    "yes": lambda core, row, value: bool(value) or None,
    "price": _price,
    "price?": lambda core, row, value: _price(core, row, value) if value else None,
    "size": _size,
    "size_or_all": lambda core, row, value: _size(core, row, value) if value else "all",
    "usd": _decimal(USD_PLACES),
    "rate": _decimal(RATE_PLACES),
    "hourly": _decimal(FUNDING_PLACES),
    "account": lambda core, row, value: None if value == NO_ACCOUNT else address_of(core, int(value)),
    "address": lambda core, row, value: _hex(value),
    "name": lambda core, row, value: _text(value) or None,
    "cloid": lambda core, row, value: _hex(value) if row["flags"] & Flag.HAS_CLOID else None,
    "reduces": lambda core, row, value: bool(value & Flag.REDUCE_ONLY) or None,
    "role": lambda core, row, value: "taker" if value & Flag.CROSSED else "maker",
    "status": lambda core, row, value: NAMES[int(value)],
    "side": _code(Side),
    "tif": _code(Tif),
    "condition": lambda core, row, value: Condition(int(value)).name.lower() if value else None,
    "refusal": _code(Refusal),
    "ledger": _code(Ledger),
    "mode": _code(Trading),
    "oracle": _code(Oracle),
    "twap": _code(Twap),
}

# --- what each kind tells -----------------------------------------------------------------------------------

_ORDER = "order order number, side side side"
_OF_ORDER = (
    "price price price, tif tif tif, reduce_only flags reduces, cloid text cloid, trigger start price?, "
    "fires done condition, group amount some"
)
_HOURLY = "rate trade hourly, premium amount hourly, samples order number"

_TOLD = {
    Kind.OPENED: ("rests", f"{_ORDER}, size quantity size, of original size, {_OF_ORDER}"),
    Kind.FILLED: (
        "filled",
        f"{_ORDER}, size quantity size, price price price, left original size, as flags role, "
        "with other account, pnl amount usd, fee fee usd, before start size, trade trade number, "
        "cloid text cloid",
    ),
    Kind.ENDED: (
        "ended",
        f"{_ORDER}, status status status, left quantity size, of original size_or_all, {_OF_ORDER}",
    ),
    Kind.REFUSED: ("refused", f"{_ORDER}, why code refusal, size quantity size, {_OF_ORDER}"),
    Kind.MONEY: ("money", "why code ledger, amount amount usd, other other account"),
    Kind.MARKET: (
        "market",
        "last price price, open_interest quantity size, mode code mode, oracle done oracle, "
        "maker_rate original rate, taker_rate placed_ms rate, max_leverage trade number, cap amount usd, "
        "band start number, step fee number, impact other number",
    ),
    Kind.ACCOUNT: ("account", "master other account"),
    Kind.AGENT: ("agent", "agent address address, name text name, until placed_ms some, revoked done yes"),
    Kind.FUNDS: (
        "funds",
        "cash price usd, used quantity usd, deposited trade usd, fees fee usd, realised amount usd, "
        "volume original usd, schedule placed_ms some, killed done yes, name text name",
    ),
    Kind.POSITION: (
        "position",
        "size price size, entry quantity usd, leverage amount number, cross fee yes, isolated placed_ms usd, "
        "realised trade usd",
    ),
    Kind.BLOCK: ("block", "height order number"),
    Kind.PRICES: (
        "prices",
        f"mark price price, oracle quantity price?, external original price?, {_HOURLY}",
    ),
    Kind.TIER: (
        "tier",
        "number order number, notional price usd, max_leverage trade number, deduction amount usd",
    ),
    Kind.RATE: ("rate", f"{_HOURLY}, oracle price price, hour placed_ms number"),
    Kind.FUNDING: (
        "funding",
        "amount amount usd, rate trade hourly, size quantity size, oracle price price, hour placed_ms number",
    ),
    Kind.LIQUIDATED: ("liquidated", "value price usd, notional quantity usd, kept amount usd"),
    Kind.WAITING: (
        "waits",
        f"{_ORDER}, size quantity size_or_all, of original size_or_all, for_parent code yes, {_OF_ORDER}",
    ),
    Kind.TRIGGERED: (
        "triggered",
        f"{_ORDER}, size quantity size_or_all, of original size_or_all, {_OF_ORDER}",
    ),
    Kind.TWAP: (
        "twap",
        "id order number, side side side, state done twap, size quantity size, executed original size, "
        "notional amount usd, minutes trade number, randomized code yes, reduce_only flags reduces",
    ),
    Kind.SLICE: ("slice", f"{_ORDER}, of trade number"),
}
WORDS = {
    kind: (what, [tuple(word.split()) for word in words.split(", ")]) for kind, (what, words) in _TOLD.items()
}


def told(core: State, outcome: np.void) -> Facts:
    """One outcome, in words."""
    label, words = WORDS[Kind(outcome["kind"])]
    facts: Facts = _head(outcome, label)
    if outcome["market"] != NO_MARKET:
        facts["market"] = market_name(core, int(outcome["market"]))
    if outcome["account"] != NO_ACCOUNT:
        facts["account"] = address_of(core, int(outcome["account"]))
    for name, field, how in words:
        value = READ[how](core, outcome, outcome[field])
        if value is not None:
            facts[name] = value
    return facts


def not_done(core: State, command: np.void, code: int, account: str) -> Facts:
    """A command that was refused, and of which nothing else is told."""
    facts = _head(command, "not done") | {"command": _command_name(int(command["kind"])), "account": account}
    if 0 <= command["market"] < core.status[0]["market_count"]:
        facts["market"] = market_name(core, int(command["market"]))
    return facts | {"why": Refusal(code).name.lower()}


def line(facts: Facts) -> str:
    """The facts for a person, in one line."""
    sequence, time, what, *rest = facts.values()
    names = [*facts][3:]
    said = " ".join(
        f"{name} {'yes' if value is True else value}" for name, value in zip(names, rest, strict=True)
    )
    return f"{sequence:>10}  {np.datetime64(time, 'ms')}  {what:<10} {said}"


def _head(row: np.void, what: str) -> Facts:
    return {"sequence": int(row["sequence"]), "time": int(row["time_ns"]) // NS_PER_MS, "what": what}


def _command_name(kind: int) -> str:
    try:
        return Command(kind).name.lower()
    except ValueError:
        return str(kind)


def address_of(core: State, account: int) -> str:
    return _hex(core.accounts["address"][account])


def market_name(core: State, market: int) -> str:
    return _text(core.markets["name"][market])


def _hex(value: Any) -> str:
    return "0x" + bytes(value).hex()


def _text(value: Any) -> str:
    return bytes(value).rstrip(b"\0").decode("ascii", "replace")
