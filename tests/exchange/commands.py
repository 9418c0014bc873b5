"""Random commands for an exchange, by swarms: each seed is a world of its own kind.

A seed chooses how many markets and accounts there are, how rich, which kinds of command and which mistakes
are common, rare or never, how wide prices spread and how time passes; no single mix reaches every corner.
The model walks along, so that a cancel can name an order that is open, and its outcomes come for free.
"""

import random
from typing import NamedTuple

from engine.exchange.records import NONCES_KEPT
from engine.exchange.state import FEE_ADDRESS, Capacity
from shm.codes import Ask, Side, Tif
from shm.codes import Command as Kinds
from tests.exchange.model import DAY_MS, Model
from tests.exchange.terms import NO_TEXT, NOBODY, Command

START_NS = 1_700_000_000_000_000_000
ROOMY = Capacity(
    markets=8, accounts=128, orders=2048, levels=1 << 15, agents=128, outcomes=1 << 14, commands=512
)
TIGHT = Capacity(markets=2, accounts=9, orders=24, levels=1 << 12, agents=5, outcomes=4096, commands=512)
EDGES = [0, -1, 1, 10**15, 10**15 + 1, -(10**15), -(10**15) - 1, 2**62, 2**63 - 1, -(2**63)]
KINDS = {  # how common, before a seed has its say
    Kinds.ORDER: 60, Kinds.CANCEL: 10, Kinds.CANCEL_CLOID: 4, Kinds.MODIFY: 10, Kinds.SCHEDULE_CANCEL: 2,
    Kinds.UPDATE_LEVERAGE: 3, Kinds.ISOLATED_MARGIN: 2, Kinds.USD_SEND: 2, Kinds.APPROVE_AGENT: 2,
    Kinds.CREATE_SUB: 1, Kinds.SUB_TRANSFER: 2, Kinds.CANCEL_ALL: 0.3, Kinds.NOOP: 0.5, Kinds.DEPOSIT: 1,
    Kinds.WITHDRAW: 1, Kinds.ADD_MARKET: 0.02, Kinds.END_BLOCK: 5, 31: 0.1,
}  # fmt: skip
BATCHED = {Kinds.ORDER, Kinds.CANCEL, Kinds.CANCEL_CLOID, Kinds.MODIFY}

TIFS = [Tif.GTC, Tif.IOC, Tif.ALO, Tif.MARKET]  # that a client may ask for
LIMITED = [Kinds.APPROVE_AGENT, Kinds.CREATE_SUB, Kinds.SCHEDULE_CANCEL, Kinds.SUB_TRANSFER, Kinds.MODIFY]


class Step(NamedTuple):
    """A command, and what the model says that it does."""

    command: Command
    outcomes: list
    ack: tuple
    standing: dict  # at the end of a block: (kind, subject) -> fields of every absolute row, told or not


def address(number: int) -> bytes:
    return number.to_bytes(20, "big")


