"""A node's L4 snapshot becomes rows of orders: every order of every market, in the file's order, which is
priority.

`[height,[[coin,[[[user,order],…],[…]]],…]]`: the bids best first, then the asks, and behind each the orders
that wait for their trigger. Some nodes leave the height out. Statuses and snapshots share the kernel that
reads an order.

One call reads it all and touches nothing but its arguments, so that a thread can do it beside the engine,
with tables of its own.
"""

import msgspec
import numpy as np

from engine.follow import decode, events, intern
from engine.follow.records import CURSOR, Corrupt, Why
from engine.follow.scan import FAR, clear, hexadecimal, kernel, peek, skip, whole
from shm import codes
from shm.constants import ADDRESS_BYTES, MARKET_NAME_BYTES
from shm.layout import EVENT, NO_MARKET, NO_SLOT, ORDER, WORD

ORDER_BYTES_MIN = 256  # of an order's text, about: sizes the room for rows at first
_COMMA, _CLOSE = ord(","), ord("]")
_RESTING, _UNTRIGGERED = int(codes.OrderState.RESTING), int(codes.OrderState.UNTRIGGERED)
_IS_TRIGGER = int(codes.Flag.IS_TRIGGER)
_SIDES = 2
NO_HEIGHT = -1

Entry = tuple[str, tuple[list[tuple[str, decode.Order]], list[tuple[str, decode.Order]]]]
_WITH_HEIGHT = msgspec.json.Decoder(tuple[int, list[Entry]])
_WITHOUT = msgspec.json.Decoder(list[Entry])


@kernel
def keep(order, record):
    """Copy what the kernel of an order read into a row, not linked yet."""
    order.order, order.price, order.quantity = record.order, record.price, record.quantity
    order.original, order.trigger_price = record.original, record.trigger_price
    order.timestamp_ms = record.timestamp_ms
    for i in range(len(order.cloid)):
        order.cloid[i] = record.cloid[i]
    order.market, order.account = record.market, record.account
    order.prior = order.next = order.account_prior = order.account_next = NO_SLOT
    order.state = _UNTRIGGERED if record.flags & _IS_TRIGGER else _RESTING
    order.side, order.condition, order.flags = record.side, record.condition, record.flags
    order.tif, order.order_type = record.tif, record.order_type


@kernel
def one_side(text, at, market, side, tables, scratch, orders, place):
    """Read `[[user,order],…]` of one market and side; give the position behind it, or FAR."""
    at = skip(text, at, "[")
    if peek(text, at) == _CLOSE:
        return at + 1
    record = scratch[0]
    while place.records < len(orders):
        place.at = place.at if at == FAR else at
        clear(record)
        at = hexadecimal(text, skip(text, at, '["0x'), record.address, ADDRESS_BYTES)
        at = events.order_object(text, skip(text, at, '",'), tables, record)
        if at == events.CROWDED or record.market != market or record.side != side:
            return FAR
        at = skip(text, at, "]")
        if at == FAR:
            return FAR
        record.account = intern.account_of(tables, record.address)
        intern.see_size(tables.markets, market, record.quantity)
        keep(orders[place.records], record)
        place.records += 1
        if peek(text, at) != _COMMA:
            return skip(text, at, "]")
        at += 1
    return FAR


@kernel
def one_market(text, at, tables, scratch, orders, coins, place):
    """Read `[coin,[bids,asks]]`; give the position behind it, or FAR."""
    coin = skip(text, at, '["')
    end = events.text_end(text, coin, MARKET_NAME_BYTES)
    at = skip(text, end, '",[')
    if at == FAR or place.segments == len(coins):
        return FAR
    market = intern.market_of(tables, text, coin, end - coin)
    if market == NO_MARKET:
        return FAR
    coins[place.segments] = market
    place.segments += 1
    for side in range(_SIDES):
        at = one_side(text, at, market, side, tables, scratch, orders, place)
        if side == 0:
            at = skip(text, at, ",")
    return skip(text, at, "]]")


