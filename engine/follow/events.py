"""One event of a node's stream becomes one record, by kernels that know the order of its keys.

A kernel takes the position of an event and gives the position behind it, or FAR (see `scan`) for an event
that it does not recognise: the record then holds rubbish and is not counted. All fields are written, so
records can be compared as bytes. A line that proves unreadable further on may leave interned texts.

The order object is the same in statuses and snapshots. Fills have optional keys that nodes put in several
places, so their keys are taken as they come; every other event has its keys in a fixed order.
"""

from typing import NamedTuple

from engine.follow import intern
from engine.follow.scan import (
    FAR,
    MINUS,
    QUOTE,
    WORD,
    clear,
    decimal,
    hexadecimal,
    kernel,
    key_end,
    long_decimal,
    moment,
    peek,
    quote,
    same,
    skip,
    step,
    value_end,
    whole,
)
from shm import codes
from shm.constants import ADDRESS_BYTES, CLOID_BYTES, HASH_BYTES, MARKET_NAME_BYTES, NAME_BYTES
from shm.layout import NO_MARKET

SIDE_UNKNOWN = 255  # of a diff by a node that does not tell it
CROWDED = -1  # instead of a position: the event's market finds no row left
NO_TWAP = -1

_BUY, _SELL = int(codes.Side.BUY), int(codes.Side.SELL)
_A, _B = ord("A"), ord("B")
_LIMIT, _GTC, _ALO = codes.TYPE_LIMIT, codes.TIF_GTC, codes.NAMES.index("Alo")
_PLAIN = (
    ',"triggerCondition":"N/A","isTrigger":false,"triggerPx":"0.0","children":[]'
    ',"isPositionTpsl":false,"reduceOnly":false,"orderType":"Limit"'
)
_NONE, _ABOVE, _BELOW, _TRIGGERED = (int(condition) for condition in codes.Condition)
_STATUS, _NEW = int(codes.EventKind.STATUS), int(codes.EventKind.NEW)
_UPDATE, _REMOVE = int(codes.EventKind.UPDATE), int(codes.EventKind.REMOVE)
_REDUCE_ONLY, _IS_TRIGGER = int(codes.Flag.REDUCE_ONLY), int(codes.Flag.IS_TRIGGER)
_POSITION_TPSL, _HAS_CLOID = int(codes.Flag.POSITION_TPSL), int(codes.Flag.HAS_CLOID)
_CROSSED = int(codes.Flag.CROSSED)
_LIQUIDATION, _HAS_BUILDER_FEE = int(codes.Flag.LIQUIDATION), int(codes.Flag.HAS_BUILDER_FEE)


class Block(NamedTuple):
    """What an event takes from its line."""

    height: int
    time_ns: int
    time_at: int  # where the text of the block's time stands, to its closing quote
    time_end: int


@step
def text_end(text, at, longest):
    """Find the end of the string text[at:] of 1 to `longest` bytes that can be interned, or FAR."""
    end = quote(text, at)
    return end if 1 <= end - at <= longest and at + WORD <= len(text) else FAR


@step
def side(text, at):
    """Read `A"` or `B"`: (side, the position behind the quote)."""
    letter = peek(text, at)
    if (letter == _A or letter == _B) and peek(text, at + 1) == QUOTE:
        return _SELL if letter == _A else _BUY, at + 2
    return 0, FAR


@step
def boolean(text, at, bit):
    """Read true as `bit` or false as 0."""
    if peek(text, at) == ord("t"):
        return bit, skip(text, at, "true")
    return 0, skip(text, at, "false")


@step
def cloid(text, at, record):
    """Read a cloid or null; give the flag and the position."""
    if peek(text, at) == QUOTE:
        after = hexadecimal(text, skip(text, at, '"0x'), record.cloid, CLOID_BYTES)
        return _HAS_CLOID, skip(text, after, '"')
    return 0, skip(text, at, "null")


