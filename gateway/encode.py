"""Records of shared memory as the elements of the wire's messages: orders, statuses, diffs, trades, fills.

Every kernel that begins with `write_` writes elements joined by commas into out[at:] and returns the end;
what stands around them (the channel, the brackets) is the caller's. One element takes at most
ELEMENT_BYTES_MAX, an order's children not counted, for which the caller makes room. The order of the keys is
that of the peers, byte for byte.

out      u1[]
markets  MARKET[] and names NAME[], as the engine publishes them: rows that were named once never change
links    i4[]: which event of the same market or account comes after an event, END at the last
"""

import numpy as np

from gateway.numbers import (
    literal,
    put,
    put_decimal,
    put_hex,
    put_int,
    put_iso,
    put_quoted,
)
from shm import layout, units
from shm.codes import NONE_NAME, Condition, EventKind, Flag, OrderState, Side
from shm.constants import PLACES
from shm.kernel import entry, inner

ELEMENT_BYTES_MAX = (
    1536  # the longest is a fill: its keys, three names of 2 x 48, a coin of 2 x 32, 12 numbers
)
CHILDREN_MAX = 2  # of an order: its stop and its take profit
END = -1

BASIC, FRONTEND, L4 = 0, 1, 2  # forms of an order

_MS = 1_000_000  # nanoseconds

_NULL, _TRUE, _FALSE = literal("null"), literal("true"), literal("false")
_BUY, _SELL = literal('"B"'), literal('"A"')
_CLOSE, _CLOSE_TWO, _CLOSE_LIST = literal("}"), literal("}}"), literal("]}")
_COMMA = literal(",")
_COIN, _NEXT_COIN = literal('{"coin":'), literal(',"coin":')
_SIDE, _LIMIT_PX, _SZ = literal(',"side":'), literal(',"limitPx":'), literal(',"sz":')
_OID, _TIMESTAMP = literal(',"oid":'), literal(',"timestamp":')
_CONDITION, _IS_TRIGGER = literal(',"triggerCondition":'), literal(',"isTrigger":')
_TRIGGER_PX, _CHILDREN, _CHILDREN_END = literal(',"triggerPx":'), literal(',"children":['), literal("]")
_TPSL, _REDUCE_ONLY = literal(',"isPositionTpsl":'), literal(',"reduceOnly":')
_ORDER_TYPE, _ORIG_SZ = literal(',"orderType":'), literal(',"origSz":')
_TIF, _CLOID = literal(',"tif":'), literal(',"cloid":')
_IS_REDUCE_ONLY = literal(',"reduceOnly":true')
_NOT_APPLICABLE, _TRIGGERED = literal('"N/A"'), literal('"Triggered"')
_ABOVE, _BELOW, _QUOTE = literal('"Price above '), literal('"Price below '), literal('"')
_USER, _USER_NULL = literal('{"user":'), literal('{"user":null')
_TIME_FIRST, _THEN_USER = literal('{"time":'), literal(',"user":')
_STATUS, _ORDER = literal(',"status":'), literal(',"order":')
_ORDER_FIRST, _STATUS_TIME = literal('{"order":'), literal(',"statusTimestamp":')
_PX, _RAW_DIFF = literal(',"px":'), literal(',"raw_book_diff":')
_NEW, _UPDATE = literal('{"new":{"sz":'), literal('{"update":{"origSz":')
_NEW_SZ, _REMOVE = literal(',"newSz":'), literal('"remove"')
_TIME, _HASH, _TID = literal(',"time":'), literal(',"hash":'), literal(',"tid":')
_USERS = literal(',"users":[')
_START, _DIR, _PNL = literal(',"startPosition":'), literal(',"dir":'), literal(',"closedPnl":')
_CROSSED, _FEE, _FILL = literal(',"crossed":'), literal(',"fee":'), literal('{"fill":')
_LIQUIDATION, _LIQUIDATED = literal(',"liquidation":{'), literal('"liquidatedUser":')
_MARK_PX, _METHOD = literal('"markPx":'), literal(',"method":')
_BUILDER_FEE, _FEE_TOKEN, _TWAP = literal(',"builderFee":'), literal(',"feeToken":'), literal(',"twapId":')


