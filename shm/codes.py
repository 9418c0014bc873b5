"""Every code that crosses a process boundary, and the texts that stand for them on the wire.

`NAMES` seeds the table of interned texts in shared memory: its first rows are these, in this order, so that a
kernel can compare with a constant; a text never seen before takes the next free row while the engine runs.
"""

from enum import IntEnum


class Mode(IntEnum):
    FOLLOW = 1  # state rebuilt from a node's logs
    EXCHANGE = 2  # state made by the engine itself


class Feed(IntEnum):
    """What the engine says of itself in the world's status."""

    WAITING = 0  # no snapshot yet, or no logs
    LIVE = 1
    SILENT = 2  # the source has stopped: what is served is old
    ENDED = 3  # a recorded source has been read to its end
    FULL = 4  # of an exchange: the journal's disk has no room, and nothing is taken but cancels


class Stale(IntEnum):
    """Why a market's book cannot be trusted; 0 when it can."""

    FRESH = 0
    NO_SNAPSHOT = 1  # never bootstrapped
    GAP = 2  # a block is missing
    UNKNOWN_ORDER = 3  # a diff named an order that is not on the book
    WRONG_SIZE = 4  # a diff's old size was not ours
    MISMATCH = 5  # a later snapshot disagreed
    CORRUPT = 6  # a line could not be read
    CAPACITY = 7  # a table is full


class MarketKind(IntEnum):
    PERP = 0
    SPOT = 1
    BUILDER = 2  # a perp of a builder-deployed dex, "dex:COIN"
    OUTCOME = 3


class EventKind(IntEnum):
    STATUS = 1  # an order's status, as the source tells it
    NEW = 2  # an order rests: quantity
    UPDATE = 3  # a resting order's quantity: original -> quantity
    REMOVE = 4  # an order left the book
    TRADE = 5  # `order` is the trade's position in the trades ring
    FILL = 6  # `order` is the fill's position in the fills ring
    BLOCK = 7  # all of block `height` has been told
    STALE = 8  # the market's book is in doubt: `status` is a Stale
    RESET = 9  # the market's book was rebuilt: take a new snapshot; its epoch has risen
    FUNDS = 10  # an account's money, positions, leverage or agents have changed: read its rows
    LEDGER = 11  # `order` is the entry's position in the ledger ring
    TWAP = 12  # one has begun or ended: `order` is the entry's position in the ring of TWAPs


class Side(IntEnum):
    BUY = 0
    SELL = 1


class OrderState(IntEnum):
    FREE = 0
    RESTING = 1
    UNTRIGGERED = 2  # a trigger order that waits: known, listed, never on the book


class Condition(IntEnum):
    NONE = 0  # "N/A"
    ABOVE = 1  # "Price above <trigger price>"
    BELOW = 2
    TRIGGERED = 3  # "Triggered"


class Flag(IntEnum):
    """Bits of an order's or a fill's `flags`."""

    REDUCE_ONLY = 1
    IS_TRIGGER = 2
    POSITION_TPSL = 4
    HAS_CLOID = 8
    SYNTHETIC = 16  # told by a diff alone: no status ever named it
    CROSSED = 32  # a fill's taker side
    LIQUIDATION = 64
    HAS_BUILDER_FEE = 128


class Command(IntEnum):
    """What an exchange can be told to do. ADD_MARKET and what follows come from its operator alone."""

    NOOP = 0
    ORDER = 1
    CANCEL = 2
    CANCEL_CLOID = 3
    MODIFY = 4
    SCHEDULE_CANCEL = 5
    UPDATE_LEVERAGE = 6
    ISOLATED_MARGIN = 7
    USD_SEND = 8
    APPROVE_AGENT = 9
    CREATE_SUB = 10
    SUB_TRANSFER = 11
    CANCEL_ALL = 12  # of one account: what a session leaves behind it
    TWAP = 13
    TWAP_CANCEL = 14
    ADD_MARKET = 32
    DEPOSIT = 33
    WITHDRAW = 34
    END_BLOCK = 35
    ORACLE = 36
    LIMITS = 37
    TIER = 38
    MODE = 39
    KILL = 40


class Trading(IntEnum):
    """Whether a market takes orders. CLOSED to new ones in all but the first; cancels are always taken."""

    OPEN = 0
    CANCEL_ONLY = 1
    HALTED = 2  # and its mark stands


