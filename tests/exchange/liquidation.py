"""What the naive exchange does with who cannot bear his positions: book, insurance account, deleveraging.

A circle looks at every account, a bounded number of them in a block. All figures are those of the moment they
are asked for.
"""

from fractions import Fraction
from math import ceil, floor

from engine.exchange.records import Kind
from shm.codes import NAMES, Flag, Ledger, Side, Status
from tests.exchange.margin import maintenance_of, survives_sale
from tests.exchange.prices import is_closed
from tests.exchange.things import MICRO, Order, fees_of, trade_id

FEES, INSURANCE = 0, 1  # rows
LOOKS_MAX, TOLD_MAX = 4096, 64  # accounts in a block
PART_VALUE, PART_MS = 100_000 * MICRO, 30_000
RATIO_MAX, RATIO_UNIT = 10**9, 10**6
TIF = 4  # LiquidationMarket
BOOK, BACKSTOP, DELEVERAGED = 1, 2, 3
LIQUIDATED_CANCELED = NAMES.index("liquidatedCanceled")
MARGIN_CANCELED = NAMES.index("marginCanceled")


class Circle:
    """Who is looked at next, and how many are still to be looked at."""

    def __init__(self, model):
        self.model, self.left, self.next = model, 0, 0

    def make_due(self):
        self.left = len(self.model.accounts)

    def go_on(self):
        """The share of one block."""
        told = looks = 0
        accounts = list(self.model.accounts.values())
        while self.left > 0 and looks < min(LOOKS_MAX, len(accounts)) and told < TOLD_MAX:
            before = len(self.model.outcomes)
            self._look(accounts[self.next % len(accounts)])
            self.next = (self.next + 1) % len(accounts)
            self.left, looks = self.left - 1, looks + 1
            told += len(self.model.outcomes) > before
        if told:
            self.make_due()
        elif looks and self.left == 0:
            for market in self.model.markets:
                market.sound_mark = market.mark

    def _look(self, account):
        if account.row == FEES:
            return
        whole = self.model.whole(account)
        if account.row == INSURANCE:
            if any(each.size for each in whole.cross) and whole.value < whole.maintenance:
                Seizure(self.model, account, None).deleverage_insurance()
            return
        for number in sorted(account.positions):
            held = self.model.whole(account).held[number]
            if not held.is_cross and held.size and held.bucket < held.maintenance:
                Seizure(self.model, account, number).carry_out()
        whole = self.model.whole(account)
        if any(each.size for each in whole.cross) and whole.value < whole.maintenance:
            Seizure(self.model, account, None).carry_out()


