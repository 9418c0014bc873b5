"""Outcomes in, and the world that readers see is what they tell: the other source beside a node's blocks.

An outcome carries all that it changes, so nothing of the core is read here, and a world made of the outcomes
of a journal is the world that was. Rows are bracketed from the first outcome that touches them to the end of
their block; what a block changed is seen when its BLOCK has come (engine/publish.py).
"""

import numpy as np

from engine import book, history, publish
from engine.exchange import candles, statements
from engine.exchange.records import OUTCOME, Kind
from engine.exchange.state import TINY
from engine.exchange.world import allocate, capacity_for
from shm import atomics, index
from shm.bulk import clear_bytes, copy_bytes
from shm.codes import (
    NAMES,
    NONE_NAME,
    TIF_GTC,
    Condition,
    EventKind,
    Flag,
    MarketKind,
    Method,
    OrderState,
    Side,
    Stale,
    Status,
    Tif,
)
from shm.constants import PERP_DECIMALS, PLACES, USD_PLACES
from shm.kernel import entry, inner
from shm.layout import NO_SLOT

TYPE_MARKET = NAMES.index("Market")  # the next row: a limit order
TYPE_STOP = NAMES.index("Stop Market")  # likewise
TYPE_TAKE_PROFIT = NAMES.index("Take Profit Market")
TYPE_SLICE = NAMES.index("Twap Slice")
OPEN_LONG, OPEN_SHORT = NAMES.index("Open Long"), NAMES.index("Open Short")
CLOSE_LONG, CLOSE_SHORT = NAMES.index("Close Long"), NAMES.index("Close Short")
LONG_TO_SHORT, SHORT_TO_LONG = NAMES.index("Long > Short"), NAMES.index("Short > Long")
METHOD_MARKET, METHOD_BACKSTOP = NAMES.index("market"), NAMES.index("backstop")
LIQUIDATED_CROSS = NAMES.index("Liquidated Cross Long")  # the next row: short
LIQUIDATED_ISOLATED = NAMES.index("Liquidated Isolated Long")
DELEVERAGED = NAMES.index("Auto-Deleveraging")
USDC = NAMES.index("USDC")
MONEY_UNIT = 10 ** (PLACES - USD_PLACES)  # of a fill, in units of a ledger
NO_TWAP = -1
MAKER, TAKER = 0, 1
OF_FILL = Flag.REDUCE_ONLY | Flag.HAS_CLOID | Flag.CROSSED
OF_ORDER = Flag.REDUCE_ONLY | Flag.HAS_CLOID | Flag.POSITION_TPSL  # flags that stay with it


@entry
def project(world, outcomes, count):
    """Show outcomes[:count] (OUTCOME[]), which follow those of the call before.

    They may be any part of the stream; but readers by oid or address wait from the first outcome of a block
    to its BLOCK, so whole blocks are best.
    """
    for i in range(count):
        outcome = outcomes[i]
        kind = outcome.kind
        if world.state.rows.status[0].sequence % 2 == 0:
            publish.begin_block(world.state)
        if kind == Kind.FILLED:
            _on_filled(world, outcome)
        elif kind == Kind.OPENED:
            _on_opened(world, outcome)
        elif kind == Kind.ENDED:
            _on_ended(world, outcome)
        elif kind == Kind.REFUSED:
            _on_refused(world, outcome)
        elif kind == Kind.WAITING:
            _on_waiting(world, outcome)
        elif kind == Kind.TRIGGERED:
            _on_triggered(world, outcome)
        elif kind == Kind.FUNDS:
            statements.on_funds(world, outcome)
        elif kind == Kind.POSITION:
            statements.on_position(world, outcome)
        elif kind == Kind.MARKET:
            _on_market(world, outcome)
        elif kind == Kind.PRICES:
            _on_prices(world, outcome)
        elif kind == Kind.TIER:
            _on_tier(world, outcome)
        elif kind == Kind.MONEY:
            statements.on_money(world, outcome)
        elif kind == Kind.FUNDING:
            statements.on_funding(world, outcome)
        elif kind == Kind.LIQUIDATED:
            statements.on_liquidated(world, outcome)
        elif kind == Kind.RATE:
            _on_rate(world, outcome)
        elif kind == Kind.AGENT:
            statements.on_agent(world, outcome)
        elif kind == Kind.ACCOUNT:
            statements.on_account(world, outcome)
        elif kind == Kind.TWAP:
            statements.on_twap(world, outcome)
        elif kind == Kind.SLICE:
            world.of_slice[0], world.of_slice[1] = outcome.order, outcome.trade
        elif kind == Kind.BLOCK:
            _on_block(world, outcome)


