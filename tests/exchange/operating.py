"""The operator's commands in the naive exchange, and what happens by itself when a block ends."""

from engine.exchange.records import Kind
from engine.exchange.state import INSURANCE_ADDRESS
from shm.codes import NAMES, Ledger, Refusal, Trading
from tests.exchange import funding, margin, prices
from tests.exchange.terms import NOBODY, core
from tests.exchange.things import CASH_MAX, PRICE_MAX, Market, Refused, check_amount, plain

DAY_MS = 86_400_000
RATE_MAX = 100_000
LEVERAGE_MAX = 50
TIERS_MAX = 4
SCHEDULED, INTERNAL = (NAMES.index(text) for text in ("scheduledCancel", "internalCancel"))


class Operator:
    """A part of Model."""

    def _add_market(self, c):
        sound = 0 <= c.side <= 6 and 1 <= c.price <= PRICE_MAX and 1 <= c.amount <= LEVERAGE_MAX
        if not sound or max(abs(c.quantity), abs(c.order)) > RATE_MAX:
            raise Refused(Refusal.AMOUNT)
        if len(self.markets) == self.capacity.markets:
            raise Refused(Refusal.TABLE_FULL)
        market = Market(len(self.markets), c.text, c.side, c.amount, c.quantity, c.order, c.price)
        market.mark, market.sound_mark, market.mark_ms = c.price, c.price, self.now_ms
        market.tiers = [(0, c.amount, 0)]
        self.markets.append(market)
        self._tell_market(self.markets[-1])

    def _deposit(self, c):
        check_amount(c.amount)
        if self.deposited + c.amount > CASH_MAX:
            raise Refused(Refusal.AMOUNT)
        account = self._account_for(c.other, c.amount)
        self.deposited += c.amount
        self._move(account, c.amount, Ledger.DEPOSIT, None)

    def _withdraw(self, c):
        check_amount(c.amount)
        account = self.accounts.get(c.other)
        if account is None or c.amount > self.whole(account).withdrawable:
            raise Refused(Refusal.BALANCE)
        self.deposited -= c.amount
        self._move(account, -c.amount, Ledger.WITHDRAW, None)

    def _oracle(self, c):
        market = self._market(c.market, Refusal.UNKNOWN_MARKET)
        sound = 1 <= c.price <= PRICE_MAX and 0 <= c.trigger_price <= PRICE_MAX
        if not sound or market.interest * c.price > prices.VALUE_MAX:
            raise Refused(Refusal.AMOUNT)
        if prices.hear_oracle(market, c.price, c.trigger_price, self.now_ms):
            self.circle.make_due()
        self._tell_prices(market)

    def _limits(self, c):
        market = self._market(c.market, Refusal.UNKNOWN_MARKET)
        if c.amount < 0 or not (1 <= c.quantity <= 1000 and 0 <= c.price <= 1000 and 1 <= c.order <= 10**6):
            raise Refused(Refusal.AMOUNT)
        market.interest_cap, market.price_band, market.mark_step = c.amount, c.quantity, c.price
        market.impact_notional = c.order
        self._tell_if_new(self._contract(market))

    def _tier(self, c):
        market = self._market(c.market, Refusal.UNKNOWN_MARKET)
        notional, leverage, _ = market.tiers[-1]
        if not notional < c.quantity <= prices.VALUE_MAX or not 1 <= c.amount < leverage:
            raise Refused(Refusal.AMOUNT)
        if len(market.tiers) == TIERS_MAX:
            raise Refused(Refusal.TABLE_FULL)
        margin.add_tier(market, c.quantity, c.amount)
        self.circle.make_due()
        self._tell(Kind.TIER, len(market.tiers) - 1, *market.tiers[-1], market.number)

    def _mode(self, c):
        market = self._market(c.market, Refusal.UNKNOWN_MARKET)
        if c.amount not in tuple(Trading):
            raise Refused(Refusal.AMOUNT)
        market.mode = c.amount
        self._tell_if_new(self._contract(market))

    def _kill(self, c):
        if c.amount not in (0, 1):
            raise Refused(Refusal.AMOUNT)
        if c.other == NOBODY:
            self.is_killed, accounts = bool(c.amount), list(self.accounts.values())
        else:
            if c.other not in self.accounts:
                raise Refused(Refusal.BALANCE)
            accounts = [self.accounts[c.other]]
            accounts[0].is_killed = bool(c.amount)
        for account in accounts if c.amount else []:
            self._end_all(account, INTERNAL)

    def _end_block(self, c):
        for account in list(self.accounts.values()):
            if 0 < account.schedule_ms <= self.now_ms:
                account.schedule_ms = 0
                today = self.now_ms // DAY_MS
                account.fired[today] = account.fired.get(today, 0) + 1
                self._end_all(account, SCHEDULED)
        for market in self.markets:
            prices.age_oracle(market, self.now_ms)
        for market in self.markets:
            if prices.mark_itself(market, self.now_ms):
                self.circle.make_due()
                self._tell_prices(market)
        self._fund()
        self._sample()
        self._trigger_reached()
        self._go_on_twaps()
        self.circle.go_on()
        self.oid = self.filled = self.notional = 0  # what it sold is nobody's answer
        self.height += 1
        for account in self.accounts.values():
            whole = self.whole(account)
            self._tell_if_new(self._funds(account, whole))
            for number in account.positions:
                self._tell_if_new(self._position(account, whole.held[number]))
        for market in self.markets:
            self._tell_if_new(self._contract(market))
        self._tell(Kind.BLOCK, self.height, c.sequence)

    def _tell_prices(self, m):
        rate = funding.rate_of(m.premiums)
        told = (m.mark, m.oracle, m.external, m.oracle_ms, rate, m.premium, m.impact_bid, m.impact_ask)
        self._tell(Kind.PRICES, len(m.premiums), *told, m.number)

    # --- funding --------------------------------------------------------------------------------------

    def _sample(self):
        slot = self.now_ms // funding.SAMPLE_MS
        if slot > self.sampled:
            self.sampled = slot
            for market in self.markets:
                if funding.sample(market):
                    self._tell_prices(market)

    def _fund(self):
        """Once an hour, every account pays for its positions, or is paid."""
        hour = self.now_ms // prices.HOUR_MS
        before, self.hour = self.hour, hour
        if before is None or hour == before:
            return
        rates = {}
        for market in self.markets:
            if market.premiums:
                samples, rate = len(market.premiums), funding.rate_of(market.premiums)
                rates[market.number] = market.oracle, rate, samples
                told = (market.oracle, rate, funding.mean_of(market.premiums), samples)
                self._tell(Kind.RATE, *told, hour * prices.HOUR_MS, market.number)
                market.premiums = []
        for account in self.accounts.values():
            for number in sorted(account.positions):
                if number in rates and account.positions[number].size != 0:
                    self._pay(account, account.positions[number], hour, *rates[number])

    def _pay(self, account, position, hour, price, rate, samples):
        due = funding.payment(position.size, price, rate)
        if position.is_cross:
            account.cash -= due
        else:
            position.isolated -= due
        account.funded -= due
        self.insurance.cash += due
        self.insurance.funded += due
        self.circle.make_due()
        told = (price, position.size, rate, -due, samples, hour * prices.HOUR_MS)
        self._tell(Kind.FUNDING, *told, account.row, position.market.number)

    @property
    def insurance(self):
        return self.accounts[INSURANCE_ADDRESS]

    # --- what is told at the end of a block -----------------------------------------------------------

    def _tell_if_new(self, row):
        kind, subject, fields, default = row
        self.standing[int(kind), subject] = tuple(map(plain, fields))
        if core(kind, self.told.get((kind, subject), default)) != core(kind, fields):
            self._tell_absolute(row)

    def _tell_absolute(self, row):
        kind, subject, fields, _ = row
        self.told[kind, subject] = fields
        self._tell(kind, *fields)

    def _tell_market(self, market):
        self._tell_absolute(self._contract(market))

    def _contract(self, m):
        fields = (m.size_decimals, m.reference, m.interest, m.maker_rate, m.taker_rate, m.max_leverage)
        limits = (m.interest_cap, m.price_band, m.mark_step)
        state = (m.impact_notional, m.mode, m.oracle_state)
        return Kind.MARKET, m.number, (*fields, *limits, m.name, *state, m.number), None

    def _funds(self, a, whole):
        fields = (a.actions, a.cash, whole.used, a.volume, a.schedule_ms, a.deposited, a.realised)
        return (
            Kind.FUNDS,
            a.row,
            (*fields, a.created_ms, a.fees, a.name, a.master.row if a.master else -1, a.is_killed, a.row),
            None,
        )

    def _position(self, account, held):
        market, p = held.market, account.positions[held.market.number]
        row = (held.buys, p.size, p.entry, held.margin, p.isolated, p.realised, p.leverage, held.sells)
        default = (0, 0, 0, 0, 0, 0, min(20, market.max_leverage), 0)
        subject = (account.row, market.number)
        return Kind.POSITION, subject, (*row, int(p.is_cross), *subject), (*default, 1, *subject)
