"""The naive exchange's liquidations: everyone is looked at in turn, and ranked anew each time."""

from engine.exchange.records import Kind
from engine.exchange.state import FEE_ADDRESS, INSURANCE_ADDRESS
from shm.codes import NAMES, Flag, Ledger, Method, Side, Status
from tests.exchange.things import MICRO, PRICE_MAX, Order, ceil_div

CANCELED = NAMES.index("liquidatedCanceled")
LIQUIDATIONS_A_BLOCK = 64
PARTIAL_MS = 30_000
TIF = 4


class Liquidations:
    """What `model.Model` does about margin at the end of a block."""

    def _make_circle_due(self):
        self.circle_left = len(self.accounts)

    def _go_round(self):
        accounts, looked, acted = list(self.accounts.values()), 0, 0
        while self.circle_left > 0 and acted < LIQUIDATIONS_A_BLOCK:
            account = accounts[self.circle_next % len(accounts)]
            self.circle_next = (self.circle_next + 1) % len(accounts)
            self.circle_left -= 1
            looked += 1
            before = len(self.outcomes)
            if account.address != FEE_ADDRESS:
                self._examine(account)
            acted += len(self.outcomes) > before
        if acted:
            self._make_circle_due()
        elif looked and self.circle_left == 0:
            for market in self.markets:
                market.sound_mark = market.mark

    def _examine(self, account):
        if account.address != INSURANCE_ADDRESS:
            for number in sorted(account.positions):
                position = account.positions[number]
                if not position.is_cross and position.size and position.bucket < position.maintenance:
                    self._liquidate(account, [position])
        cross = [account.positions[n] for n in sorted(account.positions) if account.positions[n].is_cross]
        cross = [position for position in cross if position.size]
        if cross and account.value() < account.maintenance():
            self._liquidate(account, cross)

    def _liquidate(self, account, positions):
        is_cross, first = positions[0].is_cross, len(self.outcomes)
        worth = account.value() if is_cross else positions[0].bucket
        kept = sum(position.maintenance for position in positions)
        notional = sum(abs(position.value) for position in positions)
        for order in list(account.orders.values()):
            if is_cross or order.market is positions[0].market:
                self._end(order, CANCELED)
        insurance, method = self.accounts[INSURANCE_ADDRESS], Method.MARKET
        if account is not insurance and 3 * worth >= 2 * kept:
            self._sell(account, positions)
        elif account is not insurance and self._can_insure(positions, worth):
            method = Method.BACKSTOP
            for p in positions:
                left = self._pass(account, insurance, p.market, p.market.mark, abs(p.size), method)
            self._hand_over(account, account.cash if is_cross else left)
        else:
            method = Method.DELEVERAGING
            for position in positions:
                self._deleverage(account, position, worth >= 0)
            if is_cross and account.cash < 0:
                self._hand_over(account, account.cash)
        if len(self.outcomes) > first:
            scope = -1 if is_cross else positions[0].market.number
            self._tell(Kind.LIQUIDATED, worth, notional, kept, account.row, scope, method)

    def _sell(self, account, positions):
        in_parts = self.now_ms - account.partial_ms >= PARTIAL_MS
        for position in positions:
            if position.is_cross and account.value() >= account.maintenance():
                return
            quantity, is_part = abs(position.size), False
            if in_parts and abs(position.value) > 100_000 * MICRO:
                quantity, is_part = ceil_div(quantity, 5), True
            side = Side.SELL if position.size > 0 else Side.BUY
            self.oids += 1
            order = Order(
                self.oids, account, position.market, side, 0, quantity, quantity, self.now_ms, TIF, None, True
            )
            order.limit, order.method = 1 if side == Side.SELL else PRICE_MAX, Method.MARKET
            self._match(order)
            self.is_stopped = False
            if order.quantity == quantity:
                self.oids -= 1
                continue
            self._end(order, Status.FILLED if order.quantity == 0 else self.canceled, crossed=True)
            if is_part:
                account.partial_ms = self.now_ms

    def _can_insure(self, positions, worth):
        insurance = self.accounts[INSURANCE_ADDRESS]
        sizes = {p.market.number: p.size for p in insurance.cross}
        for p in positions:
            sizes[p.market.number] = sizes.get(p.market.number, 0) + p.size
        markets = [(self.markets[number], size) for number, size in sizes.items()]
        kept = sum(market.maintenance(abs(size) * market.mark) for market, size in markets)
        return insurance.value() + worth >= kept

    def _deleverage(self, account, position, is_solvent):
        market = position.market
        price = market.mark if is_solvent else market.sound_mark
        others = [a for a in self.accounts.values() if a.position(market).size * position.size < 0]
        others = sorted(others, key=lambda other: (-_rank(other.position(market), other), other.row))
        for other in others:
            if position.size == 0:
                return
            quantity = min(abs(position.size), abs(other.position(market).size))
            left = self._pass(account, other, market, price, quantity, Method.DELEVERAGING)
            if not position.is_cross and position.size == 0 and left < 0:
                self._hand_over(account, left)
            for order in list(other.orders.values()):
                size = other.position(market).size
                if order.market is market and order.reduce and size * order.sign >= 0:
                    self._end(order, NAMES.index("reduceOnlyCanceled"))

    def _pass(self, owner, other, market, price, quantity, method):
        """So much of the owner's position goes to another account; what the owner's cash got by it."""
        self.oids += 1
        side = Side.SELL if owner.position(market).size > 0 else Side.BUY
        longs = sum(max(0, each.position(market).size) for each in (owner, other))
        closed = {}
        for account, whom, its, crossed in ((other, owner, 1 - side, 0), (owner, other, side, Flag.CROSSED)):
            position = account.position(market)
            start = position.size
            pnl, out, closed[account.row] = position.trade(1 if its == Side.BUY else -1, price, quantity, 0)
            account.cash += out
            account.realised += pnl
            self._tell(
                Kind.FILLED, self.oids, price, quantity, 0, self.now_ms, self.trade_name(self.oids), pnl,
                start, 0, bytes(16), account.row, market.number, whom.row, its, Flag.LIQUIDATION + crossed, 1,
                method,
            )  # fmt: skip
        market.interest += sum(max(0, each.position(market).size) for each in (owner, other)) - longs
        if closed[other.row] < 0 and not other.position(market).is_cross:
            self._hand_over(other, closed[other.row])
        return closed[owner.row]

    def _hand_over(self, account, amount):
        insurance = self.accounts[INSURANCE_ADDRESS]
        if amount and account is not insurance:
            for giver, change, other in ((account, -amount, insurance), (insurance, amount, account)):
                giver.cash += change
                giver.deposited += change
                self._tell(Kind.MONEY, 0, change, giver.row, other.row, Ledger.LIQUIDATION)


def _rank(position, account):
    def ratio(a, b):
        return 10**9 if b <= 0 else min(10**9, a * 10**6 // b)

    value, entry = abs(position.value), abs(position.entry)
    gain = ratio(value, entry) if position.size > 0 else ratio(entry, value)
    return gain * ratio(value, account.value() if position.is_cross else position.bucket)
