"""Orders in slices in the naive exchange."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from engine.exchange.records import Kind
from shm.codes import NAMES, REFUSED_AS, Ask, Refusal, Side, Tif, Twap
from tests.exchange import margin, prices
from tests.exchange.things import MICRO, Account, Market, Order, Refused, ceil_div, trade_id

QUANTITY_MAX = 10**15
RUNNING_MAX, OF_ACCOUNT_MAX, SLICES_MAX = 1000, 20, 64  # the last: in a block
SLICE_MS = 30_000


@dataclass
class Running:
    number: int
    account: Account
    market: Market
    side: int
    quantity: int
    minutes: int
    reduce: bool
    random: bool
    began_ms: int
    executed: int = 0
    notional: int = 0
    slices: int = 0

    def wanted(self):
        """How much the slice that is due is to execute."""
        count = 2 * self.minutes
        most = 3 * ceil(Fraction(self.quantity, count))
        if self.slices >= count:
            return min(self.quantity - self.executed, most)
        parts = Fraction(self.slices)
        if self.random:
            parts -= Fraction(trade_id(self.number, self.slices) % 400, 1000)
        return min(floor(self.quantity * parts / count) - self.executed, most)


class Twaps:
    """A part of Model."""

    def _twap(self, c, account):
        market = self._market(c.market, Refusal.ORDER_MARKET)
        position, reduce = account.position(market), bool(c.flags & Ask.REDUCE_ONLY)
        sign = 1 if c.side == Side.BUY else -1
        if self.is_killed or account.is_killed:
            raise Refused(Refusal.KILLED)
        if prices.is_closed(market):
            raise Refused(Refusal.CLOSED)
        if not 0 < c.quantity <= QUANTITY_MAX:
            raise Refused(Refusal.SIZE)
        if not 5 <= c.amount <= 1440:
            raise Refused(Refusal.TWAP_MINUTES)
        if c.quantity * market.mark > market.value_max(Tif.GTC):
            raise Refused(Refusal.VALUE_MAX)
        if reduce and position.size * sign >= 0:
            raise Refused(Refusal.REDUCE_ONLY)
        if c.quantity * market.mark < 10 * MICRO * c.amount:
            raise Refused(Refusal.TWAP_VALUE)
        if sum(each.account is account for each in self.twaps) >= OF_ACCOUNT_MAX:
            raise Refused(Refusal.OPEN_ORDERS)
        if len(self.twaps) >= RUNNING_MAX:
            raise Refused(Refusal.ORDERS_FULL)
        self.twap_ids += 1
        self.oid = self.twap_ids
        is_random = bool(c.flags & Ask.RANDOMIZE)
        twap = Running(
            self.oid, account, market, c.side, c.quantity, c.amount, reduce, is_random, self.now_ms
        )
        self.twaps.append(twap)
        self._tell_twap(twap, Twap.ACTIVATED)

    def _twap_cancel(self, c, account):
        market = self._market(c.market, Refusal.ORDER_MARKET)
        for twap in self.twaps:
            if (twap.number, twap.account, twap.market) == (c.order, account, market):
                self.oid = twap.number
                return self._end_twap(twap, Twap.TERMINATED)
        raise Refused(Refusal.TWAP_GONE)

    def _end_twap(self, twap, status):
        self.twaps = [each for each in self.twaps if each is not twap]
        self._tell_twap(twap, status)

    def _tell_twap(self, t, status):
        told = (t.number, t.quantity, t.executed, t.notional, t.began_ms, t.minutes, t.random)
        self._tell(Kind.TWAP, *told, t.account.row, t.market.number, t.side, int(t.reduce), status)

    def _go_on_twaps(self):
        placed = 0
        for twap in list(self.twaps):
            due = (self.now_ms - twap.began_ms) // SLICE_MS + 1
            if due > twap.slices:
                if placed == SLICES_MAX:
                    return
                placed, twap.slices = placed + 1, due
                self._slice(twap)
                if twap.executed == twap.quantity or due > 2 * twap.minutes:
                    self._end_twap(twap, Twap.FINISHED)
                elif self._cannot_go_on(twap):
                    self._end_twap(twap, Twap.TERMINATED)

    def _cannot_go_on(self, twap):
        return (
            self.is_killed
            or twap.account.is_killed
            or (twap.reduce and self._order_of(twap, 1).closable == 0)
        )

    def _order_of(self, twap, quantity):
        mark, sign = twap.market.mark, 1 if twap.side == Side.BUY else -1
        price = mark + sign * floor(Fraction(mark * 3, 100))
        return Order(
            self.oids + 1, twap.account, twap.market, twap.side, price, quantity, quantity, self.now_ms,
            Tif.IOC, None, twap.reduce,
        )  # fmt: skip

    def _slice(self, twap):
        account, market, quantity = twap.account, twap.market, twap.wanted()
        if twap.reduce:
            quantity = min(quantity, self._order_of(twap, 1).closable)
        order = self._order_of(twap, quantity)
        if quantity <= 0 or prices.is_closed(market) or self.is_killed or account.is_killed:
            return
        if self._reached(order) is None or not (twap.reduce or self._bears_slice(order)):
            return
        self.oids += 1
        self._tell(
            Kind.SLICE, order.oid, order.price, quantity, quantity, order.placed_ms, account.row,
            market.number, order.side, order.flags, order.tif, twap.number,
        )  # fmt: skip
        _, code = self._execute(order)
        if code:
            order.quantity = order.original = quantity
            self._end(order, NAMES.index(REFUSED_AS.get(code, "rejected")), crossed=True)
        twap.executed += self.filled
        twap.notional += self.notional
        if self.filled:
            self._tell_twap(twap, Twap.ACTIVATED)

    def _bears_slice(self, order):
        position, value = order.account.position(order.market), order.price * order.quantity
        try:
            self._judge_interest(order, position)
        except Refused:
            return False
        fee = ceil_div(value * max(order.market.taker_rate, 0), MICRO)
        return not margin.bears_order(
            self.whole(order.account), order.market.number, order.side, value, fee, None
        )
