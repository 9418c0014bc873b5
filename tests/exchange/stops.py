"""Storms in which everyone has stops: single ones, of a parent order, of a position; and orders in slices."""

from shm.codes import Ask, Condition, Grouping, Side, Tif
from shm.codes import Command as Kinds
from tests.exchange.storms import Storm


class Stops(Storm):
    """The world of one seed."""

    def __init__(self, seed, capacity=None):
        super().__init__(seed, capacity)
        chance = self.chance
        self.alone, self.parents, self.of_positions = (
            chance.choice([0, 0.1, 0.3]), chance.choice([0, 0.2, 0.5]), chance.choice([0, 0.1, 0.3]),
        )  # fmt: skip
        self.near = chance.choice([3, 30, 200])  # per mille of the mark, that a trigger price is away from it
        self.kinds += [Kinds.TWAP, Kinds.TWAP_CANCEL]
        self.weights += [chance.choice([0, 2, 6]), chance.choice([0.2, 2])]
        if self.weights[-2]:
            self.pace += [6 * 10**9] * 6  # that minutes pass
        self.wrong = chance.choice([0, 0, 0.1])  # of orders in a group: something that must not be

    def _action_of(self, kind):
        chance = self.chance
        if kind in (Kinds.TWAP, Kinds.TWAP_CANCEL):
            envelope, account = self._envelope(kind)
            ask = (
                self._twap(envelope, account) if kind == Kinds.TWAP else self._twap_cancel(envelope, account)
            )
            return [self._spoil(ask)]
        if kind != Kinds.ORDER:
            return super()._action_of(kind)
        draw = chance.random()
        if draw < self.parents:
            return self._family()
        if draw < self.parents + self.of_positions:
            return self._of_position()
        return super()._action_of(kind)

    def _order(self, envelope, account, market=None):
        ask = super()._order(envelope, account, market)
        if self.chance.random() < self.alone:
            return self._trigger(ask, account, ask.side)
        return ask

    def _family(self):
        """A parent and its children."""
        chance = self.chance
        envelope, account = self._envelope(Kinds.ORDER)
        parent = super()._order(envelope, account)._replace(grouping=Grouping.NORMAL)
        parent = parent._replace(flags=parent.flags & ~Ask.REDUCE_ONLY)
        if chance.random() < 0.7:  # one that is mostly taken
            parent = parent._replace(tif=int(Tif.GTC), quantity=parent.quantity // 4 + 1)
        size = chance.choice([parent.quantity, parent.quantity, max(1, parent.quantity // 2)])
        plain = parent._replace(flags=(parent.flags | Ask.REDUCE_ONLY) & ~Ask.HAS_CLOID, quantity=size)
        family = [parent]
        for _ in range(chance.choice([1, 2, 2, 2, 3])):
            base = parent.price if parent.tif in (Tif.GTC, Tif.ALO) else None
            family.append(self._trigger(plain, account, 1 - parent.side, base))
        return self._numbered([self._mistaken(each) for each in family])

    def _of_position(self):
        chance, model = self.chance, self.model
        envelope, account = self._envelope(Kinds.ORDER)
        held = [number for number, position in account.positions.items() if position.size]
        market = model.markets[chance.choice(held or range(len(model.markets)))]
        ask = super()._order(envelope, account, market)
        size = account.position(market).size
        ask = ask._replace(flags=(ask.flags | Ask.REDUCE_ONLY) & ~Ask.HAS_CLOID, grouping=Grouping.POSITION)
        side = Side.SELL if size > 0 else Side.BUY
        asks = []
        for _ in range(chance.choice([1, 2])):
            quantity = chance.choice([0, 0, abs(size), abs(size) // 2 + 1])
            asks.append(self._mistaken(self._trigger(ask._replace(quantity=quantity), account, side)))
        return self._numbered(asks)

    def _twap(self, envelope, account):
        chance, minutes = self.chance, self.chance.choice([5, 5, 5, 6, 10, 1440, 4, 1441])
        ask = super()._order(envelope, account)
        market = self.model.markets[ask.market]
        least = -(-10 * 10**6 * minutes // market.mark)
        quantity = chance.choice([least - 1, least, ask.quantity, ask.quantity, 10 * ask.quantity])
        flags = (ask.flags & ~Ask.HAS_CLOID) | chance.choice([0, 0, Ask.RANDOMIZE])
        return ask._replace(kind=int(Kinds.TWAP), quantity=quantity, amount=minutes, flags=flags)

    def _twap_cancel(self, envelope, account):
        running = self.model.twaps
        if not running:
            return envelope._replace(order=self.chance.randint(0, 9))
        twap = self.chance.choice(running)
        market = twap.market.number if self._mostly() else 0
        signer = twap.account.address if twap.account.master is None and self._mostly() else envelope.signer
        return envelope._replace(order=twap.number, market=market, signer=signer)

    def _numbered(self, asks):
        return [
            self._spoil(ask._replace(place=place, count=len(asks), request=self.request))
            for place, ask in enumerate(asks)
        ]

    def _mistaken(self, ask):
        chance = self.chance
        if chance.random() >= self.wrong:
            return ask
        return chance.choice(
            [
                ask._replace(flags=ask.flags ^ Ask.REDUCE_ONLY),
                ask._replace(flags=ask.flags ^ Ask.IS_TRIGGER),
                ask._replace(side=1 - ask.side), ask._replace(grouping=chance.randrange(4)),
                ask._replace(market=chance.randrange(len(self.model.markets))), ask._replace(tif=Tif.IOC),
            ]
        )  # fmt: skip

    def _trigger(self, ask, account, side, around=None):
        """The order as one that waits: on this side, for a mark near the present one (or another price)."""
        chance, market = self.chance, self.model.markets[ask.market]
        around = around or market.mark
        condition = chance.choice([Condition.ABOVE, Condition.BELOW])
        away = max(1, around * chance.randint(0, self.near) // 1000)
        sign = 1 if (condition == Condition.ABOVE) != (chance.random() < 0.05) else -1
        trigger = self._round(around + sign * away)
        slip = trigger * chance.choice([0, 10, 100]) // 1000
        price = self._round(trigger + (slip if side == Side.BUY else -slip))
        return ask._replace(
            side=int(side), condition=int(condition), trigger_price=trigger, price=price,
            flags=ask.flags | Ask.IS_TRIGGER, tif=int(chance.choice([Tif.GTC, Tif.MARKET])),
        )  # fmt: skip

    def _round(self, price):
        """To five figures."""
        unit = 10 ** max(0, len(str(price)) - 5)
        return max(1, price // unit * unit)
