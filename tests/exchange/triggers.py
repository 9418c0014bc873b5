"""Trigger orders and their groups in the naive exchange."""

from engine.exchange.records import Kind, Role
from shm.codes import NAMES, REFUSED_AS, Ack, Ask, Condition, Grouping, Refusal, Tif
from shm.codes import Command as Kinds
from tests.exchange import prices
from tests.exchange.things import MICRO, Refused

QUANTITY_MAX = 10**15
TRIGGERED_MAX = 256  # in a block
REDUCE_ONLY, SIBLING = (NAMES.index(text) for text in ("reduceOnlyCanceled", "siblingFilledCanceled"))


class Triggers:
    """A part of Model."""

    parent = None  # the first order of the action under way, while others may wait for its fill
    parent_is_filled = False

    def begin_action(self, c):
        if c.place == 0:
            self.parent = None

    def group(self, c, order, old):
        """What an order is to others, and to a position."""
        if c.flags & Ask.IS_TRIGGER:
            order.waits, order.trigger_price = True, c.trigger_price
            order.condition = Condition.ABOVE if c.condition == Condition.ABOVE else Condition.BELOW
        closes = order.waits and order.reduce
        if c.kind == Kinds.MODIFY:
            if old is not None:
                self._inherit(order, old)
        elif c.grouping == Grouping.POSITION:
            order.of_position = True
            if not closes:
                raise Refused(Refusal.GROUPING)
        elif c.grouping == Grouping.NORMAL and c.place == 0:
            if order.waits or order.reduce:
                raise Refused(Refusal.GROUPING)
            order.group = order.oid
        elif c.grouping == Grouping.NORMAL:
            self._join(c, order, closes)
        elif c.grouping != Grouping.NONE:
            raise Refused(Refusal.GROUPING)

    def _join(self, c, order, closes):
        parent = self.parent
        if not closes or c.place > 2:
            raise Refused(Refusal.GROUPING)
        if parent is None:
            raise Refused(Refusal.PARENT)
        if order.market is not parent.market or order.side == parent.side:
            raise Refused(Refusal.GROUPING)
        order.group = parent.group
        order.role = Role.CHILD if self.parent_is_filled else Role.UNBORN

    def _inherit(self, order, old):
        same = (order.market, order.side, order.waits) == (old.market, old.side, old.waits)
        if same and order.waits and order.reduce and old.reduce:
            order.group, order.role, order.of_position = old.group, old.role, old.of_position
        elif same and old.role == Role.PARENT and not order.reduce:
            order.group, order.role = old.group, Role.PARENT

    def note_parent(self, c, order, ack, is_filled):
        if c.kind == Kinds.ORDER and order.group == order.oid and (ack == Ack.RESTING or is_filled):
            self.parent, self.parent_is_filled = order, is_filled

    def _children(self, account, group):
        return [each for each in account.orders.values() if each.group == group and each.role == Role.UNBORN]

    def release_children(self, account, group):
        for child in self._children(account, group):
            if child.closable == 0:
                self._end(child, REDUCE_ONLY)
            else:
                child.role = Role.CHILD
                child.market.waiting[child.oid] = child

    def end_children(self, account, group, status):
        for child in self._children(account, group):
            self._end(child, status)

    def judge_trigger(self, order, old):
        account, market = order.account, order.market
        is_whole = order.quantity == 0 and order.of_position
        if not 0 < order.quantity <= QUANTITY_MAX and not is_whole:
            raise Refused(Refusal.SIZE)
        if not (market.is_legal(order.price) and market.is_legal(order.trigger_price)):
            raise Refused(Refusal.PRICE)
        if order.price * max(order.quantity, 1) > market.value_max(order.tif):
            raise Refused(Refusal.VALUE_MAX)
        if order.reduce and order.role != Role.UNBORN and order.closable == 0:
            raise Refused(Refusal.REDUCE_ONLY)
        if not order.reduce and order.price * order.quantity < 10 * MICRO:
            raise Refused(Refusal.VALUE_MIN)
        if len(account.orders) - (old is not None) >= 1000:
            raise Refused(Refusal.OPEN_ORDERS)
        self.judge_place(order, old)
        reference = self._parent_of(order).price if order.role == Role.UNBORN else market.mark
        if order.tif not in (Tif.GTC, Tif.MARKET) or is_reached(order, reference):
            raise Refused(Refusal.TRIGGER)

    def _parent_of(self, order):
        mine = [each for each in order.account.orders.values() if each.group == order.group]
        return next((each for each in mine if each.role == Role.PARENT), self.parent)

    def wait(self, c, order):
        self._keep(order)
        unborn = order.role == Role.UNBORN
        if not unborn:
            order.market.waiting[order.oid] = order
        elif c.kind == Kinds.ORDER:
            self.parent.role = Role.PARENT
        self._tell(
            Kind.WAITING, order.oid, order.price, order.quantity, order.original, order.placed_ms,
            order.text, order.account.row, order.market.number, order.side, order.flags, order.tif,
            order.trigger_price, order.condition, order.group, unborn,
        )  # fmt: skip
        if unborn:
            return Ack.WAITS_FOR_FILL
        return Ack.WAITS_FOR_TRIGGER if order.role == Role.CHILD or order.of_position else Ack.RESTING

    # --- when the mark is there -----------------------------------------------------------------------

    def _trigger_reached(self):
        fired = 0
        for market in self.markets:
            while fired < TRIGGERED_MAX and not prices.is_closed(market) and (order := reached(market)):
                fired += 1
                self._trigger(order)

    def _trigger(self, order):
        group, was_child = order.group, order.role == Role.CHILD
        self._forget(order)
        order.waits, order.group, order.role, order.placed_ms = False, 0, Role.ALONE, self.now_ms
        asked = order.quantity or order.closable
        order.quantity = order.original = asked
        self._tell(
            Kind.TRIGGERED, order.oid, order.price, asked, asked, order.placed_ms, order.text,
            order.account.row, order.market.number, order.side, order.flags, order.tif,
            order.trigger_price, order.condition, order.group,
        )  # fmt: skip
        for other in list(order.account.orders.values()):
            if was_child and other.group == group and other.role == Role.CHILD:
                self._end(other, SIBLING)
        try:
            self._judge(order, None)
            _, code = self._execute(order)
        except Refused as why:
            code = why.code
        if code:
            order.quantity = order.original = asked
            self._end(order, NAMES.index(REFUSED_AS.get(code, "rejected")), crossed=True)


def is_reached(order, price):
    if order.condition == Condition.ABOVE:
        return price >= order.trigger_price
    return price <= order.trigger_price


def reached(market):
    """The next order that the mark has reached, or None: ABOVE first, the nearest to where it was."""
    for condition, sign in ((Condition.ABOVE, 1), (Condition.BELOW, -1)):
        there = [each for each in market.waiting.values() if each.condition == condition]
        there = [each for each in there if is_reached(each, market.mark)]
        if there:
            return min(there, key=lambda order: sign * order.trigger_price)
    return None