@kernel
def condition(text, at):
    """Read the string of a trigger condition, skipping its price: (condition, position behind the quote)."""
    sign = peek(text, at)
    if sign == ord("N"):
        return _NONE, skip(text, at, 'N/A"')
    if sign == ord("T"):
        return _TRIGGERED, skip(text, at, 'Triggered"')
    after = skip(text, at, "Price above ")
    if after != FAR:
        return _ABOVE, skip(text, quote(text, after), '"')
    return _BELOW, skip(text, quote(text, skip(text, at, "Price below ")), '"')


@step
def tif(text, at, tables, record):
    """Read a time in force, or null."""
    for known, after in ((_ALO, skip(text, at, '"Alo"')), (_GTC, skip(text, at, '"Gtc"'))):
        if after != FAR:
            record.tif = known
            return after
    if peek(text, at) != QUOTE:
        record.tif = codes.NONE_NAME
        return skip(text, at, "null")
    end = text_end(text, at + 1, NAME_BYTES)
    after = skip(text, end, '"')
    if after != FAR:
        record.tif = intern.name_of(tables, text, at + 1, end - at - 1)
    return after


@kernel
def kind_part(text, at, tables, record):
    """Read from triggerCondition to orderType: what kind of order it is."""
    record.condition, at = condition(text, skip(text, at, ',"triggerCondition":"'))
    trigger, at = boolean(text, skip(text, at, ',"isTrigger":'), _IS_TRIGGER)
    record.trigger_price, at = decimal(text, skip(text, at, ',"triggerPx":"'))
    children = skip(text, at, ',"children":')
    at = skip(text, children, "[]")
    if at == FAR:
        at = value_end(text, children)
    tpsl, at = boolean(text, skip(text, at, ',"isPositionTpsl":'), _POSITION_TPSL)
    reduce_only, at = boolean(text, skip(text, at, ',"reduceOnly":'), _REDUCE_ONLY)
    record.flags = trigger | tpsl | reduce_only
    kind = skip(text, at, ',"orderType":"')
    end = text_end(text, kind, NAME_BYTES)
    after = skip(text, end, '"')
    if after != FAR:
        record.order_type = intern.name_of(tables, text, kind, end - kind)
    return after


@step
def order_object(text, at, tables, record):
    """Read an order, of a status or of a snapshot, into the fields of a blank EVENT."""
    coin = skip(text, at, '{"coin":"')
    coin_end = text_end(text, coin, MARKET_NAME_BYTES)
    record.side, at = side(text, skip(text, coin_end, '","side":"'))
    record.price, at = decimal(text, skip(text, at, ',"limitPx":"'))
    record.quantity, at = decimal(text, skip(text, at, ',"sz":"'))
    record.order, at = whole(text, skip(text, at, ',"oid":'))
    record.timestamp_ms, at = whole(text, skip(text, at, ',"timestamp":'))
    plain = skip(text, at, _PLAIN)
    if plain != FAR:  # as nine of ten
        record.order_type, at = _LIMIT, plain
    else:
        at = kind_part(text, at, tables, record)
    record.original, at = decimal(text, skip(text, at, ',"origSz":"'))
    at = tif(text, skip(text, at, ',"tif":'), tables, record)
    has_cloid, at = cloid(text, skip(text, at, ',"cloid":'), record)
    record.flags |= has_cloid
    at = skip(text, at, "}")
    if at != FAR:
        record.market = intern.market_of(tables, text, coin, coin_end - coin)
        return CROWDED if record.market == NO_MARKET else at
    return at


@step
def provenance(text, at):
    """Skip a hash and a builder, which older nodes leave out, and give the place of the status text."""
    after = skip(text, at, ',"hash":null,"builder":null,"status":"')
    if after != FAR:
        return after
    after = skip(text, at, ',"hash":')
    if after != FAR:
        at = value_end(text, after)
    after = skip(text, at, ',"builder":')
    if after != FAR:
        at = value_end(text, after)
    return skip(text, at, ',"status":"')