@inner
def _on_block(world, outcome):
    """The block is whole: everything that it changed is seen."""
    status = world.state.rows.status[0]
    event = publish.emit(world.state)
    event.kind, event.height, event.time_ns = EventKind.BLOCK, outcome.order, outcome.time_ns
    atomics.store_relaxed(status, "command_sequence", outcome.price)
    atomics.store_relaxed(status, "seen_height", outcome.order)
    publish.end_block(world.state, outcome.order, outcome.time_ns)


# --- orders -------------------------------------------------------------------------------------------------


@inner
def _describe(target, outcome):
    """Write what an outcome says of its order into an ORDER or an EVENT."""
    target.order, target.price = outcome.order, outcome.price
    target.quantity, target.original = outcome.quantity, outcome.original
    target.trigger_price, target.timestamp_ms = 0, outcome.placed_ms
    target.market, target.account, target.side = outcome.market, outcome.account, outcome.side
    target.condition, target.flags = Condition.NONE, outcome.flags & OF_ORDER
    target.tif = TIF_GTC + outcome.tif
    target.order_type = _type_of(outcome)
    copy_bytes(target.cloid, outcome.text)
    if outcome.done != Condition.NONE:
        _describe_trigger(target, outcome)


@inner
def _describe_trigger(target, outcome):
    """Of a trigger order: what it waits for, or what it has been since it fired, as books show it."""
    if outcome.flags & Flag.IS_TRIGGER and outcome.kind != Kind.TRIGGERED:
        target.flags |= Flag.IS_TRIGGER
        target.trigger_price, target.condition, target.tif = outcome.start, outcome.done, NONE_NAME
    else:
        target.condition, target.tif = Condition.TRIGGERED, TIF_GTC
        target.timestamp_ms = outcome.time_ns // publish.NS_PER_MS


@inner
def _type_of(outcome):
    """The row of an order's type. A stop buys above its trigger price and sells below it."""
    row = TYPE_MARKET
    if outcome.done != Condition.NONE:
        is_stop = (outcome.side == Side.BUY) == (outcome.done == Condition.ABOVE)
        row = TYPE_STOP if is_stop else TYPE_TAKE_PROFIT
    return row + (outcome.tif < Tif.MARKET)


@inner
def _describe_slice(world, event):
    """Say of an order that a TWAP has placed it."""
    if event.order == world.of_slice[0]:
        event.order_type, event.tif = TYPE_SLICE, NONE_NAME


@inner
def _tell_order(world, slot, kind, outcome):
    """Tell something of an open order as it is now; return the event."""
    event, order = statements.tell(world, kind, outcome), world.state.rows.orders[slot]
    event.order, event.price, event.side = order.order, order.price, order.side
    event.quantity, event.original = order.quantity, order.original
    event.trigger_price, event.condition = order.trigger_price, order.condition
    event.timestamp_ms, event.flags = order.timestamp_ms, order.flags
    event.tif, event.order_type = order.tif, order.order_type
    copy_bytes(event.cloid, order.cloid)
    return event


@inner
def _on_opened(world, outcome):
    state = world.state
    publish.touch_market(state, outcome.market)
    publish.touch_account(state, outcome.account)
    slot = book.take_slot(state.rows)
    if slot == NO_SLOT:
        _no_room(world, outcome)
        return
    _describe(state.rows.orders[slot], outcome)
    state.rows.orders[slot].group = outcome.amount
    if not book.rest(state.rows, slot):
        book.give_back(state.rows, slot)
        _no_room(world, outcome)
        return
    _tell_order(world, slot, EventKind.STATUS, outcome).status = Status.OPEN
    _tell_order(world, slot, EventKind.NEW, outcome)


@inner
def _on_waiting(world, outcome):
    """A trigger order waits, apart from the book: its account lists it."""
    rows = world.state.rows
    publish.touch_account(world.state, outcome.account)
    slot = book.take_slot(rows)
    if slot == NO_SLOT:
        rows.heap[0].full += 1
        return
    _describe(rows.orders[slot], outcome)
    rows.orders[slot].group = outcome.amount
    book.wait_untriggered(rows, slot)
    _tell_order(world, slot, EventKind.STATUS, outcome).status = Status.OPEN


@inner
def _on_triggered(world, outcome):
    """It waits no more. What its order comes to follows, as if it were placed now."""
    rows = world.state.rows
    slot = index.find_order(rows.order_index, rows.orders, outcome.order)
    if slot == NO_SLOT:
        rows.heap[0].unknown += 1
        return
    publish.touch_account(world.state, outcome.account)
    event = statements.tell(world, EventKind.STATUS, outcome)
    _describe(event, outcome)
    event.status = Status.TRIGGERED
    book.leave(rows, slot)


