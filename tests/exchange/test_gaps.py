"""Random traders under an oracle that gaps: whatever is taken, nothing is lost and nobody is forgotten.

No model here: the laws of the state and of the outcomes alone, after every command.
"""

import random

from engine.exchange.records import Kind
from engine.exchange.state import Capacity
from shm.codes import Ask, Method, Side, Tif
from shm.codes import Command as Kinds
from tests.exchange.alone import FUND, USD, Engine
from tests.exchange.commands import address
from tests.exchange.witness import Witness

WORLD = Capacity(markets=4, accounts=24, orders=512, levels=1 << 13, agents=4, outcomes=1 << 13, commands=64)
SEEDS, STEPS = range(6), 400
SOAK_SEEDS, SOAK_STEPS = range(100, 160), 3000


class Traders(Engine):
    """Twelve of them in three markets, each with a leverage of his own, some isolated."""

    def __init__(self, seed: int):
        self.chance, self.witness = random.Random(seed), Witness()
        self.methods = {method: 0 for method in Method}
        super().__init__(WORLD, leverage=50, maker=150, taker=450)
        self.add_market(b"B", leverage=20, maker=-30, taker=450, price=7_000, decimals=0)
        self.add_market(b"C", leverage=5, price=64_000_0, decimals=5)
        self.names = [address(1 + n) for n in range(12)]
        self.marks = [100_0000, 7_000, 64_000_0]
        for who in self.names:
            self.deposit(who, self.chance.choice([100, 500, 2000]))
            for market, most in enumerate((50, 20, 5)):
                flags = Ask.SESSION | (Ask.IS_CROSS if self.chance.random() < 0.7 else 0)
                times = self.chance.choice([1, most // 2 + 1, most])
                self.do(kind=Kinds.UPDATE_LEVERAGE, signer=who, market=market, amount=times, flags=flags)
        if self.chance.random() < 0.5:
            self.deposit(FUND, self.chance.choice([20, 2000]))
        if self.chance.random() < 0.5:
            self.do(kind=Kinds.TIER, market=0, quantity=3000 * USD, amount=20)

    def do(self, **fields):
        rows, ack = super().do(**fields)
        self.witness.hear(self.raw)
        for row in rows:
            if row["kind"] == Kind.LIQUIDATED:
                self.methods[Method(row["code"])] += 1
        return rows, ack

    def step(self):
        chance = self.chance.random()
        market = self.chance.randrange(3)
        if chance < 0.7:
            self.trade_something(market)
        elif chance < 0.85:
            self.move(market)
        else:
            self.now_ms += self.chance.choice([0, 1000, 5000, 600_000])
            self.do(kind=Kinds.END_BLOCK)

    def trade_something(self, market):
        who, side = self.chance.choice(self.names), self.chance.choice(list(Side))
        mark = self.marks[market]
        price = mark * self.chance.randint(985, 1015) // 1000
        price -= price % 10 ** max(0, len(str(price)) - 5)
        value = self.chance.choice([100, 1000, 5000, 20_000]) * USD
        quantity = max(1, value // price)
        tif = self.chance.choice([Tif.GTC, Tif.GTC, Tif.IOC])
        reduce = self.chance.random() < 0.1
        self.do(**self.order(who, side, quantity, price, tif, market=market, reduce=reduce))

    def move(self, market):
        """A step of the oracle: mostly small, now and then 10 to 60 %."""
        per_mille = self.chance.randint(-15, 15)
        if self.chance.random() < 0.15:
            per_mille = self.chance.choice([-1, 1]) * self.chance.randint(100, 600)
        self.marks[market] = max(1000, self.marks[market] * (1000 + per_mille) // 1000)
        self.do(kind=Kinds.ORACLE, market=market, price=self.marks[market])


def settle(traders):
    """Blocks until nobody is looked at any more."""
    for _ in range(100):
        traders.block()
        if traders.state.heap[0]["circle_left"] == traders.state.heap[0]["funding_left"] == 0:
            return
    raise AssertionError("circles do not end")


def are_sound(traders):
    """Everybody has two thirds of the maintenance margin at least: less is never left to the book."""
    state, markets = traders.state, len(traders.state.markets)
    for account in range(1, int(state.status[0]["account_count"])):
        row, fine = state.accounts[account], True
        if row["marks"] == state.heap[0]["marks"] and row["maintenance"] > 0:
            fine = 3 * (int(row["cash"]) + int(row["profit"])) >= 2 * int(row["maintenance"])
        assert fine, f"account {account}"
        assert int(row["cash"]) >= 0 or any(state.positions["size"][account * markets :][:markets])


def play(seed, steps):
    traders = Traders(seed)
    for _ in range(steps):
        traders.step()
    settle(traders)
    are_sound(traders)
    return traders.methods


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        streams = [(seed, STEPS) for seed in SEEDS]
        if metafunc.config.getoption("--soak"):
            streams += [(seed, SOAK_STEPS) for seed in SOAK_SEEDS]
        metafunc.parametrize(("seed", "steps"), streams)


def test_nothing_is_lost_and_nobody_is_forgotten(seed, steps):
    play(seed, steps)


def test_every_way_out_is_taken():
    taken = [play(seed, STEPS) for seed in SEEDS]
    for method in (Method.MARKET, Method.BACKSTOP, Method.DELEVERAGING):
        assert sum(each[method] for each in taken) > 0, method
