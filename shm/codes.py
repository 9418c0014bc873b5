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
)  # fmt: skip

assert [NAMES[status] for status in Status] == [
    "open",
    "filled",
    "canceled",
    "triggered",
    "rejected",
]

TIF_GTC = NAMES.index("Gtc")
TIF_IOC = NAMES.index("Ioc")
TYPE_LIMIT = NAMES.index("Limit")


def is_refusal(text: str) -> bool:
    """Whether a status text says that the order never rested nor filled."""
    return text.endswith("ejected")
