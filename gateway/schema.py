"""How the wire spells what clients ask. The only place with its camelCase; everyone else sees our names.

Decoding a message into these types is the whole check of its shape: a field that is absent and one that is
null mean the same, unknown keys are ignored, a wrong type is not a request.
"""

from typing import Annotated

from msgspec import Meta, Raw, field

from gateway import exchange_schema as exchange
from gateway.terms import CLOID_PATTERN, Coin, Dex, Milliseconds, Oid, PostId, User, Wire
from gateway.terms import Key as Key

DEPTH_DEFAULT, DEPTH_FAST, DEPTH_MAX = 20, 5, 100
FIGURES, MANTISSAS = (2, 3, 4, 5), (1, 2, 5)
MANTISSA_FIGURES = 5  # the only figures that a mantissa may stand with


# --- messages over WebSocket -------------------------------------------------------------------------------


class Subscribe(Wire, tag_field="method", tag="subscribe"):
    subscription: Raw


class Unsubscribe(Wire, tag_field="method", tag="unsubscribe"):
    subscription: Raw


class Post(Wire, tag_field="method", tag="post"):
    id: PostId
    request: "PostInfo | PostAction"


class Ping(Wire, tag_field="method", tag="ping"):
    pass


class LoginRequest(Wire, tag_field="method", tag="login"):
    """Ours alone: see `gateway.exchange`."""

    id: PostId
    request: Raw


class PostInfo(Wire, tag_field="type", tag="info"):
    payload: Raw


class PostAction(Wire, tag_field="type", tag="action"):
    payload: Raw


Request = Subscribe | Unsubscribe | Post | LoginRequest | Ping


# --- subscriptions -----------------------------------------------------------------------------------------


class Book(Wire, tag_field="type", tag="l2Book"):
    coin: Coin
    figures: int | None = field(name="nSigFigs", default=None)
    mantissa: int | None = None
    levels: int | None = field(name="nLevels", default=None)
    levels_too: int | None = field(name="n_levels", default=None)  # as a peer's manual spells it
    fast: bool | None = None

    @property
    def depth(self) -> int:
        asked = self.levels if self.levels is not None else self.levels_too
        return DEPTH_FAST if self.fast else DEPTH_DEFAULT if asked is None else asked

    @property
    def valid(self) -> bool:
        """Whether the parameters are ones that are served."""
        if None not in (self.levels, self.levels_too) and self.levels != self.levels_too:
            return False
        return 1 <= self.depth <= DEPTH_MAX and valid_figures(self.figures, self.mantissa)

    @property
    def key(self) -> Key:
        return "l2Book", self.coin, self.figures, self.mantissa or 1, self.depth, bool(self.fast)


class Bbo(Wire, tag_field="type", tag="bbo"):
    coin: Coin

    @property
    def key(self) -> Key:
        return "bbo", self.coin


class Trades(Wire, tag_field="type", tag="trades"):
    coin: Coin

    @property
    def key(self) -> Key:
        return "trades", self.coin


class L4Book(Wire, tag_field="type", tag="l4Book"):
    coin: Coin

    @property
    def key(self) -> Key:
        return "l4Book", self.coin


class Mids(Wire, tag_field="type", tag="allMids"):
    dex: Dex = None

    @property
    def key(self) -> Key:
        return "allMids", self.dex or ""


class OrderUpdates(Wire, tag_field="type", tag="orderUpdates"):
    user: User

    @property
    def key(self) -> Key:
        return "orderUpdates", self.user.lower()


class UserFills(Wire, tag_field="type", tag="userFills"):
    user: User
    aggregate: bool | None = field(name="aggregateByTime", default=None)

    @property
    def key(self) -> Key:
        return "userFills", self.user.lower(), bool(self.aggregate)


class UserEvents(Wire, tag_field="type", tag="userEvents"):
    user: User

    @property
    def key(self) -> Key:
        return "userEvents", self.user.lower()


class OpenOrders(Wire, tag_field="type", tag="openOrders"):
    user: User
    dex: Dex = None

    @property
    def key(self) -> Key:
        return "openOrders", self.user.lower(), self.dex or ""


class Notification(Wire, tag_field="type", tag="notification"):
    """Texts for a user. Nothing is ever sent: a node's logs hold none."""

    user: User

    @property
    def key(self) -> Key:
        return "notification", self.user.lower()