@inner
def _no_room(world, outcome):
    """The book lacks an order from here on: say so."""
    world.state.rows.heap[0].full += 1
    publish.doubt(world.state, outcome.market, Stale.CAPACITY, statements.height(world), outcome.time_ns)


@inner
def _on_ended(world, outcome):
    if outcome.flags & Flag.CROSSED:
        event = statements.tell(world, EventKind.STATUS, outcome)
        _describe(event, outcome)
        _describe_slice(world, event)
        event.status = outcome.status
        history.end_order(world.state, event, False, world.ended)
        return
    state = world.state
    slot = index.find_order(state.rows.order_index, state.rows.orders, outcome.order)
    if slot == NO_SLOT:
        state.rows.heap[0].unknown += 1
    else:
        if state.rows.orders[slot].state == OrderState.RESTING:
            publish.touch_market(state, outcome.market)
        publish.touch_account(state, outcome.account)
        _end(world, slot, outcome.status, outcome)


@inner
def _end(world, slot, status, outcome):
    """Take an open order out of the book, if it is there, and its list; `status` is its last word."""
    event = _tell_order(world, slot, EventKind.STATUS, outcome)
    event.status = status
    history.end_order(world.state, event, False, world.ended)
    if world.state.rows.orders[slot].state == OrderState.RESTING:
        _tell_order(world, slot, EventKind.REMOVE, outcome)
    book.leave(world.state.rows, slot)


@inner
def _on_refused(world, outcome):
    event = statements.tell(world, EventKind.STATUS, outcome)
    _describe(event, outcome)
    _describe_slice(world, event)
    event.status = outcome.status
    history.end_order(world.state, event, True, world.ended)


# --- trades -------------------------------------------------------------------------------------------------


@inner
def _on_filled(world, outcome):
    """Keep one side of a trade: first the maker's, whose order changes; the taker's makes it whole."""
    state, height = world.state, statements.height(world)
    publish.touch_market(state, outcome.market)
    publish.touch_account(state, outcome.account)
    role = TAKER if outcome.flags & Flag.CROSSED else MAKER
    _fill(world, world.pair[role], outcome)
    if outcome.code != Method.NONE:
        _liquidates(world, world.pair[role], outcome)
    position = history.keep_fill(state, world.pair, role)
    event = statements.tell(world, EventKind.FILL, outcome)
    history.point(event, EventKind.FILL, world.pair[role], position, height, outcome.time_ns)
    state.rows.heap[0].fills += 1
    if outcome.code > Method.MARKET:  # it has passed between two: no order, no trade
        return
    if role == MAKER:
        _execute(world, outcome)
        return
    position = history.keep_trade(state, world.pair[MAKER], world.pair[TAKER], world.trade)
    trade = world.trade[0]
    event = publish.emit(state)
    history.point(event, EventKind.TRADE, trade, position, height, outcome.time_ns)
    state.rows.heap[0].trades += 1
    world.contracts[trade.market].trade_count += 1
    candles.take_trade(
        world.candle_heads, world.candles, trade.market, trade.time_ms, trade.price, trade.quantity
    )


@inner
def _execute(world, outcome):
    """A resting order has been executed: it shrinks, or is filled and leaves."""
    state = world.state
    slot = index.find_order(state.rows.order_index, state.rows.orders, outcome.order)
    if slot == NO_SLOT:
        state.rows.heap[0].unknown += 1
        return
    before = state.rows.orders[slot].quantity
    if outcome.done:
        book.resize(state.rows, slot, 0)
        _end(world, slot, Status.FILLED, outcome)
    else:
        book.resize(state.rows, slot, outcome.original)
        _tell_order(world, slot, EventKind.UPDATE, outcome).original = before


@inner
def _fill(world, fill, outcome):
    fill.height, fill.time_ms = statements.height(world), outcome.time_ns // publish.NS_PER_MS
    fill.order, fill.trade = outcome.order, outcome.trade
    fill.price, fill.quantity = outcome.price, outcome.quantity
    fill.start_position = outcome.start
    fill.closed_pnl, fill.fee = outcome.amount * MONEY_UNIT, outcome.fee * MONEY_UNIT
    if outcome.flags & Flag.CROSSED and outcome.order == world.of_slice[0]:
        fill.twap = world.of_slice[1]
        clear_bytes(fill.hash)  # no action of a client's: it has no hash
    else:
        fill.twap = NO_TWAP
        statements.name_action(fill.hash, fill.height, outcome.sequence)
    copy_bytes(fill.cloid, outcome.text)
    copy_bytes(fill.address, world.state.rows.accounts[outcome.account].address)
    fill.market, fill.account, fill.side = outcome.market, outcome.account, outcome.side
    fill.flags = outcome.flags & OF_FILL
    fill.direction = _direction(outcome.side, outcome.start, outcome.quantity)
    fill.liquidation_price, fill.liquidation_method = 0, 0
    clear_bytes(fill.liquidated)
    fill.fee_token = USDC