class Oracle(IntEnum):
    """What is heard of a market's oracle."""

    NEVER = 0  # the market marks itself by its trades
    LIVE = 1
    OLD = 2
    STOPPED = 3  # the market takes cancels alone until it is heard again


class Method(IntEnum):
    """How a position was taken from who could not keep it."""

    NONE = 0
    MARKET = 1  # sold on the book
    BACKSTOP = 2  # the insurance account has it
    DELEVERAGING = 3  # closed against who stood on the other side


class Ask(IntEnum):
    """Bits of a command's `flags`."""

    REDUCE_ONLY = 1
    HAS_CLOID = 2
    IS_TRIGGER = 4
    BY_CLOID = 8  # MODIFY: the order to replace is named by `of`, not by `order`
    ALWAYS_PLACE = 16  # MODIFY: place the new order even where the old one is gone
    HAS_VAULT = 32
    SESSION = 64  # no nonce: the connection has proved who it is
    IS_CROSS = 128  # UPDATE_LEVERAGE
    IS_DEPOSIT = 128  # SUB_TRANSFER
    HAS_BUILDER = 128  # ORDER, MODIFY
    RANDOMIZE = 128  # TWAP


class Grouping(IntEnum):
    """What the orders of one action are to each other, or to a position."""

    NONE = 0
    NORMAL = 1  # normalTpsl: the first is the parent, what follows closes what it opens
    POSITION = 2  # positionTpsl: each goes with the position


class Tif(IntEnum):
    """How long an order waits. The wire's names are rows of NAMES, in this order from TIF_GTC on."""

    GTC = 0
    IOC = 1
    ALO = 2
    MARKET = 3  # FrontendMarket: an IOC by another name
    LIQUIDATION = 4  # LiquidationMarket: of an order that nobody asked for


class Ack(IntEnum):
    """What became of a command."""

    REFUSED = 0  # `code` says why: it never executes
    DONE = 1
    RESTING = 2
    FILLED = 3  # something was filled, and nothing rests
    WAITS_FOR_FILL = 4  # a trigger order whose parent is not filled yet
    WAITS_FOR_TRIGGER = 5  # one whose parent is filled, or that goes with a position; others are RESTING


class Refusal(IntEnum):
    """Why a command was refused. Up to ACTION_MAX of the whole action, above of one order in it."""

    NONE = 0
    UNKNOWN_SIGNER = 1
    UNKNOWN_VAULT = 2
    NONCE_DUPLICATE = 3
    NONCE_TOO_LOW = 4
    NONCE_WINDOW = 5
    EXPIRED = 6
    NOT_ALLOWED = 7  # an agent may trade, and nothing else
    UNKNOWN_MARKET = 8
    LEVERAGE_VALUE = 9
    LEVERAGE_SWITCH = 10
    LEVERAGE_MARGIN = 11
    NOT_ISOLATED = 12
    BALANCE = 13
    SCHEDULE_SOON = 14
    SCHEDULE_OFTEN = 15
    AGENT_USED = 16
    AGENTS_MANY = 17
    SUBS_MANY = 18
    SUB_UNKNOWN = 19
    AMOUNT = 20
    TABLE_FULL = 21
    NOT_A_COMMAND = 22

    PRICE = 64
    SIZE = 65
    VALUE_MIN = 66
    VALUE_MAX = 67
    MARGIN = 68
    REDUCE_ONLY = 69
    POST_ONLY = 70
    IOC = 71
    LIQUIDITY = 72
    PRICE_FAR = 73
    OPEN_ORDERS = 74
    CLOID = 75
    GONE = 76  # the order to cancel
    MODIFY_GONE = 77
    TRIGGER = 78  # the mark, or the parent's price, is beyond the trigger price
    ORDERS_FULL = 79
    ORDER_MARKET = 80
    KILLED = 81
    CLOSED = 82
    INTEREST_FAST = 83  # of open interest: too much at once
    INTEREST_FLIP = 84  # at its cap, and the order would turn a position round
    INTEREST_CAP = 85  # at its cap, and the order would open
    TIER = 86  # a position so large must have less leverage
    GROUPING = 87  # the orders are not what their grouping asks for
    PARENT = 88  # the parent was not placed, or has ended before it was filled
    TWAP_MINUTES = 89
    TWAP_VALUE = 90
    TWAP_GONE = 91  # the TWAP to cancel


ACTION_MAX = 63  # the last Refusal of a whole action