# --- orders -------------------------------------------------------------------------------------------------


@inner
def _put_bool(out, at, yes):
    return put(out, at, _TRUE if yes else _FALSE)


@inner
def _put_name(out, at, names, row):
    """Write the interned text of `row`, quoted, or null."""
    if row == NONE_NAME:
        return put(out, at, _NULL)
    return put_quoted(out, at, names[row].text)


@inner
def _put_side(out, at, side):
    return put(out, at, _BUY if side == Side.BUY else _SELL)


@inner
def _put_terms(out, at, order, market, point):
    """Write `coin`, whose key stands already, to `timestamp`. point: a whole number keeps its `.0`."""
    at = put_quoted(out, at, market.name)
    at = _put_side(out, put(out, at, _SIDE), order.side)
    at = put_decimal(out, put(out, at, _LIMIT_PX), order.price, market.price_places, point)
    at = put_decimal(out, put(out, at, _SZ), order.quantity, market.quantity_places, point)
    at = put_int(out, put(out, at, _OID), order.order)
    return put_int(out, put(out, at, _TIMESTAMP), order.timestamp_ms)


@inner
def _put_trigger(out, at, order, places):
    """Write `triggerCondition`, `isTrigger` and `triggerPx`."""
    at = put(out, at, _CONDITION)
    if order.condition == Condition.NONE:
        at = put(out, at, _NOT_APPLICABLE)
    elif order.condition == Condition.TRIGGERED:
        at = put(out, at, _TRIGGERED)
    else:
        at = put(out, at, _ABOVE if order.condition == Condition.ABOVE else _BELOW)
        at = units.write(out, at, order.trigger_price, places, False)
        at = put(out, at, _QUOTE)
    at = _put_bool(out, put(out, at, _IS_TRIGGER), order.flags & Flag.IS_TRIGGER != 0)
    return put_decimal(out, put(out, at, _TRIGGER_PX), order.trigger_price, places, True)


@inner
def _put_kind(out, at, order, names):
    """Write `isPositionTpsl`, `reduceOnly` and `orderType`."""
    at = _put_bool(out, put(out, at, _TPSL), order.flags & Flag.POSITION_TPSL != 0)
    at = _put_bool(out, put(out, at, _REDUCE_ONLY), order.flags & Flag.REDUCE_ONLY != 0)
    return _put_name(out, put(out, at, _ORDER_TYPE), names, order.order_type)


@inner
def _put_end(out, at, order, names):
    """Write `tif` and `cloid`, both null where there is none, and close the order."""
    at = _put_name(out, put(out, at, _TIF), names, order.tif)
    at = put(out, at, _CLOID)
    if order.flags & Flag.HAS_CLOID != 0:
        at = put_hex(out, at, order.cloid)
    else:
        at = put(out, at, _NULL)
    return put(out, at, _CLOSE)


@inner
def put_basic(out, at, order, market):
    """Write a BasicOrder: what openOrders and orderUpdates tell."""
    at = _put_terms(out, put(out, at, _COIN), order, market, True)
    at = put_decimal(out, put(out, at, _ORIG_SZ), order.original, market.quantity_places, True)
    if order.flags & Flag.HAS_CLOID != 0:
        at = put_hex(out, put(out, at, _CLOID), order.cloid)
    if order.flags & Flag.REDUCE_ONLY != 0:
        at = put(out, at, _IS_REDUCE_ONLY)
    return put(out, at, _CLOSE)


@inner
def put_frontend(out, at, order, market, names):
    """Write a FrontendOrder that has no children, or of which they are not known here."""
    return _put_from_children(out, _put_to_children(out, at, order, market), order, market, names)


@inner
def _put_to_children(out, at, order, market):
    """Write a FrontendOrder up to its children."""
    at = _put_terms(out, put(out, at, _COIN), order, market, True)
    at = _put_trigger(out, at, order, market.price_places)
    return put(out, at, _CHILDREN)


@inner
def _put_from_children(out, at, order, market, names):
    """Write what follows a FrontendOrder's children."""
    at = _put_kind(out, put(out, at, _CHILDREN_END), order, names)
    at = put_decimal(out, put(out, at, _ORIG_SZ), order.original, market.quantity_places, True)
    return _put_end(out, at, order, names)