@inner
def _liquidates(world, fill, outcome):
    """Say of a fill whose position was taken, and how."""
    crossed = outcome.flags & Flag.CROSSED != 0
    whose = outcome.account if crossed else outcome.other
    copy_bytes(fill.liquidated, world.state.rows.accounts[whose].address)
    fill.flags |= Flag.LIQUIDATION
    fill.liquidation_price = world.contracts[outcome.market].mark
    fill.liquidation_method = METHOD_MARKET if outcome.code == Method.MARKET else METHOD_BACKSTOP
    if outcome.code == Method.DELEVERAGING:
        fill.direction = DELEVERAGED
    elif crossed:
        row = world.position_rows[outcome.account * len(world.state.rows.markets) + outcome.market] - 1
        is_cross = row == NO_SLOT or world.positions[row].is_cross
        is_short = outcome.side == Side.BUY
        fill.direction = (LIQUIDATED_CROSS if is_cross else LIQUIDATED_ISOLATED) + is_short


@inner
def _direction(side, start, quantity):
    """Return the text that says what a fill did to a position of `start`."""
    if side == Side.BUY:
        if start >= 0:
            return OPEN_LONG
        return CLOSE_SHORT if quantity <= -start else SHORT_TO_LONG
    if start <= 0:
        return OPEN_SHORT
    return CLOSE_LONG if quantity <= start else LONG_TO_SHORT


# --- markets and accounts -----------------------------------------------------------------------------------


@inner
def _on_market(world, outcome):
    status, market = world.state.rows.status[0], world.state.rows.markets[outcome.market]
    publish.touch_market(world.state, outcome.market)
    if outcome.market == status.market_count:
        for i in range(len(outcome.text)):
            market.name[i] = outcome.text[i]
        market.kind, market.stale, market.size_decimals = MarketKind.PERP, Stale.FRESH, outcome.order
        market.price_places, market.quantity_places = PERP_DECIMALS - outcome.order, outcome.order
        contract = world.contracts[outcome.market]
        contract.mark, contract.tier_count, contract.tier_leverage[0] = outcome.price, 1, outcome.trade
        atomics.store_release(status, "market_count", status.market_count + 1)
    contract = world.contracts[outcome.market]
    contract.max_leverage = outcome.trade
    contract.maker_rate, contract.taker_rate = outcome.original, outcome.placed_ms
    contract.reference_price, contract.open_interest = outcome.price, outcome.quantity
    contract.interest_cap, contract.price_band = outcome.amount, outcome.start
    contract.mark_step, contract.impact_notional = outcome.fee, outcome.other
    contract.mode, contract.oracle_state = outcome.code, outcome.done


@inner
def _on_prices(world, outcome):
    publish.touch_market(world.state, outcome.market)
    contract = world.contracts[outcome.market]
    contract.mark, contract.oracle, contract.external = outcome.price, outcome.quantity, outcome.original
    contract.oracle_ms, contract.funding_rate = outcome.placed_ms, outcome.trade
    contract.premium, contract.samples = outcome.amount, outcome.order
    contract.impact_bid, contract.impact_ask = outcome.start, outcome.fee


@inner
def _on_tier(world, outcome):
    publish.touch_market(world.state, outcome.market)
    contract, tier = world.contracts[outcome.market], outcome.order
    contract.tier_count = tier + 1
    contract.tier_from[tier], contract.tier_leverage[tier] = outcome.price, outcome.trade
    contract.tier_deduction[tier] = outcome.amount


@inner
def _on_rate(world, outcome):
    """Keep an hour of a market's funding."""
    publish.touch_market(world.state, outcome.market)
    contract, kept = world.contracts[outcome.market], len(world.rates) // len(world.contracts)
    rate = world.rates[outcome.market * kept + contract.rate_count % kept]
    rate.time_ms = outcome.time_ns // publish.NS_PER_MS
    rate.rate, rate.premium, rate.price = outcome.trade, outcome.amount, outcome.price
    rate.samples = outcome.order
    contract.rate_count += 1
    contract.samples = 0  # of the hour that begins


def warm() -> None:
    """Compile the entry point."""
    world = allocate(capacity_for(TINY, candles_kept=2))
    project(world, np.zeros(1, OUTCOME), 0)