class Swarm:
    """The world of one seed. `steps(count)` goes on with it."""

    def __init__(self, seed: int, capacity: Capacity | None = None):
        self.seed, self.chance = seed, (chance := random.Random(seed))
        self.capacity = capacity or (TIGHT if chance.random() < 0.15 else ROOMY)
        self.model = Model(self.capacity)
        self.market_count = chance.randint(1, self.capacity.markets)
        self.account_count = chance.choice([2, 3, 5, 8, 20, 60]) if self.capacity is ROOMY else 6
        # What is common here:
        self.pace = chance.choice(
            [[1], [1, 10**3, 10**6], [10**6, 10**9], [10**6, 10**9, 10**10, 10**13, 10**14]]
        )
        rates = {kind: often * chance.choice([0, 0.2, 1, 1, 4]) for kind, often in KINDS.items()}
        rates[Kinds.ORDER] = KINDS[Kinds.ORDER]
        rates[Kinds.END_BLOCK] = chance.choice([1, 5, 30])
        if chance.random() < 0.3:  # much of one kind, to come to its limits
            rates[chance.choice(LIMITED)] = 60
        if rates[Kinds.SCHEDULE_CANCEL] == 60:
            self.pace, rates[Kinds.END_BLOCK] = [10**9], 60
        self.kinds, self.weights = list(rates), list(rates.values())
        self.mistakes = chance.choice([0, 0.01, 0.05, 0.2])
        self.sessions = chance.choice([0, 0.5, 1])
        self.cloids = chance.choice([0, 0.3, 1]), chance.choice([5, 10**9])
        self.reducing = chance.choice([0, 0.1, 0.5])
        self.tifs = [chance.choice([0, 1, 5]) or 0.1 for _ in TIFS]
        self.spread = chance.choice([3, 30, 1000])  # ticks around the last price
        self.drift = chance.choice([0, 0, 1])  # buyers pay more than sellers ask, or the other way round
        self.values = chance.choice([(9, 15), (10, 1000), (1000, 100_000), (10**5, 2 * 10**8)])
        self.even = chance.random() < 0.5  # sizes are multiples of one: orders fill each other exactly
        self.money = int(chance.choice([2, 20, 1000]) * self.values[1] * 10**6)
        self.batches = chance.choice([1, 1, 3, 8])
        self.time_ns, self.sequence, self.request = START_NS + chance.randrange(10**14), 0, 0
        self.newest_address = 0
        self.nonces = {}
        self._prologue = self._begin()

    def steps(self, count: int):
        """The next `count` commands, or a few more, as Steps."""
        end = self.sequence + count
        while self.sequence < end:
            for command in self._action():
                self.sequence += 1
                self.time_ns += self.chance.choice(self.pace) * self.chance.randrange(3)
                stamped = command._replace(sequence=self.sequence, time_ns=self.time_ns)
                yield Step(stamped, *self.model.apply(stamped))

    def _begin(self):
        """Markets and money, before anything else."""
        chance = self.chance
        for number in range(self.market_count):
            decimals = chance.randint(0, 5)
            yield Command(
                kind=Kinds.ADD_MARKET,
                text=b"M%d" % number + bytes(14),
                side=decimals,
                price=max(1, int(chance.choice([0.02, 3.7, 180.5, 64000]) * 10 ** (6 - decimals))),
                amount=chance.choice([1, 3, 5, 10, 20, 25, 40, 50]),
                quantity=chance.choice([150, 0, -30, -1000]),
                order=chance.choice([450, 450, 350, 0]),
            )
        for number in range(1, self.account_count + 1):
            self.newest_address = number
            yield Command(kind=Kinds.DEPOSIT, other=address(number), amount=chance.randint(1, self.money))

    def _action(self):
        """One action: its commands, without sequence and time."""
        self.request += 1
        first = next(self._prologue, None)
        if first is not None:
            return [first._replace(request=self.request)]
        return self._action_of(self.chance.choices(self.kinds, self.weights)[0])

    def _action_of(self, kind):
        if kind in (Kinds.END_BLOCK, Kinds.DEPOSIT, Kinds.WITHDRAW, Kinds.ADD_MARKET):
            return [self._spoil(self._by_operator(kind))._replace(request=self.request)]
        count = self.chance.randint(1, self.batches) if kind in BATCHED else 1
        envelope, account = self._envelope(kind)
        return [
            self._spoil(self._ask(kind, envelope, account)._replace(place=place, count=count))
            for place in range(count)
        ]

    # --- who asks -------------------------------------------------------------------------------------

    def _envelope(self, kind):
        """The part that all commands of an action share, and the account that will act."""
        chance, model = self.chance, self.model
        account = chance.choice(list(model.accounts.values()))
        if kind in (Kinds.CANCEL, Kinds.CANCEL_CLOID, Kinds.MODIFY) and model.open and self._mostly():
            account = chance.choice(list(model.open.values())).account
        elif kind == Kinds.ISOLATED_MARGIN and self._mostly():
            account = next((a for a in model.accounts.values() if self._isolated_in(a)), account)
        elif kind == Kinds.SUB_TRANSFER and self._mostly():
            account = next((a for a in model.accounts.values() if a.subs), account)
        elif kind in (Kinds.CREATE_SUB, Kinds.APPROVE_AGENT) and self._mostly():
            account = list(model.accounts.values())[:3][-1]  # one of them, so that it comes to its limits
        elif account.cash == 0 and self._mostly():
            account = chance.choice(list(model.accounts.values()))
        if account is model.insurance and self._mostly():
            account = chance.choice(list(model.accounts.values()))
        owner, flags, vault = account, 0, NOBODY
        if account.master is not None and self._mostly():
            owner, flags, vault = account.master, Ask.HAS_VAULT, account.address
        elif self._rarely():
            flags, vault = Ask.HAS_VAULT, chance.choice(list(model.accounts))
        signers = [s for s in model.signers.values() if s.account is owner and (s.is_live or self._rarely())]
        signer = chance.choice(signers).address if signers and self._mostly() else owner.address
        if self._rarely():
            signer = chance.choice([address(10**6), *model.signers])
        if chance.random() < self.sessions:
            flags |= Ask.SESSION
        envelope = Command(
            kind=int(kind), signer=signer, vault=vault, flags=flags, nonce=self._nonce(signer),
            expires_ms=self._now_ms() + chance.choice([-1, 0, 1, 10**6]) if self._rarely() else 0,
            request=self.request, gateway=chance.randrange(3), signer_row=self._row_believed(signer),
        )  # fmt: skip
        return envelope, account

    def _row_believed(self, signer):
        """What a gateway may believe of where a signer stands: often right, and never needed."""
        known = self.model.signers.get(signer)
        return known.row if known and self.request % 2 else self.request % 50 - 5

    def _nonce(self, signer):
        now_ms, known = self._now_ms(), self.model.signers.get(signer)
        if known and known.nonces and self._rarely():
            low = known.nonces[0]
            return self.chance.choice([*known.nonces, low - 1, low + 1, self.chance.choice(EDGES)])
        if self._rarely():
            edge = self.chance.choice([-2 * DAY_MS, DAY_MS])
            return now_ms + edge + self.chance.randint(-2, 2)
        newest = max(now_ms, self.nonces.get(signer, 0) + 1)
        self.nonces[signer] = newest
        if newest > now_ms + NONCES_KEPT * 1000:  # time stands still
            self.nonces[signer] = 0
        return newest

    def _now_ms(self):
        return self.time_ns // 10**6

    def _rarely(self):
        return self.chance.random() < self.mistakes

    def _mostly(self):
        return self.chance.random() < 0.9

    def _spoil(self, command):
        """Now and then, an edge value in one field."""
        if self.chance.random() >= self.mistakes:
            return command
        name = self.chance.choice(["price", "quantity", "amount", "order", "market", "flags", "kind"])
        if name == "market":
            return command._replace(
                market=self.chance.choice([-1, len(self.model.markets), 2**31 - 1, -(2**31)])
            )
        if name == "flags":
            return command._replace(flags=command.flags ^ self.chance.choice([1, 2, 4, 8, 16]))
        if name == "kind":
            return command._replace(kind=31) if command.kind < Kinds.ADD_MARKET else command
        return command._replace(**{name: self.chance.choice(EDGES)})

    # --- what is asked --------------------------------------------------------------------------------

    def _by_operator(self, kind):
        known = list(self.model.accounts)
        amount = self.chance.randint(1, self.money)
        if kind == Kinds.DEPOSIT:
            self.newest_address += 1
            to = self.chance.choice([*known, address(self.newest_address)])
            if len(known) >= self.account_count * 2 and self.capacity is ROOMY:
                to = self.chance.choice(known)
            if self._rarely():
                to = self.chance.choice([FEE_ADDRESS, *self.model.signers])
            return Command(kind=kind, other=to, amount=amount)
        if kind == Kinds.WITHDRAW:
            of = self.chance.choice([*known, address(10**6)])
            if of in self.model.accounts and self.chance.random() < 0.3:
                amount = self.model.whole(self.model.accounts[of]).withdrawable + self.chance.choice(
                    [-1, 0, 1]
                )
            return Command(kind=kind, other=of, amount=amount)
        if kind == Kinds.ADD_MARKET:
            return Command(kind=kind, text=b"LATE" + bytes(12), side=2, price=10**6, amount=20, order=450)
        return Command(kind=kind)

    def _ask(self, kind, envelope, account):
        """What one command of a kind asks for, in its envelope."""
        ask = {
            Kinds.ORDER: self._order, Kinds.CANCEL: self._cancel, Kinds.CANCEL_CLOID: self._cancel_cloid,
            Kinds.MODIFY: self._modify, Kinds.SCHEDULE_CANCEL: self._schedule,
            Kinds.UPDATE_LEVERAGE: self._leverage, Kinds.ISOLATED_MARGIN: self._isolated,
            Kinds.USD_SEND: self._send, Kinds.APPROVE_AGENT: self._agent, Kinds.CREATE_SUB: self._sub,
            Kinds.SUB_TRANSFER: self._sub_transfer,
        }  # fmt: skip
        return ask[kind](envelope, account) if kind in ask else envelope

    def _order(self, envelope, account, market=None):
        chance = self.chance
        market = market or chance.choice(self.model.markets)
        side, flags = chance.choice([Side.BUY, Side.SELL]), envelope.flags
        size = account.positions[market.number].size if market.number in account.positions else 0
        if chance.random() < self.reducing and (size != 0 or self._rarely()):
            flags |= Ask.REDUCE_ONLY
            if self._mostly():
                side = Side.SELL if size > 0 else Side.BUY
        price = self._price(market, side)
        most = market.value_max(Tif.GTC) // 10**6
        dollars = min(chance.randint(*self.values), most + chance.choice([0, 0, 0, 1000]))
        quantity = max(1, dollars * 10**6 // max(price, 1))
        if self.even:
            unit = max(1, self.values[0] * 2 * 10**6 // market.reference)
            quantity = max(1, quantity // unit) * unit
        if size != 0 and chance.random() < 0.1:
            quantity = abs(size) + chance.choice([-1, 0, 1])
        cloid = NO_TEXT
        if chance.random() < self.cloids[0]:
            flags |= Ask.HAS_CLOID
            cloid = chance.randrange(self.cloids[1]).to_bytes(16, "little")
        tif = chance.choices(TIFS, self.tifs)[0]
        return envelope._replace(
            market=market.number, side=int(side), price=price, quantity=quantity, tif=int(tif), text=cloid,
            flags=flags,
        )  # fmt: skip

    def _price(self, market, side):
        """A price of five figures not far from the last one."""
        chance, last = self.chance, market.reference
        tick = 10 ** max(0, len(str(last)) - 5)
        toward = 1 if side == Side.BUY else -1
        off = chance.randint(-self.spread, self.spread) + self.drift * toward * self.spread // 2
        price = max(1, (last // tick + off) * tick)
        if self._rarely():
            edges = [last * 5, last * 9 // 5, last * 9 // 5 + 1, -(-last // 5), last // 5 - 1, price + 1]
            price = chance.choice(edges)
        return price

    def _open_order(self, account):
        """An order to name: mostly one that the account has open; or anyone's; or none, an old oid."""
        if account.orders and self._mostly():
            return self.chance.choice(list(account.orders.values()))
        if self.model.open and self.chance.random() < 0.5:
            return self.chance.choice(list(self.model.open.values()))
        return None

    def _cancel(self, envelope, account):
        order = self._open_order(account)
        if order is None:
            return envelope._replace(order=self.chance.randint(0, self.model.oids + 1))
        market = order.market.number if self._mostly() else self.chance.randrange(self.market_count)
        return envelope._replace(order=order.oid, market=market)

    def _cancel_cloid(self, envelope, account):
        order = self._open_order(account)
        named = [each for each in account.orders.values() if each.cloid is not None]
        if named and self._mostly():
            order = self.chance.choice(named)
        if order is None or order.cloid is None:
            of = self.chance.randrange(self.cloids[1]).to_bytes(16, "little")
            return envelope._replace(of=of, market=self.chance.randrange(self.market_count))
        return envelope._replace(of=order.cloid, market=order.market.number)

    def _modify(self, envelope, account):
        order, chance = self._open_order(account), self.chance
        market = order.market if order and self._mostly() else None
        ask = self._order(envelope, account, market)
        if chance.random() < 0.3:
            ask = ask._replace(flags=ask.flags | Ask.ALWAYS_PLACE)
        if order is None:
            return ask._replace(order=chance.randint(0, self.model.oids + 1))
        if order.cloid is not None and chance.random() < 0.5:
            ask = ask._replace(flags=ask.flags | Ask.BY_CLOID, of=order.cloid)
            if chance.random() < 0.7:  # the new one takes its name
                ask = ask._replace(flags=ask.flags | Ask.HAS_CLOID, text=order.cloid)
            return ask
        return ask._replace(order=order.oid)

    def _schedule(self, envelope, account):
        after = self.chance.choice([0, 4999, 5000, 5001, 20_000, 10**6])
        return envelope._replace(amount=self._now_ms() + after if self._mostly() else 0)

    def _leverage(self, envelope, account):
        market = self.chance.choice(self.model.markets)
        amount = self.chance.choice([1, 2, market.max_leverage, market.max_leverage + 1, 0, 5])
        cross = self.chance.choice([0, Ask.IS_CROSS])
        return envelope._replace(market=market.number, amount=amount, flags=envelope.flags | cross)

    def _isolated_in(self, account):
        return [number for number, p in account.positions.items() if p.size and not p.is_cross]

    def _isolated(self, envelope, account):
        held = self._isolated_in(account)
        market = self.chance.choice(held or range(self.market_count))
        has = account.positions[market].isolated if held else 0
        free = self.model.whole(account).free
        amount = self.chance.choice([free, free + 1, -has, -has - 1, 1000, 5 * 10**6, -(has // 3)])
        return envelope._replace(market=market, amount=amount)

    def _amount(self, account):
        free = self.model.whole(account).withdrawable
        return self.chance.choice(
            [1, free, free + 1, free // 2, free // 10, self.chance.randint(1, self.money)]
        )

    def _send(self, envelope, account):
        known = list(self.model.accounts)
        self.newest_address += 1
        fresh = self.chance.random() < 0.2 and (len(known) < 2 * self.account_count or self.capacity is TIGHT)
        other = address(self.newest_address) if fresh else self.chance.choice(known)
        return envelope._replace(other=other, amount=self._amount(account))

    def _agent(self, envelope, account):
        chance = self.chance
        self.newest_address += 1
        other = address(self.newest_address)
        agents = [s for s in self.model.signers.values() if s.account is account and s.is_agent]
        name = bytes([65 + chance.randrange(8)]) + bytes(15) if chance.random() < 0.8 else NO_TEXT
        if chance.random() < 0.3:
            other = chance.choice(list(self.model.signers))
        if agents and chance.random() < 0.3:
            other, name = (agent := chance.choice(agents)).address, agent.name
        after = chance.choice([0, 1, 1000, 10**6, 10**9])
        valid = 0 if chance.random() < 0.5 else self._now_ms() + after
        return envelope._replace(other=other, text=name, amount=valid)

    def _sub(self, envelope, account):
        self.newest_address += 1
        known = list(self.model.signers)
        other = self.chance.choice(known) if self._rarely() else address(self.newest_address)
        return envelope._replace(other=other, text=b"sub" + bytes(13))

    def _sub_transfer(self, envelope, account):
        subs = [a for a in self.model.accounts.values() if a.master is account]
        sub = self.chance.choice(subs or list(self.model.accounts.values()))
        deposit = self.chance.choice([0, Ask.IS_DEPOSIT])
        giver = account if deposit else sub
        return envelope._replace(
            other=sub.address, amount=self._amount(giver), flags=envelope.flags | deposit
        )