class Seizure:
    """One isolated position (`number`), or all cross positions of an account (None), at one moment."""

    def __init__(self, model, account, number):
        self.model, self.account, self.number = model, account, number
        whole = self.model.whole(account)
        if number is None:
            self.numbers = [n for n in sorted(whole.held) if whole.held[n].is_cross and whole.held[n].size]
            self.worth, self.maintenance = whole.value, whole.maintenance
        else:
            self.numbers = [number]
            self.worth, self.maintenance = whole.held[number].bucket, whole.held[number].maintenance
        self.notional = sum(whole.held[n].notional for n in self.numbers)

    def carry_out(self):
        before, method = len(self.model.outcomes), BOOK
        for order in list(self.account.orders.values()):
            is_open = order.oid in self.account.orders  # and has not ended with its parent
            if is_open and (self.number is None or order.market.number == self.number):
                self.model._end(order, LIQUIDATED_CANCELED)
        if 3 * self.worth >= 2 * self.maintenance:
            self._sell_on_books()
        elif self._insurance_bears():
            method = BACKSTOP
            self._hand_over()
        else:
            method = DELEVERAGED
            self._deleverage()
        if len(self.model.outcomes) > before:
            self._tell(method)

    def deleverage_insurance(self):
        self._deleverage()
        self._tell(DELEVERAGED)

    def _tell(self, method):
        market = -1 if self.number is None else self.number
        self.model._tell(
            Kind.LIQUIDATED, self.worth, self.notional, self.maintenance, self.account.row, market, method
        )

    # --- on the book ----------------------------------------------------------------------------------

    def _sell_on_books(self):
        for number in self.numbers:
            whole = self.model.whole(self.account)
            if self.number is None and whole.value >= whole.maintenance:
                return
            if not is_closed(self.model.markets[number]):
                self._sell_on_book(number, whole.held[number])

    def _sell_on_book(self, number, held):
        model, account, quantity = self.model, self.account, abs(held.size)
        is_part = held.notional > PART_VALUE and not self._had_a_part()
        if is_part:
            quantity = ceil(Fraction(quantity, 5))
        side = Side.SELL if held.size > 0 else Side.BUY
        order = Order(
            model.oids + 1, account, model.markets[number], side, 0, quantity, quantity, model.now_ms,
            TIF, None, True, method=BOOK,
        )  # fmt: skip
        model._match(order)
        if order.quantity == quantity:
            return
        model.oids += 1
        if is_part:
            account.part_ms, account.part_height = model.now_ms, model.height
        status = NAMES.index("canceled") if order.quantity else Status.FILLED
        model._end(order, status, crossed=True)

    def _had_a_part(self):
        """Within the last 30 s, before this block."""
        account, model = self.account, self.model
        return (
            account.part_ms is not None
            and account.part_height != model.height
            and model.now_ms - account.part_ms < PART_MS
        )

    # --- to the insurance account ---------------------------------------------------------------------

    def _insurance_bears(self):
        whole = self.model.whole(self.model.insurance)
        sizes = {n: held.size for n, held in whole.held.items()}
        for number in self.numbers:
            sizes[number] = sizes.get(number, 0) + self.account.positions[number].size
        markets = self.model.markets
        needed = sum(maintenance_of(markets[n], abs(size * markets[n].mark)) for n, size in sizes.items())
        return whole.value + self.worth >= needed

    def _hand_over(self):
        left = 0
        for number in self.numbers:
            market = self.model.markets[number]
            size = self.account.positions[number].size
            _, left = self._exchange(self.model.insurance, market, abs(size), market.mark, BACKSTOP)
        left = self.account.cash if self.number is None else left
        if left:
            self.model._transfer(self.account, self.model.insurance, left, Ledger.LIQUIDATION)

    def _exchange(self, taker, market, quantity, price, method):
        """`taker` takes so much of the position, outside the book. Return what each one's bucket gave out."""
        model = self.model
        model.oids += 1
        name = trade_id(model.oids, model.oids)
        sign = 1 if self.account.positions[market.number].size > 0 else -1
        given = []
        for account, other, side in (
            (taker, self.account, Side.BUY if sign > 0 else Side.SELL),
            (self.account, taker, Side.SELL if sign > 0 else Side.BUY),
        ):
            start = account.position(market).size
            pnl, out = model.fill(account, market, 1 if side == Side.BUY else -1, price, quantity, 0)
            crossed = Flag.CROSSED if account is self.account else 0
            model._tell(
                Kind.FILLED, model.oids, price, quantity, 0, model.now_ms, name, pnl,
                start, 0, bytes(16), account.row, market.number, other.row, side,
                Flag.LIQUIDATION | crossed, True, method,
            )  # fmt: skip
            given.append(out)
        return given

    # --- against the other side -----------------------------------------------------------------------

    def _deleverage(self):
        for number in self.numbers:
            market = self.model.markets[number]
            price = market.mark if self.worth >= 0 else market.sound_mark
            for other in self._ranked(market):
                size = self.account.positions[number].size
                if size == 0:
                    break
                quantity = min(abs(size), abs(other.positions[number].size))
                theirs, mine = self._exchange(other, market, quantity, price, DELEVERAGED)
                self.model.drop_reducing(other, market)
                for account, out in ((other, theirs), (self.account, mine)):
                    if out is not None and out < 0:
                        self._make_good(account, -out)
        if self.number is None and self.account.cash < 0 and self.account.row != INSURANCE:
            self._make_good(self.account, -self.account.cash)

    def _make_good(self, account, amount):
        self.model._transfer(account, self.model.insurance, -amount, Ledger.LIQUIDATION)

    def _ranked(self, market):
        mine = self.account.positions[market.number].size
        ranks = []
        for account in self.model.accounts.values():
            whole = self.model.whole(account)
            held = whole.held.get(market.number)
            if held is None or held.size * mine >= 0:
                continue
            entry = abs(held.entry)
            gain = ratio(held.notional, entry) if held.size > 0 else ratio(entry, held.notional)
            weight = ratio(held.notional, whole.value if held.is_cross else held.bucket)
            ranks.append((-gain * weight, account.row, account))
        return [account for _, _, account in sorted(ranks, key=lambda rank: rank[:2])]


def ratio(a, b):
    return RATIO_MAX if b <= 0 else min(RATIO_MAX, floor(Fraction(RATIO_UNIT * a, b)))


def may_go_on(model, order, price, quantity):
    """Whether a sale for lack of margin may take one more fill."""
    whole = model.whole(order.account)
    _, fee = fees_of(order.market, price * quantity)
    return survives_sale(whole, order.market.number, order.sign, price, quantity, fee)