@step
def status(text, at, block, tables, records, count):
    """Read an order status into records[count]."""
    record = records[count]
    clear(record)
    record.kind, record.height = _STATUS, block.height
    at = skip(text, at, '{"time":"')
    length = block.time_end + 1 - block.time_at
    if same(text, at, block.time_at, length):  # as it nearly always is
        record.time_ns, at = block.time_ns, at + length
    else:
        record.time_ns, at = moment(text, at)
    at = hexadecimal(text, skip(text, at, ',"user":"0x'), record.address, ADDRESS_BYTES)
    at = skip(text, at, '"')
    state = provenance(text, at)
    state_end = text_end(text, state, NAME_BYTES)
    at = order_object(text, skip(text, state_end, '","order":'), tables, record)
    if at == CROWDED:
        return CROWDED
    at = skip(text, at, "}")
    if at != FAR:
        record.status = intern.name_of(tables, text, state, state_end - state)
        record.account = intern.account_of(tables, record.address)
        intern.see_size(tables.markets, record.market, record.quantity)
    return at


@step
def diff_side(text, at):
    """Read `"side":` with A, B, Ask or Bid, where a node tells it: (side, the position behind its comma)."""
    start = skip(text, at, '"side":"')
    if start == FAR:
        return SIDE_UNKNOWN, at
    after = skip(text, start, 'Ask",')
    if after != FAR:
        return _SELL, after
    after = skip(text, start, 'Bid",')
    if after != FAR:
        return _BUY, after
    told, at = side(text, start)
    return told, skip(text, at, ",")


@step
def change(text, at, record):
    """Read what a diff does to its order."""
    size = skip(text, at, '{"new":{"sz":"')
    if size != FAR:
        record.kind = _NEW
        record.quantity, at = decimal(text, size)
        return skip(text, at, "}}")
    size = skip(text, at, '{"update":{"origSz":"')
    if size != FAR:
        record.kind = _UPDATE
        record.original, at = decimal(text, size)
        record.quantity, at = decimal(text, skip(text, at, ',"newSz":"'))
        return skip(text, at, "}}")
    record.kind = _REMOVE
    return skip(text, at, '"remove"')


@step
def diff(text, at, block, tables, records, count):
    """Read a raw book diff into records[count]; nodes put the price behind the side, or first."""
    record = records[count]
    clear(record)
    record.height, record.time_ns = block.height, block.time_ns
    at = hexadecimal(text, skip(text, at, '{"user":"0x'), record.address, ADDRESS_BYTES)
    record.order, at = whole(text, skip(text, at, '","oid":'))
    at = skip(text, at, ",")
    price = skip(text, at, '"px":"')
    if price != FAR:
        record.price, at = decimal(text, price)
        at = skip(text, at, ",")
    coin = skip(text, at, '"coin":"')
    coin_end = text_end(text, coin, MARKET_NAME_BYTES)
    record.side, at = diff_side(text, skip(text, coin_end, '",'))
    if price == FAR:
        record.price, at = decimal(text, skip(text, at, '"px":"'))
        at = skip(text, at, ",")
    at = skip(text, change(text, skip(text, at, '"raw_book_diff":'), record), "}")
    if at == FAR:
        return FAR
    record.market = intern.market_of(tables, text, coin, coin_end - coin)
    if record.market == NO_MARKET:
        return CROWDED
    record.account = intern.account_of(tables, record.address)
    intern.see_size(tables.markets, record.market, record.quantity)
    return at


@kernel
def fill_head(text, at, record):
    """Read the keys of a fill that come first and in this order, to `crossed`: (texts, the position behind
    them).

    The texts are the starts and ends of the market and of the direction.
    """
    coin = skip(text, at, '{"coin":"')
    coin_end = text_end(text, coin, MARKET_NAME_BYTES)
    record.price, at = decimal(text, skip(text, coin_end, '","px":"'))
    # The size of a dust conversion is a balance in the token's own decimals, finer than any order's.
    size = skip(text, at, ',"sz":"')
    record.quantity, at = long_decimal(text, FAR if peek(text, size) == MINUS else size, True)
    record.side, at = side(text, skip(text, at, ',"side":"'))
    record.time_ms, at = whole(text, skip(text, at, ',"time":'))
    record.start_position, at = long_decimal(text, skip(text, at, ',"startPosition":"'), True)
    direction = skip(text, at, ',"dir":"')
    direction_end = text_end(text, direction, NAME_BYTES)
    record.closed_pnl, at = long_decimal(text, skip(text, direction_end, '","closedPnl":"'), True)
    at = hexadecimal(text, skip(text, at, ',"hash":"0x'), record.hash, HASH_BYTES)
    record.order, at = whole(text, skip(text, at, '","oid":'))
    record.flags, at = boolean(text, skip(text, at, ',"crossed":'), _CROSSED)
    return (coin, coin_end, direction, direction_end), at