class Twap(IntEnum):
    """What has become of an order that is placed in slices over time. The wire's words are in this order."""

    ACTIVATED = 0
    FINISHED = 1
    TERMINATED = 2


class Ledger(IntEnum):
    """Why an account's cash changed, other than by trading."""

    DEPOSIT = 1
    WITHDRAW = 2
    SEND = 3  # between two accounts; both have an entry
    SUB_TRANSFER = 4
    LIQUIDATION = 5  # between an account whose margin did not suffice and the insurance account
    FUNDING = 6  # paid or received for a position
    TAKEN = 7  # nothing moved: positions were taken from it, because its margin did not suffice


class Status(IntEnum):
    """Rows of `NAMES` that kernels compare with."""

    OPEN = 1
    FILLED = 2
    CANCELED = 3
    TRIGGERED = 4
    REJECTED = 5


NONE_NAME = 0  # the empty text: null on the wire

NAMES = (
    "",
    "open", "filled", "canceled", "triggered", "rejected",
    "marginCanceled", "vaultWithdrawalCanceled", "openInterestCapCanceled", "selfTradeCanceled",
    "reduceOnlyCanceled", "siblingFilledCanceled", "delistedCanceled", "liquidatedCanceled",
    "outcomeSettledCanceled", "scheduledCancel", "internalCancel",
    "tickRejected", "minTradeNtlRejected", "minTradeSpotNtlRejected", "perpMarginRejected",
    "reduceOnlyRejected", "badAloPxRejected", "iocCancelRejected", "badTriggerPxRejected",
    "marketOrderNoLiquidityRejected", "positionIncreaseAtOpenInterestCapRejected",
    "positionFlipAtOpenInterestCapRejected", "tooAggressiveAtOpenInterestCapRejected",
    "openInterestIncreaseRejected", "insufficientSpotBalanceRejected", "oracleRejected",
    "perpMaxPositionRejected", "tooManyOpenOrdersRejected",
    "Gtc", "Ioc", "Alo", "FrontendMarket", "LiquidationMarket",
    "Market", "Limit", "Stop Market", "Stop Limit", "Take Profit Market", "Take Profit Limit",
    "Open Long", "Open Short", "Close Long", "Close Short", "Long > Short", "Short > Long", "Buy", "Sell",
    "market", "backstop", "USDC",
    "Liquidated Cross Long", "Liquidated Cross Short", "Liquidated Isolated Long",
    "Liquidated Isolated Short", "Auto-Deleveraging",
    "Twap Slice",
)  # fmt: skip

assert [NAMES[status] for status in Status] == [
    "open",
    "filled",
    "canceled",
    "triggered",
    "rejected",
]

REFUSED_AS = {  # the order status that tells of a refused order; "rejected" for all others
    Refusal.PRICE: "tickRejected",
    Refusal.VALUE_MIN: "minTradeNtlRejected",
    Refusal.MARGIN: "perpMarginRejected",
    Refusal.REDUCE_ONLY: "reduceOnlyRejected",
    Refusal.POST_ONLY: "badAloPxRejected",
    Refusal.IOC: "iocCancelRejected",
    Refusal.LIQUIDITY: "marketOrderNoLiquidityRejected",
    Refusal.PRICE_FAR: "oracleRejected",
    Refusal.OPEN_ORDERS: "tooManyOpenOrdersRejected",
    Refusal.TRIGGER: "badTriggerPxRejected",
    Refusal.TIER: "perpMaxPositionRejected",
    Refusal.INTEREST_FAST: "openInterestIncreaseRejected",
    Refusal.INTEREST_FLIP: "positionFlipAtOpenInterestCapRejected",
    Refusal.INTEREST_CAP: "positionIncreaseAtOpenInterestCapRejected",
}

INTERVALS_MS = {  # of candles; the last is a calendar month
    "1m": 60_000, "3m": 180_000, "5m": 300_000, "15m": 900_000, "30m": 1_800_000, "1h": 3_600_000,
    "2h": 7_200_000, "4h": 14_400_000, "8h": 28_800_000, "12h": 43_200_000, "1d": 86_400_000,
    "3d": 259_200_000, "1w": 604_800_000, "1M": 0,
}  # fmt: skip

TIF_GTC = NAMES.index("Gtc")
TIF_IOC = NAMES.index("Ioc")
TYPE_LIMIT = NAMES.index("Limit")


def is_refusal(text: str) -> bool:
    """Whether a status text says that the order never rested nor filled."""
    return text.endswith("ejected")
