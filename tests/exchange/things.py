"""What the naive exchange is made of: markets, orders, positions, accounts, signers, and sums over them."""

from dataclasses import dataclass, field

from shm.codes import Flag, Side, Tif
from tests.exchange.terms import NO_TEXT

MICRO = 10**6
PRICE_MAX = 10**15


def ceil_div(a, b):
    return -(-a // b)


def toward_zero(a, b):
    return a // b if a >= 0 else -(-a // b)


@dataclass
class Market:
    number: int
    name: bytes
    size_decimals: int
    max_leverage: int
    maker_rate: int
    taker_rate: int
    reference: int
    interest: int = 0
    mark: int = 0
    mark_ms: int = 0
    sides: tuple = field(default_factory=lambda: ({}, {}))  # oid -> Order, buys and sells

    def value_max(self, tif):
        steps = ((25, 150), (20, 50), (10, 20), (0, 5))
        millions = next(value for leverage, value in steps if self.max_leverage >= leverage)
        return millions * MICRO * MICRO // (10 if tif == Tif.MARKET else 1)

    def best(self, side):
        """The order that is the first to be taken from a side, or None."""
        sign = -1 if side == Side.BUY else 1
        return min(self.sides[side].values(), key=lambda order: (sign * order.price, order.oid), default=None)

    def is_legal(self, price):
        if not 0 < price <= PRICE_MAX:
            return False
        digits = len(str(price))
        return price % 10 ** (6 - self.size_decimals) == 0 or price % 10 ** max(digits - 5, 0) == 0


@dataclass
class Order:
    oid: int
    account: "Account"
    market: Market
    side: int
    price: int
    quantity: int  # what remains
    original: int
    placed_ms: int
    tif: int
    cloid: bytes | None
    reduce: bool
    start: int = 0  # the account's position before its last fill

    @property
    def sign(self):
        return 1 if self.side == Side.BUY else -1

    @property
    def flags(self):
        return Flag.REDUCE_ONLY * self.reduce + Flag.HAS_CLOID * (self.cloid is not None)

    @property
    def text(self):
        return self.cloid or NO_TEXT


@dataclass
class Position:
    leverage: int
    is_cross: bool = True
    size: int = 0
    entry: int = 0
    isolated: int = 0
    realised: int = 0

    def trade(self, sign, price, quantity):
        """Buy (+1) or sell; return the profit of what was closed."""
        pnl = 0
        if self.size * sign < 0:
            close = min(abs(self.size), quantity)
            part = toward_zero(self.entry * close, abs(self.size))
            pnl = -sign * price * close - part
            self.size += sign * close
            self.entry -= part
            self.realised += pnl
            quantity -= close
        self.size += sign * quantity
        self.entry += sign * price * quantity
        return pnl


@dataclass
class Account:
    row: int
    address: bytes
    created_ms: int
    master: "Account | None" = None
    name: bytes = NO_TEXT
    cash: int = 0
    subs: int = 0
    volume: int = 0
    fees: int = 0
    realised: int = 0
    deposited: int = 0
    actions: int = 0
    schedule_ms: int = 0
    fired: dict = field(default_factory=dict)  # day -> scheduled cancels that fired on it
    orders: dict = field(default_factory=dict)  # oid -> Order, in the order in which they came to rest
    positions: dict = field(default_factory=dict)  # market number -> Position

    def position(self, market):
        if market.number not in self.positions:
            self.positions[market.number] = Position(min(20, market.max_leverage))
        return self.positions[market.number]

    def margins(self, without=None, plus=None):
        """market -> margin used; or as it would be less one order, or plus one (market, side, value)."""
        sums = {number: [0, 0] for number in self.positions}
        for order in self.orders.values():
            if not order.reduce and order is not without:
                sums[order.market.number][order.side] += order.price * order.quantity
        if plus:
            sums[plus[0].number][plus[1]] += plus[2]
        used = {}
        for number, (buys, sells) in sums.items():
            position = self.positions[number]
            largest = max(0, position.entry + buys, sells - position.entry)
            used[number] = ceil_div(largest, position.leverage)
        return used

    def used(self):
        return sum(self.margins().values())

    def free(self):
        return self.cash - self.used()


@dataclass
class Signer:
    row: int
    address: bytes
    account: Account
    is_agent: bool = False
    is_live: bool = True
    valid_until_ms: int = 0
    name: bytes = NO_TEXT
    nonces: list = field(default_factory=list)

    def may_act(self, now_ms):
        return self.is_live and not 0 < self.valid_until_ms <= now_ms
