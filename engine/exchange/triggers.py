"""Trigger orders and their groups: how they come to wait, and what becomes of them when the mark is there.

A parent's children wait for its fill, and then, like all others, for the mark (matching.end and what stands
there). The mark triggers them at the end of a block, as orders that are judged then and have their old oid.
"""

from engine import book
from engine.exchange import judging, liquidation, margin, matching, shelf, telling
from engine.exchange.outcomes import answer
from engine.exchange.prices import is_open
from engine.exchange.records import Kind, Role
from shm import index
from shm.bulk import copy_bytes
from shm.codes import NAMES, Ack, Ask, Command, Condition, Flag, Grouping, Refusal
from shm.kernel import apart, inner
from shm.layout import NO_SLOT

CHILDREN_MAX = 2
TRIGGERED_A_BLOCK = 256
SIBLING = NAMES.index("siblingFilledCanceled")


@inner
def begin(state, command):
    """Before an ORDER or a MODIFY: what it is by its command alone."""
    heap = state.heap[0]
    telling.forget_order(state)
    if command.place == 0:
        heap.parent, heap.parent_is_filled = 0, 0
    if command.flags & Ask.IS_TRIGGER:
        heap.trigger_price = command.trigger_price
        heap.condition = Condition.ABOVE if command.condition == Condition.ABOVE else Condition.BELOW


@inner
def group(state, command, oid):
    """What an ORDER is by the grouping of its action. Return why it cannot be."""
    heap, grouping = state.heap[0], command.grouping
    if grouping == Grouping.NONE:
        return Refusal.NONE
    closes = command.flags & Ask.IS_TRIGGER != 0 and command.flags & Ask.REDUCE_ONLY != 0
    if grouping == Grouping.POSITION:
        heap.is_of_position = 1
        return Refusal.NONE if closes else Refusal.GROUPING
    if grouping != Grouping.NORMAL:
        return Refusal.GROUPING
    if command.place == 0:
        if command.flags & (Ask.IS_TRIGGER | Ask.REDUCE_ONLY):
            return Refusal.GROUPING
        heap.group = oid
        heap.parent_market, heap.parent_side, heap.parent_price = command.market, command.side, command.price
        return Refusal.NONE
    if not closes or command.place > CHILDREN_MAX:
        return Refusal.GROUPING
    if heap.parent == 0:
        return Refusal.PARENT
    if command.market != heap.parent_market or command.side == heap.parent_side:
        return Refusal.GROUPING
    heap.group, heap.role = heap.parent, Role.CHILD if heap.parent_is_filled else Role.UNBORN
    return Refusal.NONE


@inner
def note_parent(state, command, oid, ack, remaining):
    """What became of an action's first order, for those that follow."""
    heap = state.heap[0]
    if heap.group == oid and command.place == 0:
        heap.parent_is_filled = ack == Ack.FILLED and (remaining == 0 or heap.is_stopped)
        heap.parent = oid if ack == Ack.RESTING or heap.parent_is_filled else 0


@inner
def inherit(state, command, account, old):
    """A MODIFY's new order is in its group what the old one was, if it is of the same kind and side."""
    heap, order = state.heap[0], state.orders[old]
    if order.market != command.market or order.side != command.side:
        return
    reduces, triggers = command.flags & Ask.REDUCE_ONLY != 0, command.flags & Ask.IS_TRIGGER != 0
    if order.flags & Flag.IS_TRIGGER:
        if triggers and reduces and order.flags & Flag.REDUCE_ONLY:
            heap.group, heap.role = state.facts[old].group, order.role
            heap.is_of_position = order.flags & Flag.POSITION_TPSL != 0
            if order.role == Role.UNBORN:
                first = state.accounts[account].first_order
                heap.parent_price = state.orders[matching.member(state, first, heap.group, Role.PARENT)].price
    elif order.role == Role.PARENT and not triggers and not reduces:
        heap.group, heap.role = state.facts[old].group, Role.PARENT