# The keys of a fill's tail; the first two are always there.
_FEE, _TID, _CLOID, _FEE_TOKEN, _TWAP, _BUILDER_FEE, _LIQUIDATED, _OTHER = range(8)
_REQUIRED = (1 << _FEE) | (1 << _TID)


@kernel
def tail_key(text, at):
    """Tell which key of a fill's tail stands at text[at:], and where its value begins."""
    keys = (
        skip(text, at, '"fee":'),
        skip(text, at, '"tid":'),
        skip(text, at, '"cloid":'),
        skip(text, at, '"feeToken":'),
        skip(text, at, '"twapId":'),
        skip(text, at, '"builderFee":'),
        skip(text, at, '"liquidation":'),
    )
    for number in range(_OTHER):
        if keys[number] != FAR:
            return number, keys[number]
    return _OTHER, key_end(text, at)


@kernel
def liquidation(text, at, tables, record):
    """Read a fill's liquidation, or null."""
    if peek(text, at) == ord("n"):
        return skip(text, at, "null")
    at = hexadecimal(text, skip(text, at, '{"liquidatedUser":"0x'), record.liquidated, ADDRESS_BYTES)
    record.liquidation_price, at = long_decimal(text, skip(text, at, '","markPx":"'), True)
    method = skip(text, at, ',"method":"')
    end = text_end(text, method, NAME_BYTES)
    at = skip(text, end, '"}')
    if at != FAR:
        record.flags |= _LIQUIDATION
        record.liquidation_method = intern.name_of(tables, text, method, end - method)
    return at


@kernel
def tail_value(text, at, key, tables, record):
    """Read the value of a key of a fill's tail."""
    if key == _FEE:
        record.fee, at = long_decimal(text, skip(text, at, '"'), True)
    elif key == _TID:
        record.trade, at = whole(text, at)
    elif key == _CLOID:
        has_cloid, at = cloid(text, at, record)
        record.flags |= has_cloid
    elif key == _FEE_TOKEN:
        start = skip(text, at, '"')
        end = text_end(text, start, NAME_BYTES)
        at = skip(text, end, '"')
        if at != FAR:
            record.fee_token = intern.name_of(tables, text, start, end - start)
    elif key == _TWAP:
        if peek(text, at) == ord("n"):
            at = skip(text, at, "null")
        else:
            record.twap, at = whole(text, at)
    elif key == _BUILDER_FEE:
        record.builder_fee, at = long_decimal(text, skip(text, at, '"'), True)
        record.flags |= _HAS_BUILDER_FEE
    elif key == _LIQUIDATED:
        at = liquidation(text, at, tables, record)
    else:
        at = value_end(text, at)
    return at


@kernel
def fill(text, at, block, tables, records, count):
    """Read a fill into records[count]: the keys of its head in order, those of its tail as they come, each
    once.
    """
    record = records[count]
    clear(record)
    record.height, record.twap = block.height, NO_TWAP
    at = hexadecimal(text, skip(text, at, '["0x'), record.address, ADDRESS_BYTES)
    (coin, coin_end, direction, direction_end), at = fill_head(text, skip(text, at, '",'), record)
    seen = 0
    while peek(text, at) == ord(","):
        key, at = tail_key(text, at + 1)
        if key != _OTHER and (seen >> key) & 1:
            return FAR
        seen |= 1 << key
        at = tail_value(text, at, key, tables, record)
    at = skip(text, at, "}]")
    if at == FAR or seen & _REQUIRED != _REQUIRED:
        return FAR
    record.market = intern.market_of(tables, text, coin, coin_end - coin)
    if record.market == NO_MARKET:
        return CROWDED
    record.direction = intern.name_of(tables, text, direction, direction_end - direction)
    record.account = intern.account_of(tables, record.address)
    return at
