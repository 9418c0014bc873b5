"""What the naive exchange is made of: markets, orders, positions, accounts, signers."""

from dataclasses import dataclass, field

from engine.exchange.records import Role
from shm.codes import Flag, Oracle, Refusal, Side, Tif, Trading
from tests.exchange.prices import Mean
from tests.exchange.terms import NO_TEXT

MICRO = 10**6
PRICE_MAX = AMOUNT_MAX = 10**15
CASH_MAX = 10**17


def ceil_div(a, b):
    return -(-a // b)


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
    sound_mark: int = 0
    oracle: int = 0
    external: int = 0
    oracle_ms: int = 0
    oracle_state: int = Oracle.NEVER
    mode: int = Trading.OPEN
    basis: Mean = field(default_factory=lambda: Mean(150_000))
    smooth: Mean = field(default_factory=lambda: Mean(30_000))
    premiums: list = field(default_factory=list)  # of the hour under way
    premium: int = 0
    impact_bid: int = 0
    impact_ask: int = 0
    interest_cap: int = 0
    price_band: int = 800
    mark_step: int = 0
    impact_notional: int = 6000
    tiers: list = field(default_factory=list)  # (notional, leverage, deduction)
    sides: tuple = field(default_factory=lambda: ({}, {}))  # oid -> Order, buys and sells, first come first
    waiting: dict = field(default_factory=dict)  # oid -> Order that the mark triggers, first come first

    def value_max(self, tif):
        steps = ((25, 150), (20, 50), (10, 20), (0, 5))
        millions = next(value for leverage, value in steps if self.max_leverage >= leverage)
        return millions * MICRO * MICRO // (10 if tif == Tif.MARKET else 1)

    def best(self, side):
        """The order that is the first to be taken from a side, or None."""
        sign = -1 if side == Side.BUY else 1
        return min(self.sides[side].values(), key=lambda order: sign * order.price, default=None)

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
    method: int = 0  # how it sells for its owner's lack of margin
    is_stopped: bool = False  # its owner could not bear one more fill
    trigger_price: int = 0
    condition: int = 0  # codes.Condition
    waits: bool = False  # for the mark, or for its parent
    of_position: bool = False
    group: int = 0
    role: int = Role.ALONE

    @property
    def sign(self):
        return 1 if self.side == Side.BUY else -1

    @property
    def flags(self):
        flags = Flag.REDUCE_ONLY * self.reduce + Flag.HAS_CLOID * (self.cloid is not None)
        return flags + Flag.IS_TRIGGER * self.waits + Flag.POSITION_TPSL * self.of_position

    @property
    def closable(self):
        return max(0, -self.sign * self.account.position(self.market).size)

    @property
    def text(self):
        return self.cloid or NO_TEXT


@dataclass
class Position:
    market: Market
    leverage: int
    is_cross: bool = True
    size: int = 0
    entry: int = 0
    isolated: int = 0
    realised: int = 0


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
    funded: int = 0
    deposited: int = 0
    actions: int = 0
    is_killed: bool = False
    part_ms: int | None = None  # when a part of a large position was last sold for it, and in which block
    part_height: int = 0
    schedule_ms: int = 0
    fired: dict = field(default_factory=dict)  # day -> scheduled cancels that fired on it
    orders: dict = field(default_factory=dict)  # oid -> Order, in the order in which they came to rest
    positions: dict = field(default_factory=dict)  # market number -> Position

    def position(self, market):
        if market.number not in self.positions:
            self.positions[market.number] = Position(market, min(20, market.max_leverage))
        return self.positions[market.number]


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


class Refused(Exception):
    """A command is not done: `code`, and for POST_ONLY the touch."""

    def __init__(self, code, bid=0, ask=0):
        super().__init__(code)
        self.code, self.bid, self.ask = code, bid, ask


def check_amount(amount):
    if not 1 <= amount <= AMOUNT_MAX:
        raise Refused(Refusal.AMOUNT)


def check_room(account, amount):
    if account.cash + amount > CASH_MAX:
        raise Refused(Refusal.AMOUNT)


def trade_id(buyer, seller):
    """The name of the trade between two orders: fifty bits that look like chance."""
    return _mix(_mix(buyer) ^ seller) % 2**50


def _mix(key):
    word = key * 0x9E3779B97F4A7C15 % 2**64
    return (word ^ word >> 29) >> 1


def fees_of(market, notional):
    """The maker's and the taker's. A rebate is never more than the fee that pays for it."""
    maker, taker = (ceil_div(notional * rate, MICRO) for rate in (market.maker_rate, market.taker_rate))
    return max(maker, -taker), taker


def plain(field):
    return int(field) if not isinstance(field, bytes) else field