@inner
def hand_on(state, account, group, ack, remaining):
    """A parent was replaced: its children are the new order's, or, if that does not rest, free or ended."""
    if ack == Ack.RESTING:
        return
    if ack == Ack.FILLED and (remaining == 0 or state.heap[0].is_stopped):
        matching.release_children(state, account, group)
    else:
        matching.end_members(state, account, group, Role.UNBORN, telling.CANCELED)


@inner
def place(state, command, account, oid, quantity):
    """Let the trigger order, which was judged, wait, and answer; return its Ack, and what remains."""
    heap = state.heap[0]
    slot = matching.take(state, command, account, oid, quantity, quantity)
    book.wait_untriggered(state, slot)
    matching.enter(state, slot)
    ack = Ack.RESTING
    if heap.role == Role.UNBORN:
        ack = Ack.WAITS_FOR_FILL
        if command.kind == Command.ORDER:
            state.orders[index.find_order(state.order_index, state.orders, heap.parent)].role = Role.PARENT
    else:
        shelf.put(state, slot)
        if heap.role == Role.CHILD or heap.is_of_position:
            ack = Ack.WAITS_FOR_TRIGGER
    outcome = telling.tell(state, Kind.WAITING, command, account, oid)
    outcome.quantity, outcome.original, outcome.code = quantity, quantity, heap.role == Role.UNBORN
    answer(state, command, ack, Refusal.NONE, oid, 0, 0)
    return ack, quantity


# --- when the mark is there ---------------------------------------------------------------------------------


@apart
def fire(state):
    """At the end of a block: let those go that the mark has reached, in each market that is open."""
    heap, fired = state.heap[0], 0
    heap.triggers_left = 0
    for market in range(state.status[0].market_count):
        slot = shelf.reached(state, market) if is_open(state.markets[market]) else NO_SLOT
        while slot != NO_SLOT:
            if fired == TRIGGERED_A_BLOCK or liquidation.room(state) < 4 * state.status[0].order_count + 64:
                heap.triggers_left = 1
                return
            fired += 1
            _fire(state, slot)
            slot = shelf.reached(state, market)


@inner
def _fire(state, slot):
    heap, order, facts, own = state.heap[0], state.orders[slot], state.facts[slot], state.own[0]
    account, oid, group, is_child = order.account, order.order, facts.group, order.role == Role.CHILD
    own.market, own.side, own.price, own.tif = order.market, order.side, order.price, order.tif
    own.quantity, own.time_ns = order.quantity, heap.time_ns
    own.flags = Ask.REDUCE_ONLY if order.flags & Flag.REDUCE_ONLY else 0
    if order.flags & Flag.HAS_CLOID:
        own.flags |= Ask.HAS_CLOID
        copy_bytes(own.text, facts.cloid)
    if facts.builder_fee > 0:
        own.flags |= Ask.HAS_BUILDER
        own.amount = facts.builder_fee
        copy_bytes(own.builder, facts.builder)
    heap.condition, heap.trigger_price, heap.group, heap.role = order.condition, facts.trigger_price, 0, 0
    heap.is_of_position = order.flags & Flag.POSITION_TPSL != 0
    if own.quantity == 0:
        position = state.positions[margin.position_of(state, account, own.market)]
        own.quantity = judging.closable_of(position.size, own.side)
    outcome = telling.tell(state, Kind.TRIGGERED, own, account, oid)
    outcome.quantity, outcome.original = own.quantity, own.quantity
    matching.leave(state, slot)
    if is_child:
        matching.end_members(state, account, group, Role.CHILD, SIBLING)
    code, quantity = judging.judge(state, own, account, NO_SLOT)
    ack = Ack.REFUSED
    if code == Refusal.NONE:
        ack, code, _ = matching.execute(state, own, account, oid, quantity)
    if ack == Ack.REFUSED:
        telling.end_refused(state, own, account, oid, code)