@inner
def _put_children(out, at, orders, parent, markets, names):
    """Write the orders that wait for orders[parent] to be filled: they mostly stand right behind it."""
    group, children = orders[parent].group, 0
    for step in range(1, len(orders)):
        i = parent + step
        order = orders[i if i < len(orders) else i - len(orders)]
        if order.group == group and order.flags & Flag.IS_TRIGGER != 0:
            at = put(out, at, _COMMA) if children > 0 else at
            at = put_frontend(out, at, order, markets[order.market], names)
            children += 1
            if children == CHILDREN_MAX:
                break
    return at


@inner
def _is_parent(order):
    """Whether an order is on the book, and may have children that are not."""
    return order.group != 0 and order.state == OrderState.RESTING and order.condition == Condition.NONE


@inner
def _put_l4_rest(out, at, order, market, names, point):
    """Write what follows the user of an L4Order."""
    at = _put_terms(out, put(out, at, _NEXT_COIN), order, market, point)
    at = _put_trigger(out, at, order, market.price_places)
    return _put_end(out, _put_kind(out, at, order, names), order, names)


@entry
def write_orders(out, at, orders, start, end, markets, names, accounts, form):
    """Write orders[start:end] in a form (BASIC, FRONTEND, L4) until `out` is nearly full.

    Of FRONTEND orders, a parent's children are among `orders`, where each of them stands for itself as well.
    Returns (end of the text, the first order that was not written).
    """
    for i in range(start, end):
        order = orders[i]
        has_children = form == FRONTEND and _is_parent(order)
        elements = 1 + CHILDREN_MAX if has_children else 1
        if at + elements * ELEMENT_BYTES_MAX > len(out):
            return at, i
        if i > 0:
            at = put(out, at, _COMMA)
        market = markets[order.market]
        if form == BASIC:
            at = put_basic(out, at, order, market)
        elif has_children:
            at = _put_children(out, _put_to_children(out, at, order, market), orders, i, markets, names)
            at = _put_from_children(out, at, order, market, names)
        elif form == FRONTEND:
            at = put_frontend(out, at, order, market, names)
        else:
            at = put_hex(out, put(out, at, _USER), accounts[order.account].address)
            at = _put_l4_rest(out, at, order, market, names, False)
    return at, end


