"""Random commands of bad days: prices gap, oracles fall silent, accounts stand at the edge of their margin.

A storm is a swarm whose orders are as large as their owners can bear, around a fair price of each market that
drifts and, now and then, jumps by 10 to 60 %; its oracle follows, or does not. Operators set limits, add
tiers, halt and kill, and mostly take it back.
"""

from engine.exchange.state import INSURANCE_ADDRESS
from shm.codes import Ask, Oracle, Side, Tif, Trading
from shm.codes import Command as Kinds
from tests.exchange.commands import Swarm, address
from tests.exchange.terms import NOBODY, Command

MICRO = 10**6
STORM = {
    Kinds.ORDER: 60, Kinds.ORACLE: 12, Kinds.END_BLOCK: 12, Kinds.CANCEL: 3, Kinds.MODIFY: 3,
    Kinds.UPDATE_LEVERAGE: 3, Kinds.ISOLATED_MARGIN: 2, Kinds.USD_SEND: 1, Kinds.DEPOSIT: 1,
    Kinds.WITHDRAW: 1, Kinds.LIMITS: 0.3, Kinds.TIER: 0.05, Kinds.MODE: 0.3, Kinds.KILL: 0.3,
    Kinds.CANCEL_ALL: 0.3,
}  # fmt: skip
BUSY = {Kinds.LIMITS, Kinds.TIER, Kinds.MODE, Kinds.KILL}
BY_OPERATOR = {Kinds.ORACLE, *BUSY}


class Storm(Swarm):
    """The world of one seed."""

    def __init__(self, seed, capacity=None):
        super().__init__(seed, capacity)
        chance = self.chance
        self.market_count = min(self.market_count, 4)
        self.account_count = chance.choice([3, 6, 12, 30]) if self.account_count > 6 else self.account_count
        rates = {
            kind: often * (chance.choice([0.3, 1, 1, 3]) if kind != Kinds.ORDER else 1)
            for kind, often in STORM.items()
        }
        if chance.random() < 0.3:  # busy operators
            rates |= {kind: rates[kind] * 10 for kind in BUSY}
        self.kinds, self.weights = list(rates), list(rates.values())
        self.pace = [chance.choice([10**6, 10**8, 5 * 10**8])] * 60
        if chance.random() < 0.7:
            self.pace.append(chance.choice([2 * 10**10, 10**11, 2 * 10**12]))  # now and then, a silence
        self.mistakes = chance.choice([0, 0.01])
        self.sessions, self.batches, self.spread = 1, chance.choice([1, 3]), chance.choice([3, 30, 300])
        self.gaps = chance.choice([0, 0.02, 0.1, 0.3])  # of an oracle's prices
        self.drifts = chance.choice([1, 10, 50])  # per mille
        self.boldness = chance.choice([0.3, 1, 1.2])  # of what an account could bear
        self.external = chance.choice([0, 0, 1])
        self.isolated = chance.choice([0, 0.3, 1])
        self.insured = chance.choice([0, 1, 100])
        self.parts = chance.random() < 0.3  # positions worth more than 100,000 USD
        self.money = chance.choice([10**3, 10**6] if self.parts else [100, 3000]) * MICRO
        self.fair = {}

    def _begin(self):
        yield from super()._begin()
        if self.insured:
            yield Command(kind=Kinds.DEPOSIT, other=INSURANCE_ADDRESS, amount=self.insured * self.money)
        for number in range(1, self.account_count + 1):
            for market in self.model.markets:
                isolated = self.chance.random() < self.isolated
                yield Command(
                    kind=Kinds.UPDATE_LEVERAGE, signer=address(number), market=market.number,
                    amount=self.chance.choice([1, 3, market.max_leverage, market.max_leverage]),
                    flags=Ask.SESSION | (0 if isolated else Ask.IS_CROSS),
                )  # fmt: skip

    def _action(self):
        self.request += 1
        first = next(self._prologue, None)
        if first is not None:
            return [first._replace(request=self.request)]
        if self.chance.random() < 0.1 and (mended := self._mend()):
            return [mended._replace(request=self.request)]
        kind = self.chance.choices(self.kinds, self.weights)[0]
        if kind in BY_OPERATOR:
            return [self._spoil(self._by_risk(kind))._replace(request=self.request)]
        return self._action_of(kind)

    def _fair_of(self, market):
        return self.fair.setdefault(market.number, market.reference)

    def _by_risk(self, kind):
        chance, market = self.chance, self.chance.choice(self.model.markets)
        if kind == Kinds.ORACLE:
            return self._oracle(market)
        if kind == Kinds.LIMITS:
            interest = market.interest * market.mark
            return Command(
                kind=kind, market=market.number, amount=chance.choice([0, 0, interest, interest // 2]),
                quantity=chance.choice([800, 800, 1000, 300]), price=chance.choice([0, 0, 100, 1]),
                order=chance.choice([6000, 10, 1]),
            )  # fmt: skip
        if kind == Kinds.TIER:
            notional, leverage, _ = market.tiers[-1]
            return Command(
                kind=kind, market=market.number, quantity=notional + chance.randint(1, self.money),
                amount=max(1, leverage // chance.choice([1, 2, 3])),
            )  # fmt: skip
        if kind == Kinds.MODE:
            return Command(kind=kind, market=market.number, amount=chance.choice(list(Trading)))
        return Command(kind=kind, other=chance.choice([NOBODY, *self.model.accounts]), amount=1)

    def _mend(self):
        """Take back what keeps somebody from trading."""
        model = self.model
        if model.is_killed:
            return Command(kind=Kinds.KILL)
        for account in model.accounts.values():
            if account.is_killed:
                return Command(kind=Kinds.KILL, other=account.address)
        for market in model.markets:
            if market.mode != Trading.OPEN:
                return Command(kind=Kinds.MODE, market=market.number)
            if market.oracle_state == Oracle.STOPPED:
                return self._oracle(market)
        return None

    def _oracle(self, market):
        chance, fair = self.chance, self._fair_of(market)
        if chance.random() < self.gaps:
            fair = fair * (1000 + chance.choice([-1, 1]) * chance.randint(100, 600)) // 1000
        else:
            fair = fair * (1000 + chance.randint(-self.drifts, self.drifts)) // 1000
        self.fair[market.number] = fair = max(100, min(10**12, fair))
        external = fair * (1000 + chance.randint(-20, 20)) // 1000 if self.external else 0
        return Command(kind=Kinds.ORACLE, market=market.number, price=fair, trigger_price=external)

    def _order(self, envelope, account, market=None):
        chance = self.chance
        ask = super()._order(envelope, account, market)
        market = self.model.markets[ask.market]
        if chance.random() < 0.8:
            whole, position = self.model.whole(account), account.position(market)
            most = max(0, whole.free) * position.leverage * self.boldness * chance.random()
            quantity = max(int(most) // max(1, ask.price), 11 * MICRO // max(1, ask.price) + 1)
            ask = ask._replace(quantity=min(quantity, market.value_max(Tif.MARKET) // max(1, ask.price)))
        return ask

    def _price(self, market, side):
        chance, fair = self.chance, self._fair_of(market)
        tick = 10 ** max(0, len(str(fair)) - 5)
        toward = 1 if side == Side.BUY else -1
        off = chance.randint(-self.spread, self.spread) + toward * chance.choice([0, 0, self.spread])
        return max(1, (fair // tick + off) * tick)
