"""The general reading of a node's line: any order of keys, unknown ones ignored, optional ones left out.

Slower by far than the kernels and used for what they decline; it says what a line means, and the kernels must
agree to the byte. It refuses what would be read wrongly otherwise: NaN and exponents, more decimals than a
unit has, numbers that leave an int64, negative sizes, addresses that are not hex. It raises Corrupt, whatever
it is given.

What is not known is not refused where it does no harm: new statuses, order types and directions become names,
a trigger condition of an unknown wording counts as none.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
import numpy as np

from engine.follow import events, intern
from engine.follow.records import Corrupt, Kind, Why
from engine.follow.scan import EPOCH_YEAR, SECOND_NS, YEAR_END
from shm import codes, units
from shm.constants import ADDRESS_BYTES, CLOID_BYTES, HASH_BYTES, MARKET_NAME_BYTES, NAME_BYTES, PLACES
from shm.layout import EVENT, FILL, NO_MARKET

_INT64_MAX = 2**63 - 1
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?", re.ASCII)
_COIN = re.compile(rb'"coin":"([ !#-\[\]-~]{1,32})"')
_SIDES = {"A": codes.Side.SELL, "B": codes.Side.BUY}
_DIFF_SIDES = {**_SIDES, "Ask": codes.Side.SELL, "Bid": codes.Side.BUY, None: events.SIDE_UNKNOWN}
_CONDITIONS = (
    ("Price above ", codes.Condition.ABOVE),
    ("Price below ", codes.Condition.BELOW),
)


class Order(msgspec.Struct, frozen=True, gc=False):
    coin: str
    side: str
    limitPx: str
    sz: str
    oid: int
    timestamp: int
    orderType: str
    triggerCondition: str = "N/A"
    isTrigger: bool = False
    triggerPx: str = "0.0"
    isPositionTpsl: bool = False
    reduceOnly: bool = False
    origSz: str | None = None
    tif: str | None = None
    cloid: str | None = None


class Status(msgspec.Struct, frozen=True, gc=False):
    time: str
    user: str
    status: str
    order: Order


class New(msgspec.Struct, frozen=True, gc=False):
    sz: str


class Update(msgspec.Struct, frozen=True, gc=False):
    origSz: str
    newSz: str


class Change(msgspec.Struct, frozen=True, gc=False):
    new: New | None = None
    update: Update | None = None


class Diff(msgspec.Struct, frozen=True, gc=False):
    user: str
    oid: int
    coin: str
    px: str
    raw_book_diff: str | Change
    side: str | None = None


class Liquidation(msgspec.Struct, frozen=True, gc=False):
    markPx: str
    method: str
    liquidatedUser: str | None = None


class Fill(msgspec.Struct, frozen=True, gc=False):
    coin: str
    px: str
    sz: str
    side: str
    time: int
    startPosition: str
    dir: str
    closedPnl: str
    hash: str
    oid: int
    crossed: bool
    fee: str
    tid: int
    cloid: str | None = None
    feeToken: str | None = None
    twapId: int | None = None
    builderFee: str | None = None
    liquidation: Liquidation | None = None


class Statuses(msgspec.Struct, frozen=True, gc=False):
    block_time: str
    block_number: int
    events: list[Status]


class Diffs(msgspec.Struct, frozen=True, gc=False):
    block_time: str
    block_number: int
    events: list[Diff]


class Fills(msgspec.Struct, frozen=True, gc=False):
    block_time: str
    block_number: int
    events: list[tuple[str, Fill]]


DECODERS: dict[Kind, msgspec.json.Decoder] = {
    Kind.STATUSES: msgspec.json.Decoder(Statuses),
    Kind.DIFFS: msgspec.json.Decoder(Diffs),
    Kind.FILLS: msgspec.json.Decoder(Fills),
}


def decode(decoder: msgspec.json.Decoder, raw: bytes):
    """Decode JSON text. Raises Corrupt for anything that the decoder, or Python below it, cannot take."""
    try:
        raw.decode("utf-8")  # the decoder does not look at the texts that it skips
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError, ValueError) as error:
        raise Corrupt(f"not what a node writes: {error}"[:200]) from None


def line(kind: Kind, raw: bytes, tables: intern.Tables) -> tuple[int, int, np.ndarray]:
    """Read one line: (height, the block's time in ns, its records). Raises Corrupt, before it interns."""
    found = decode(DECODERS[kind], raw)
    height, time_ns = whole(found.block_number), _moment(found.block_time)
    build = {Kind.STATUSES: _status, Kind.DIFFS: _diff, Kind.FILLS: _fill}[kind]
    facts = [build(event, height, time_ns) for event in found.events]
    records = np.zeros(len(facts), FILL if kind == Kind.FILLS else EVENT)
    for record, (fields, texts) in zip(records, facts, strict=True):
        write(record, fields)
        intern_texts(record, texts, tables, sized=kind != Kind.FILLS)
    return height, time_ns, records


def only_market(raw: bytes, tables: intern.Tables) -> str | None:
    """Name the only market that a damaged line can be about, if it is a known one and the line still looks
    whole.
    """
    coins = _COIN.findall(raw)
    if len(coins) != 1 or raw.count(b'"coin"') != 1 or raw.count(b'"block_number":') != 1:
        return None
    if not raw.startswith(b'{"local_time":"') or not raw.endswith(b"]}"):
        return None
    name = coins[0].decode("ascii")
    return name if intern.is_known(tables, name) else None


def order_facts(order: Order) -> tuple[dict, dict]:
    """Check an order: (its numbers by field, the texts to be interned by field). Raises Corrupt."""
    size = _size(order.sz)
    flags = codes.Flag.REDUCE_ONLY * order.reduceOnly | codes.Flag.IS_TRIGGER * order.isTrigger
    flags |= codes.Flag.POSITION_TPSL * order.isPositionTpsl
    fields = {
        "order": whole(order.oid),
        "price": _size(order.limitPx),
        "quantity": size,
        "original": size if order.origSz is None else _size(order.origSz),
        "trigger_price": _size(order.triggerPx),
        "timestamp_ms": whole(order.timestamp),
        "cloid": _cloid(order.cloid),
        "side": _one_of(_SIDES, order.side),
        "condition": _condition(order.triggerCondition),
        "flags": flags | codes.Flag.HAS_CLOID * (order.cloid is not None),
    }
    texts = {
        "market": _market(order.coin),
        "order_type": _name(order.orderType),
        "tif": None if order.tif is None else _name(order.tif),
    }
    return fields, texts


def _status(event: Status, height: int, _time_ns: int) -> tuple[dict, dict]:
    fields, texts = order_facts(event.order)
    fields |= {
        "kind": codes.EventKind.STATUS,
        "height": height,
        "time_ns": _moment(event.time),
        "address": _hex(event.user, ADDRESS_BYTES),
    }
    return fields, texts | {"status": _name(event.status)}


def _diff(event: Diff, height: int, time_ns: int) -> tuple[dict, dict]:
    kind, original, quantity = _change(event.raw_book_diff)
    fields = {
        "kind": kind,
        "height": height,
        "time_ns": time_ns,
        "order": whole(event.oid),
        "price": _size(event.px),
        "quantity": quantity,
        "original": original,
        "address": _hex(event.user, ADDRESS_BYTES),
        "side": _one_of(_DIFF_SIDES, event.side),
    }
    return fields, {"market": _market(event.coin)}


def _change(change: str | Change) -> tuple[codes.EventKind, int, int]:
    """Read what a diff does: (kind, original, quantity)."""
    if change == "remove":
        return codes.EventKind.REMOVE, 0, 0
    if isinstance(change, str) or (change.new is None) == (change.update is None):
        raise Corrupt("a diff is one of new, update and remove")
    if change.new is not None:
        return codes.EventKind.NEW, 0, _size(change.new.sz)
    return codes.EventKind.UPDATE, _size(change.update.origSz), _size(change.update.newSz)


def _fill(event: tuple[str, Fill], height: int, _time_ns: int) -> tuple[dict, dict]:
    user, fill = event
    fields = {
        "height": height,
        "time_ms": whole(fill.time),
        "order": whole(fill.oid),
        "trade": whole(fill.tid),
        "price": _size(fill.px),
        "quantity": _size(fill.sz, True),  # of a dust conversion: a balance, finer than any order's size
        "start_position": _figure(fill.startPosition),
        "closed_pnl": _figure(fill.closedPnl),
        "fee": _figure(fill.fee),
        "twap": events.NO_TWAP if fill.twapId is None else whole(fill.twapId),
        "hash": _hex(fill.hash, HASH_BYTES),
        "cloid": _cloid(fill.cloid),
        "address": _hex(user, ADDRESS_BYTES),
        "side": _one_of(_SIDES, fill.side),
        "flags": codes.Flag.CROSSED * fill.crossed | codes.Flag.HAS_CLOID * (fill.cloid is not None),
    }
    texts = {
        "market": _market(fill.coin),
        "direction": _name(fill.dir),
        "fee_token": None if fill.feeToken is None else _name(fill.feeToken),
    }
    if fill.builderFee is not None:
        fields["builder_fee"] = _figure(fill.builderFee)
        fields["flags"] |= codes.Flag.HAS_BUILDER_FEE
    if fill.liquidation is not None:
        _add_liquidation(fields, texts, fill.liquidation)
    return fields, texts


def _add_liquidation(fields: dict, texts: dict, liquidation: Liquidation) -> None:
    fields["flags"] |= codes.Flag.LIQUIDATION
    fields["liquidation_price"] = _figure(liquidation.markPx)
    if liquidation.liquidatedUser is not None:
        fields["liquidated"] = _hex(liquidation.liquidatedUser, ADDRESS_BYTES)
    texts["liquidation_method"] = _name(liquidation.method)


def write(record: np.void, fields: dict) -> None:
    for name, value in fields.items():
        record[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value


def intern_texts(record: np.void, texts: dict, tables: intern.Tables, sized: bool) -> None:
    """Turn the texts of a record, and its address if it has one, into rows."""
    record["market"] = intern.market(tables, texts.pop("market"))
    if record["market"] == NO_MARKET:
        raise Corrupt("the table of markets is full", why=Why.CAPACITY)
    for name, text in texts.items():
        record[name] = intern.name(tables, text)
    if "address" in record.dtype.names:
        record["account"] = intern.account(tables, record["address"].tobytes())
    if sized:
        intern.see_size(tables.markets, int(record["market"]), int(record["quantity"]))


def whole(value: int) -> int:
    """Give the value, if an int64 holds it and it is not negative. Raises Corrupt."""
    if not 0 <= value <= _INT64_MAX:
        raise Corrupt(f"expected a whole number from 0 to 2**63 - 1, not {value}"[:200])
    return value


def _decimal(text: str, rounds: bool) -> int:
    raw = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    value = units.parse(raw, 0, len(raw), PLACES, rounds)
    if value == units.NOT_A_DECIMAL:
        raise Corrupt(f"expected digits with at most {PLACES} decimals, not {text[:40]!r}")
    return int(value)


def _size(text: str, rounds: bool = False) -> int:
    """Read a price or a size: exact, and not negative."""
    if text.startswith("-"):
        raise Corrupt(f"expected no negative number, but {text[:40]!r}")
    return _decimal(text, rounds)


def _figure(text: str) -> int:
    """Read a figure that the node computed: of any sign, rounded."""
    return _decimal(text, True)


def _hex(text: str, size: int) -> bytes:
    if len(text) != 2 + 2 * size or not re.fullmatch("0x[0-9a-fA-F]*", text, re.ASCII):
        raise Corrupt(f"expected 0x and {2 * size} hex digits, not {text[:80]!r}")
    return bytes.fromhex(text[2:])


def _cloid(text: str | None) -> bytes:
    return bytes(CLOID_BYTES) if text is None else _hex(text, CLOID_BYTES)


def address(text: str) -> bytes:
    """Read an account's address: 20 bytes. Raises Corrupt."""
    return _hex(text, ADDRESS_BYTES)


def check_market_names(names: Iterable[str]) -> None:
    """Raise Corrupt for a name that no market can have."""
    for name in names:
        _market(name)


def _one_of(choices: dict, text: str | None) -> int:
    if text not in choices:
        raise Corrupt(f"expected a side, not {str(text)[:40]!r}")
    return choices[text]


def _condition(text: str) -> int:
    if text == "Triggered":
        return codes.Condition.TRIGGERED
    return next((found for start, found in _CONDITIONS if text.startswith(start)), codes.Condition.NONE)


def _text(text: str, longest: int) -> str:
    if not 1 <= len(text) <= longest or not intern.is_plain(text):
        raise Corrupt(f"expected 1 to {longest} printable characters, not {text[:80]!r}")
    return text


def _market(text: str) -> str:
    return _text(text, MARKET_NAME_BYTES)


def _name(text: str) -> str:
    return _text(text, NAME_BYTES)


def _moment(text: str) -> int:
    """Read a time as ns since 1970, by the calendar of the standard library."""
    found = _TIME.fullmatch(text)
    if not found:
        raise Corrupt(f"expected a time, not {text[:40]!r}")
    try:
        second = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    except ValueError as error:
        raise Corrupt(f"expected a time, but {error}") from None
    if not EPOCH_YEAR <= second.year < YEAR_END:
        raise Corrupt(f"expected a year from {EPOCH_YEAR} to {YEAR_END - 1}, not {second.year}")
    return int(second.timestamp()) * SECOND_NS + int((found[2] or "0").ljust(9, "0"))