@entry
def write_ended(out, at, ended, count, markets, names):
    """Write ended[:count] (ENDED[]) as `{"order":FrontendOrder,"status","statusTimestamp"}`."""
    for i in range(count):
        at = put(out, at, _COMMA) if i > 0 else at
        order = ended[i]
        at = put_frontend(out, put(out, at, _ORDER_FIRST), order, markets[order.market], names)
        at = _put_name(out, put(out, at, _STATUS), names, order.status)
        at = put_int(out, put(out, at, _STATUS_TIME), order.time_ns // _MS)
        at = put(out, at, _CLOSE)
    return at


# --- events -------------------------------------------------------------------------------------------------


@entry
def write_updates(out, at, events, links, first, markets, names, form):
    """Write an account's STATUS events as `{"order","status","statusTimestamp"}`. form: BASIC or FRONTEND."""
    begin, i = at, first
    for _ in range(len(events)):
        if i == END:
            break
        event = events[i]
        if event.kind == EventKind.STATUS:
            at = put(out, at, _COMMA) if at > begin else at
            at = put(out, at, _ORDER_FIRST)
            if form == BASIC:
                at = put_basic(out, at, event, markets[event.market])
            else:
                at = put_frontend(out, at, event, markets[event.market], names)
            at = _put_name(out, put(out, at, _STATUS), names, event.status)
            at = put_int(out, put(out, at, _STATUS_TIME), event.time_ns // _MS)
            at = put(out, at, _CLOSE)
        i = links[i]
    return at


@entry
def write_nonuser_cancels(out, at, events, links, first, markets, wanted):
    """Write `{"coin","oid"}` of the STATUS events whose status is wanted (b1 by row of names)."""
    begin, i = at, first
    for _ in range(len(events)):
        if i == END:
            break
        event = events[i]
        if event.kind == EventKind.STATUS and wanted[event.status]:
            at = put(out, at, _COMMA) if at > begin else at
            at = put_quoted(out, put(out, at, _COIN), markets[event.market].name)
            at = put(out, put_int(out, put(out, at, _OID), event.order), _CLOSE)
        i = links[i]
    return at


@entry
def write_statuses(out, at, events, links, first, markets, names):
    """Write a market's STATUS events as l4Book tells them: time, user, status, L4Order without its user."""
    begin, i = at, first
    for _ in range(len(events)):
        if i == END:
            break
        event = events[i]
        if event.kind == EventKind.STATUS:
            at = put(out, at, _COMMA) if at > begin else at
            at = put_iso(out, put(out, at, _TIME_FIRST), event.time_ns)
            at = put_hex(out, put(out, at, _THEN_USER), event.address)
            at = _put_name(out, put(out, at, _STATUS), names, event.status)
            at = put(out, put(out, at, _ORDER), _USER_NULL)
            at = _put_l4_rest(out, at, event, markets[event.market], names, True)
            at = put(out, at, _CLOSE)
        i = links[i]
    return at


@entry
def write_diffs(out, at, events, links, first, markets):
    """Write a market's NEW, UPDATE and REMOVE events as l4Book tells them."""
    begin, i = at, first
    for _ in range(len(events)):
        if i == END:
            break
        event = events[i]
        if EventKind.NEW <= event.kind <= EventKind.REMOVE:
            at = put(out, at, _COMMA) if at > begin else at
            at = _put_diff(out, at, event, markets[event.market])
        i = links[i]
    return at


@inner
def _put_diff(out, at, event, market):
    at = put_hex(out, put(out, at, _USER), event.address)
    at = put_int(out, put(out, at, _OID), event.order)
    at = put_decimal(out, put(out, at, _PX), event.price, market.price_places, True)
    at = put_quoted(out, put(out, at, _NEXT_COIN), market.name)
    at = put(out, at, _RAW_DIFF)
    places = market.quantity_places
    if event.kind == EventKind.NEW:
        at = put_decimal(out, put(out, at, _NEW), event.quantity, places, True)
        at = put(out, at, _CLOSE_TWO)
    elif event.kind == EventKind.UPDATE:
        at = put_decimal(out, put(out, at, _UPDATE), event.original, places, True)
        at = put_decimal(out, put(out, at, _NEW_SZ), event.quantity, places, True)
        at = put(out, at, _CLOSE_TWO)
    else:
        at = put(out, at, _REMOVE)
    return put(out, at, _CLOSE)


# --- trades and fills ---------------------------------------------------------------------------------------


@entry
def write_trades(out, at, trades, count, markets):
    """Write trades[:count] (TRADE[]); the side is the aggressor's, the users are buyer and seller."""
    for i in range(count):
        at = put(out, at, _COMMA) if i > 0 else at
        trade = trades[i]
        market = markets[trade.market]
        at = put_quoted(out, put(out, at, _COIN), market.name)
        at = _put_side(out, put(out, at, _SIDE), trade.side)
        at = put_decimal(out, put(out, at, _PX), trade.price, market.price_places, True)
        at = put_decimal(out, put(out, at, _SZ), trade.quantity, market.quantity_places, True)
        at = put_int(out, put(out, at, _TIME), trade.time_ms)
        at = put_hex(out, put(out, at, _HASH), trade.hash)
        at = put_int(out, put(out, at, _TID), trade.trade)
        at = put_hex(out, put(out, at, _USERS), trade.buyer)
        at = put_hex(out, put(out, at, _COMMA), trade.seller)
        at = put(out, at, _CLOSE_LIST)
    return at


@entry
def write_fills(out, at, fills, count, markets, names):
    """Write fills[:count] (FILL[]) as userFills and userEvents tell them."""
    for i in range(count):
        at = put(out, at, _COMMA) if i > 0 else at
        at = _put_fill(out, at, fills[i], markets[fills[i].market], names)
    return at


@entry
def write_slice_fills(out, at, fills, count, markets, names):
    """Write fills[:count] of TWAPs' slices, each with the id of its TWAP."""
    for i in range(count):
        at = put(out, at, _COMMA) if i > 0 else at
        at = _put_fill(out, put(out, at, _FILL), fills[i], markets[fills[i].market], names)
        at = put_int(out, put(out, at, _TWAP), fills[i].twap)
        at = put(out, at, _CLOSE)
    return at


@inner
def _put_fill(out, at, fill, market, names):
    at = put_quoted(out, put(out, at, _COIN), market.name)
    at = put_decimal(out, put(out, at, _PX), fill.price, market.price_places, True)
    at = put_decimal(out, put(out, at, _SZ), fill.quantity, market.quantity_places, True)
    at = _put_side(out, put(out, at, _SIDE), fill.side)
    at = put_int(out, put(out, at, _TIME), fill.time_ms)
    at = put_decimal(out, put(out, at, _START), fill.start_position, market.quantity_places, True)
    at = _put_name(out, put(out, at, _DIR), names, fill.direction)
    at = put_decimal(out, put(out, at, _PNL), fill.closed_pnl, PLACES, True)
    at = put_hex(out, put(out, at, _HASH), fill.hash)
    at = put_int(out, put(out, at, _OID), fill.order)
    at = _put_bool(out, put(out, at, _CROSSED), fill.flags & Flag.CROSSED != 0)
    at = put_decimal(out, put(out, at, _FEE), fill.fee, PLACES, True)
    at = put_int(out, put(out, at, _TID), fill.trade)
    return put(out, _put_fill_options(out, at, fill, market, names), _CLOSE)


@inner
def _put_fill_options(out, at, fill, market, names):
    """Write the keys that only some fills have, and those that follow them."""
    if fill.flags & Flag.HAS_CLOID != 0:
        at = put_hex(out, put(out, at, _CLOID), fill.cloid)
    if fill.flags & Flag.LIQUIDATION != 0:
        at = put(out, at, _LIQUIDATION)
        if _has_bytes(fill.liquidated):
            at = put_hex(out, put(out, at, _LIQUIDATED), fill.liquidated)
            at = put(out, at, _COMMA)
        at = put_decimal(out, put(out, at, _MARK_PX), fill.liquidation_price, market.price_places, True)
        at = _put_name(out, put(out, at, _METHOD), names, fill.liquidation_method)
        at = put(out, at, _CLOSE)
    if fill.flags & Flag.HAS_BUILDER_FEE != 0:
        at = put_decimal(out, put(out, at, _BUILDER_FEE), fill.builder_fee, PLACES, True)
    at = _put_name(out, put(out, at, _FEE_TOKEN), names, fill.fee_token)
    at = put(out, at, _TWAP)
    return put(out, at, _NULL) if fill.twap < 0 else put_int(out, at, fill.twap)


@inner
def _has_bytes(raw):
    for i in range(len(raw)):
        if raw[i] != 0:
            return True
    return False


def warm() -> None:
    """Compile the entry points for memory that is mapped read-only, and for our own."""
    markets, names, accounts = (
        np.zeros(1, layout.MARKET),
        np.zeros(1, layout.NAME),
        np.zeros(1, layout.ACCOUNT),
    )
    for array in (markets, names, accounts):
        array.flags.writeable = False
    out, links = np.zeros(4 * ELEMENT_BYTES_MAX, np.uint8), np.full(1, END, np.int32)
    events, wanted = np.zeros(1, layout.EVENT), np.zeros(1, np.bool_)
    write_orders(out, 0, np.zeros(1, layout.ORDER), 0, 1, markets, names, accounts, BASIC)
    write_ended(out, 0, np.zeros(1, layout.ENDED), 1, markets, names)
    write_updates(out, 0, events, links, 0, markets, names, BASIC)
    write_nonuser_cancels(out, 0, events, links, 0, markets, wanted)
    write_statuses(out, 0, events, links, 0, markets, names)
    write_diffs(out, 0, events, links, 0, markets)
    write_trades(out, 0, np.zeros(1, layout.TRADE), 1, markets)
    write_fills(out, 0, np.zeros(1, layout.FILL), 1, markets, names)
    write_slice_fills(out, 0, np.zeros(1, layout.FILL), 1, markets, names)
