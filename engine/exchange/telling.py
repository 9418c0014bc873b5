"""What is told of orders: of one that a command asks for, by that command; of an open one, by its row."""

import numpy as np

from engine.exchange.outcomes import answer, emit
from engine.exchange.prices import best_price
from engine.exchange.records import Kind, Role
from shm.bulk import copy_bytes
from shm.codes import NAMES, REFUSED_AS, Ack, Ask, Flag, Refusal, Side, Status
from shm.kernel import inner

CANCELED = int(Status.CANCELED)
MARGIN_CANCELED = NAMES.index("marginCanceled")
SELF_TRADE = NAMES.index("selfTradeCanceled")
REDUCE_ONLY_CANCELED = NAMES.index("reduceOnlyCanceled")
SCHEDULED = NAMES.index("scheduledCancel")
REFUSED_STATUS = np.array(  # rows of NAMES, by Refusal
    [NAMES.index(REFUSED_AS.get(code, "rejected")) for code in range(max(Refusal) + 1)], np.uint16
)


@inner
def forget_order(state):
    """The order under way is what its command says, and belongs to nothing."""
    heap = state.heap[0]
    heap.condition, heap.trigger_price, heap.group, heap.role, heap.is_of_position = 0, 0, 0, Role.ALONE, 0


@inner
def tell(state, kind, command, account, oid):
    """An outcome about the order that a command asks for."""
    heap, outcome = state.heap[0], emit(state, kind, account, command.market)
    outcome.order, outcome.price, outcome.side, outcome.tif = oid, command.price, command.side, command.tif
    outcome.placed_ms, outcome.flags = command.time_ns // 1_000_000, flags_of(state, command)
    outcome.start, outcome.done, outcome.amount = heap.trigger_price, heap.condition, heap.group
    if command.flags & Ask.HAS_CLOID:
        copy_bytes(outcome.text, command.text)
    return outcome


@inner
def flags_of(state, command):
    flags = Flag.REDUCE_ONLY if command.flags & Ask.REDUCE_ONLY else 0
    flags |= Flag.HAS_CLOID if command.flags & Ask.HAS_CLOID else 0
    flags |= Flag.IS_TRIGGER if command.flags & Ask.IS_TRIGGER else 0
    return flags | (Flag.POSITION_TPSL if state.heap[0].is_of_position else 0)


@inner
def tell_opened(state, command, account, oid, remaining, original):
    outcome = tell(state, Kind.OPENED, command, account, oid)
    outcome.quantity, outcome.original = remaining, original


@inner
def tell_taken(state, command, account, oid, quantity, remaining):
    """Tell the end of an order that was filled, at least in part, and does not rest."""
    outcome = tell(state, Kind.ENDED, command, account, oid)
    outcome.quantity, outcome.original, outcome.flags = remaining, quantity, outcome.flags | Flag.CROSSED
    outcome.status = Status.FILLED
    if remaining > 0:
        outcome.status = MARGIN_CANCELED if state.heap[0].is_stopped else CANCELED


@inner
def refuse(state, command, account, oid, code):
    """Tell that the order never was, and answer so."""
    outcome = tell(state, Kind.REFUSED, command, account, oid)
    outcome.quantity, outcome.original, outcome.code = command.quantity, command.quantity, code
    outcome.status = REFUSED_STATUS[outcome.code]
    bid, ask = 0, 0
    if code == Refusal.POST_ONLY:
        bid = best_price(state, command.market, Side.BUY)
        ask = best_price(state, command.market, Side.SELL)
    answer(state, command, Ack.REFUSED, code, oid, bid, ask)


@inner
def end_refused(state, command, account, oid, code):
    """Tell that an order that has been told of comes to nothing."""
    outcome = tell(state, Kind.ENDED, command, account, oid)
    outcome.quantity, outcome.original = command.quantity, command.quantity
    outcome.flags |= Flag.CROSSED
    outcome.status = REFUSED_STATUS[code]


@inner
def tell_open(state, kind, slot):
    """An outcome about the open order in `slot`."""
    order, facts = state.orders[slot], state.facts[slot]
    outcome = emit(state, kind, order.account, order.market)
    outcome.order, outcome.price, outcome.side, outcome.tif = order.order, order.price, order.side, order.tif
    outcome.placed_ms, outcome.flags = facts.placed_ms, order.flags
    outcome.start, outcome.done, outcome.amount = facts.trigger_price, order.condition, facts.group
    if order.flags & Flag.HAS_CLOID:
        copy_bytes(outcome.text, facts.cloid)
    return outcome


@inner
def tell_ended(state, slot, status):
    order, outcome = state.orders[slot], tell_open(state, Kind.ENDED, slot)
    outcome.price, outcome.quantity, outcome.original = order.price, order.quantity, order.original
    outcome.status = status