@kernel
def markets(text, tables, scratch, orders, coins, cursor):
    """Read a whole snapshot: (its height or NO_HEIGHT, whether all of it was recognised).

    cursor  CURSOR[1]: where the last order began that was tried, how many orders and how many markets there
            are
    """
    place = cursor[0]
    height, at = whole(text, skip(text, 0, "["))
    headed = at != FAR
    at = skip(text, at, ",[") if headed else skip(text, 0, "[")
    if peek(text, at) == _CLOSE:
        at += 1
    else:
        while True:
            at = one_market(text, at, tables, scratch, orders, coins, place)
            if peek(text, at) != _COMMA:
                at = skip(text, at, "]")
                break
            at += 1
    at = skip(text, at, "]") if headed else at
    at += peek(text, at) == ord("\n")
    return height if headed else NO_HEIGHT, at == len(text)


def parse_snapshot(
    buffer: np.ndarray | bytes, tables: intern.Tables, height: int | None = None
) -> tuple[int, np.ndarray, list[int]]:
    """Read a snapshot: (height, layout.ORDER[] in the file's order, the rows of its markets, empty ones too).

    height  of a snapshot that does not name its own

    Raises Corrupt, with the offset of the order at which the kernel stopped, if the general decode refuses it
    too.
    """
    text = np.frombuffer(buffer, np.uint8) if len(buffer) else np.zeros(0, np.uint8)
    text.flags.writeable = False
    room = len(text) // ORDER_BYTES_MIN + 1
    while True:
        orders, coins = np.zeros(room, ORDER), np.zeros(len(tables.markets), WORD)
        cursor = np.zeros(1, CURSOR)
        found, whole_text = markets(text, tables, np.zeros(1, EVENT), orders, coins, cursor)
        place = cursor[0]
        if whole_text or place["records"] < room:
            break
        room *= 2
    if not whole_text:
        return _generally(text.tobytes(), tables, height, int(place["at"]))
    orders = orders[: place["records"]]
    return _height(found, height), orders, [int(row) for row in coins[: place["segments"]]]


def _height(found: int, given: int | None) -> int:
    if found == NO_HEIGHT and given is None:
        raise Corrupt("the snapshot has no height")
    return int(given if found == NO_HEIGHT else found)


def _generally(
    raw: bytes, tables: intern.Tables, height: int | None, offset: int
) -> tuple[int, np.ndarray, list[int]]:
    """Read a snapshot of an unusual form. Raises Corrupt, and no text is interned then."""
    try:
        try:
            found, entries = decode.decode(_WITH_HEIGHT, raw)
            decode.whole(found)
        except Corrupt:
            found, entries = NO_HEIGHT, decode.decode(_WITHOUT, raw)
        height = _height(found, height)
        listed = [(coin, side, pair) for coin, sides in entries for side in (0, 1) for pair in sides[side]]
        facts = [_facts(coin, side, *pair) for coin, side, pair in listed]
        decode.check_market_names(coin for coin, _ in entries)
    except Corrupt as error:
        raise Corrupt(error.reason, offset, error.why) from None
    orders = np.zeros(len(facts), ORDER)
    for order, (fields, texts, address) in zip(orders, facts, strict=True):
        decode.write(order, fields)
        decode.intern_texts(order, texts, tables, sized=True)
        order["account"] = intern.account(tables, address)
    rows = [intern.market(tables, coin) for coin, _ in entries]
    if NO_MARKET in rows:
        raise Corrupt("the table of markets is full", why=Why.CAPACITY)
    return height, orders, rows


def _facts(coin: str, side: int, user: str, order: decode.Order) -> tuple[dict, dict, bytes]:
    fields, texts = decode.order_facts(order)
    if order.coin != coin or fields["side"] != side:
        raise Corrupt(f"an order of {order.coin[:40]!r} {order.side[:8]!r} among the others of {coin[:40]!r}")
    fields["state"] = codes.OrderState.UNTRIGGERED if order.isTrigger else codes.OrderState.RESTING
    links = dict.fromkeys(("prior", "next", "account_prior", "account_next"), NO_SLOT)
    return fields | links, texts, decode.address(user)
