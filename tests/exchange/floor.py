"""Orders in the naive exchange: judged, matched, at rest, ended."""

from engine.exchange.records import Kind, Role
from engine.exchange.state import FEE_ADDRESS
from shm.codes import NAMES, REFUSED_AS, Ack, Ask, Flag, Refusal, Side, Status, Tif
from shm.codes import Command as Kinds
from tests.exchange import margin, prices
from tests.exchange.liquidation import MARGIN_CANCELED, may_go_on
from tests.exchange.things import MICRO, Order, Refused, ceil_div, fees_of, trade_id

QUANTITY_MAX = 10**15
VALUE_MIN = 10 * MICRO
CANCELED, SELF_TRADE, REDUCE_ONLY = (
    NAMES.index(text) for text in ("canceled", "selfTradeCanceled", "reduceOnlyCanceled")
)


class Floor:
    """A part of Model."""

    def _end(self, order, status, crossed=False):
        """An open order is no more; or (`crossed`) what is left of one that never rested."""
        if not crossed:
            self._forget(order)
        self._tell(
            Kind.ENDED, order.oid, order.price, order.quantity, order.original, order.placed_ms, order.text,
            order.account.row, order.market.number, status, order.side,
            order.flags + Flag.CROSSED * crossed, order.tif,
            order.trigger_price, order.condition, order.group,
        )  # fmt: skip
        if order.role == Role.PARENT and not crossed:
            if status == MARGIN_CANCELED and order.quantity < order.original:
                self.release_children(order.account, order.group)
            else:
                self.end_children(order.account, order.group, status)

    def _keep(self, order):
        self.open[order.oid] = order.account.orders[order.oid] = order
        if not order.waits:
            order.market.sides[order.side][order.oid] = order

    def _forget(self, order):
        del self.open[order.oid], order.account.orders[order.oid]
        (order.market.waiting if order.waits else order.market.sides[order.side]).pop(order.oid, None)

    def _end_all(self, account, status):
        while account.orders:
            self._end(next(iter(account.orders.values())), status)

    def _cancel_all(self, c, account):
        self.filled = len(account.orders)
        self._end_all(account, CANCELED)

    def _find(self, account, c, by_cloid):
        for order in account.orders.values():
            if (order.cloid == c.of) if by_cloid else (order.oid == c.order):
                return order
        return None

    def _cancel(self, c, account):
        market = self._market(c.market, Refusal.ORDER_MARKET)
        order = self._find(account, c, c.kind == Kinds.CANCEL_CLOID)
        if order is None or order.market is not market:
            raise Refused(Refusal.GONE)
        self.oid = order.oid
        self._end(order, CANCELED)

    def _modify(self, c, account):
        self._market(c.market, Refusal.ORDER_MARKET)
        old = self._find(account, c, c.flags & Ask.BY_CLOID)
        if old is None and not c.flags & Ask.ALWAYS_PLACE:
            raise Refused(Refusal.MODIFY_GONE)
        return self._order(c, account, old)

    def _order(self, c, account, old=None):
        """Place an order, in the place of `old` if there is one; return what its ack says."""
        self.begin_action(c)
        market = self._market(c.market, Refusal.ORDER_MARKET)
        self.oids += 1
        self.oid = self.oids
        order = Order(
            self.oid, account, market, c.side, c.price, c.quantity, c.quantity, self.now_ms, c.tif,
            c.text if c.flags & Ask.HAS_CLOID else None, bool(c.flags & Ask.REDUCE_ONLY),
        )  # fmt: skip
        try:
            self.group(c, order, old)
            self._judge(order, old)
        except Refused as why:
            raise self._refused(order, why) from None
        is_heir = old is not None and order.role == Role.PARENT
        if old is not None:
            old.role = Role.ALONE if is_heir else old.role
            self._end(old, CANCELED)
        if order.waits:
            return self.wait(c, order)
        ack, code = self._execute(order)
        why = self._refused(order, Refused(code)) if code else None
        is_filled = ack == Ack.FILLED and (order.quantity == 0 or order.is_stopped)
        if is_heir and is_filled:
            self.release_children(account, order.group)
        elif is_heir and ack != Ack.RESTING:
            self.end_children(account, order.group, CANCELED)
        self.note_parent(c, order, ack, is_filled)
        if why:
            raise why
        return ack

    def _execute(self, order):
        """Match an order that was judged; (its Ack, or why it is refused)."""
        self.filled = self.notional = 0
        self._match(order)
        if order.is_stopped:
            if self.filled == 0:
                return Ack.REFUSED, Refusal.MARGIN
            self._end(order, MARGIN_CANCELED, crossed=True)
            return Ack.FILLED, 0
        if order.quantity == 0:
            self._end(order, Status.FILLED, crossed=True)
            return Ack.FILLED, 0
        if order.tif in (Tif.GTC, Tif.ALO):
            self._keep(order)
            self._tell(
                Kind.OPENED, order.oid, order.price, order.quantity, order.original, order.placed_ms,
                order.text, order.account.row, order.market.number, order.side, order.flags, order.tif,
                order.trigger_price, order.condition, order.group,
            )  # fmt: skip
            return Ack.RESTING, 0
        if self.filled == 0:
            return Ack.REFUSED, Refusal.IOC
        self._end(order, CANCELED, crossed=True)
        return Ack.FILLED, 0

    def _refused(self, order, why):
        """Tell that the order never was; why, with the touch that it met."""
        status = NAMES.index(REFUSED_AS.get(why.code, "rejected"))
        self._tell(
            Kind.REFUSED, order.oid, order.price, order.text, order.account.row, order.market.number,
            status, order.side, order.flags, order.tif, why.code,
            order.trigger_price, order.condition, order.group,
        )  # fmt: skip
        touch = [order.market.best(side) if why.code == Refusal.POST_ONLY else None for side in Side]
        return Refused(why.code, *(best.price if best else 0 for best in touch))

    def _judge(self, order, old):
        """Raise Refused if the order may not be placed; a reduce-only one is cut to what it can reduce."""
        account, market, position = order.account, order.market, order.account.position(order.market)
        if self.is_killed or account.is_killed:
            raise Refused(Refusal.KILLED)
        if prices.is_closed(market):
            raise Refused(Refusal.CLOSED)
        if order.waits:
            return self.judge_trigger(order, old)
        if not 0 < order.quantity <= QUANTITY_MAX:
            raise Refused(Refusal.SIZE)
        if not market.is_legal(order.price):
            raise Refused(Refusal.PRICE)
        if order.price * order.quantity > market.value_max(order.tif):
            raise Refused(Refusal.VALUE_MAX)
        if order.reduce:
            if position.size * order.sign >= 0:
                raise Refused(Refusal.REDUCE_ONLY)
            order.quantity = order.original = min(order.quantity, abs(position.size))
        value = order.price * order.quantity
        if value < VALUE_MIN and not (order.reduce and order.quantity == abs(position.size)):
            raise Refused(Refusal.VALUE_MIN)
        near = market.oracle or market.reference
        if 1000 * abs(order.price - near) > market.price_band * near:
            raise Refused(Refusal.PRICE_FAR)
        if not order.reduce:
            self._judge_interest(order, position)
        others = [each for each in account.orders.values() if each is not old]
        if order.tif in (Tif.GTC, Tif.ALO):
            limit = min(5000, 1000 + account.volume // (5_000_000 * MICRO))
            if len(others) >= (1000 if order.reduce else limit):
                raise Refused(Refusal.OPEN_ORDERS)
        self.judge_place(order, old)
        self._judge_price(order, old)
        if not order.reduce:
            fee = ceil_div(value * max(market.taker_rate, 0), MICRO)
            whole = self.whole(account)
            if code := margin.bears_order(whole, market.number, order.side, value, fee, old):
                raise Refused(code)
        return None

    def judge_place(self, order, old):
        others = [each for each in order.account.orders.values() if each is not old]
        if order.cloid is not None and any(each.cloid == order.cloid for each in others):
            raise Refused(Refusal.CLOID)
        if len(self.open) - (old is not None) >= self.capacity.orders:
            raise Refused(Refusal.ORDERS_FULL)

    def _judge_interest(self, order, position):
        market, bid = order.market, order.market.best(Side.BUY)
        dearest = max(order.price, market.mark, market.oracle, bid.price if bid else 0)
        if (market.interest + order.quantity) * dearest > prices.VALUE_MAX:
            raise Refused(Refusal.INTEREST_FAST)
        if market.interest_cap and market.interest * market.mark >= market.interest_cap:
            closable = max(0, -order.sign * position.size)
            if order.quantity > closable:
                raise Refused(Refusal.INTEREST_FLIP if closable else Refusal.INTEREST_CAP)

    def _judge_price(self, order, old):
        """Whether it may meet what is on the other side; `old` has left the book before that."""
        sides = order.market.sides
        if old is not None and not old.waits:
            there = old.market.sides[old.side]
            before = dict(there)
            del there[old.oid]
            try:
                return self._judge_price(order, None)
            finally:
                there.clear()
                there.update(before)
        crosses = self._reached(order) is not None
        if order.tif == Tif.ALO and crosses:
            raise Refused(Refusal.POST_ONLY)
        if order.tif == Tif.MARKET and not sides[1 - order.side]:
            raise Refused(Refusal.LIQUIDITY)
        if order.tif in (Tif.IOC, Tif.MARKET) and not crosses:
            raise Refused(Refusal.IOC)
        return None

    def _reached(self, order):
        """The order that this one would meet first, or None."""
        best = order.market.best(1 - order.side)
        if order.method:
            return best
        return best if best and best.price * order.sign <= order.price * order.sign else None

    def _match(self, order):
        while order.quantity > 0 and (maker := self._reached(order)):
            size = maker.account.position(order.market).size
            closable = max(0, -maker.sign * size) if maker.reduce else maker.quantity
            if maker.account is order.account:
                self._end(maker, SELF_TRADE)
            elif closable == 0:
                self._end(maker, REDUCE_ONLY)
            else:
                quantity = min(order.quantity, maker.quantity, closable)
                if not self._bears(maker, order, quantity):
                    self._end(maker, MARGIN_CANCELED)
                elif not self._bears(order, maker, quantity):
                    order.is_stopped = True
                    return
                else:
                    self._trade(order, maker, quantity)

    def _bears(self, order, other, quantity):
        """Whether who placed an order can bear that so much of it is filled against another."""
        maker, is_maker = (order, True) if order.oid in self.open else (other, False)
        if order.method:
            return may_go_on(self, order, maker.price, quantity)
        fee = fees_of(order.market, maker.price * quantity)[0 if is_maker else 1]
        whole, number = self.whole(order.account), order.market.number
        resting = order if is_maker else None
        return margin.bears_fill(whole, number, order.sign, maker.price, quantity, fee, resting)

    def _trade(self, taker, maker, quantity):
        market, price = taker.market, maker.price
        notional = price * quantity
        fees = fees_of(market, notional)
        buyer, seller = (taker, maker) if taker.side == Side.BUY else (maker, taker)
        name = trade_id(buyer.oid, seller.oid)
        for order, fee, other in ((maker, fees[0], taker), (taker, fees[1], maker)):
            account = order.account
            order.start = account.position(market).size
            pnl, _ = self.fill(account, market, order.sign, price, quantity, fee)
            account.volume += notional
            order.quantity -= quantity
            flags = order.flags + Flag.CROSSED * (order is taker) + Flag.LIQUIDATION * bool(taker.method)
            self._tell(
                Kind.FILLED, order.oid, price, quantity, order.quantity, order.placed_ms, name, pnl,
                order.start, fee, order.text, account.row, market.number, other.account.row, order.side,
                flags, order.quantity == 0, taker.method,
            )  # fmt: skip
        self.accounts[FEE_ADDRESS].cash += sum(fees)
        market.reference = price
        self.trades += 1
        self.filled += quantity
        self.notional += notional
        if maker.quantity == 0:
            self._forget(maker)
            if maker.role == Role.PARENT:
                self.release_children(maker.account, maker.group)
        for order in (maker, taker):
            self.drop_reducing(order.account, market)

    def fill(self, account, market, sign, price, quantity, fee):
        """One side of a trade; (its pnl, what an isolated bucket gave out)."""
        position = account.position(market)
        market.interest -= max(0, position.size)
        pnl, out = margin.fill(account, position, sign, price, quantity, fee)
        market.interest += max(0, position.size)
        position.realised += pnl
        account.realised += pnl
        account.fees += fee
        return pnl, out

    def drop_reducing(self, account, market):
        """End the orders that can reduce no more."""
        size = account.position(market).size
        for order in list(account.orders.values()):
            reduces = order.market is market and order.reduce and order.role != Role.UNBORN
            if reduces and size * order.sign >= 0:
                self._end(order, REDUCE_ONLY)