Subscription = (
    Book
    | Bbo
    | Trades
    | L4Book
    | Mids
    | OrderUpdates
    | UserFills
    | UserEvents
    | OpenOrders
    | Notification
    | exchange.Subscription
)

OF_A_COIN = (Book, Bbo, Trades, L4Book, *exchange.OF_A_COIN)
OF_A_USER = (OrderUpdates, UserFills, UserEvents, OpenOrders, Notification, *exchange.OF_A_USER)

NORMAL_KEYS: dict[type, dict[str, bytes]] = {  # what an echo holds although the client did not send it
    Book: {"nSigFigs": b"null", "mantissa": b"null"},
    UserFills: {"aggregateByTime": b"false"},
}

# What the wire has: nobody serves the first, a node's logs cannot fill the others.
NOT_SERVED = frozenset({"fastAssetCtxs", "webData3", "outcomeMetaUpdates", *exchange.SUBSCRIPTION_TAGS})


def valid_figures(figures: int | None, mantissa: int | None) -> bool:
    if figures is not None and figures not in FIGURES:
        return False
    return mantissa is None or (mantissa in MANTISSAS and figures == MANTISSA_FIGURES)


# --- POST /info --------------------------------------------------------------------------------------------


class MetaInfo(Wire, tag_field="type", tag="meta"):
    dex: Dex = None


class SpotMetaInfo(Wire, tag_field="type", tag="spotMeta"):
    pass


class MetaAndAssetCtxs(Wire, tag_field="type", tag="metaAndAssetCtxs"):
    dex: Dex = None


class SpotMetaAndAssetCtxs(Wire, tag_field="type", tag="spotMetaAndAssetCtxs"):
    pass


class AllPerpMetas(Wire, tag_field="type", tag="allPerpMetas"):
    pass


class PerpDexs(Wire, tag_field="type", tag="perpDexs"):
    pass


class OutcomeMeta(Wire, tag_field="type", tag="outcomeMeta"):
    pass


class ExchangeStatus(Wire, tag_field="type", tag="exchangeStatus"):
    pass


class AllMids(Wire, tag_field="type", tag="allMids"):
    dex: Dex = None


class BookInfo(Wire, tag_field="type", tag="l2Book"):
    coin: Coin
    figures: int | None = field(name="nSigFigs", default=None)
    mantissa: int | None = None


class RecentTrades(Wire, tag_field="type", tag="recentTrades"):
    coin: Coin


class OpenOrdersInfo(Wire, tag_field="type", tag="openOrders"):
    user: User
    dex: Dex = None


class FrontendOpenOrders(Wire, tag_field="type", tag="frontendOpenOrders"):
    user: User
    dex: Dex = None


class OrderStatus(Wire, tag_field="type", tag="orderStatus"):
    user: User
    oid: Oid | Annotated[str, Meta(pattern=CLOID_PATTERN)]


class FillsInfo(Wire, tag_field="type", tag="userFills"):
    user: User
    aggregate: bool | None = field(name="aggregateByTime", default=None)


class FillsByTime(Wire, tag_field="type", tag="userFillsByTime"):
    user: User
    start_ms: Milliseconds = field(name="startTime")
    end_ms: Milliseconds | None = field(name="endTime", default=None)
    aggregate: bool | None = field(name="aggregateByTime", default=None)
    newest_first: bool | None = field(name="reversed", default=None)


class ClearinghouseState(Wire, tag_field="type", tag="clearinghouseState"):
    user: User
    dex: Dex = None


class SpotClearinghouseState(Wire, tag_field="type", tag="spotClearinghouseState"):
    user: User


InfoRequest = (
    MetaInfo
    | SpotMetaInfo
    | MetaAndAssetCtxs
    | SpotMetaAndAssetCtxs
    | AllPerpMetas
    | PerpDexs
    | OutcomeMeta
    | ExchangeStatus
    | AllMids
    | BookInfo
    | RecentTrades
    | OpenOrdersInfo
    | FrontendOpenOrders
    | OrderStatus
    | FillsInfo
    | FillsByTime
    | ClearinghouseState
    | SpotClearinghouseState
    | exchange.InfoRequest
)


class Action(Wire):
    """As much of a POST /exchange as it takes to refuse it."""

    action: dict[str, Raw]


class Typed(Wire):
    """Anything that names its type."""

    type: str = ""
