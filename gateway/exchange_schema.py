"""How the wire spells what only an exchange of our own is asked: its accounts, contracts and candles.

Like `schema`, of which these types are a part. Where a node is followed, none of them is served.
"""

from typing import Annotated, Any, get_args

from msgspec import Meta, field

from gateway.terms import Coin, Dex, Key, Milliseconds, User, Wire
from shm.codes import INTERVALS_MS

Interval = Annotated[str, Meta(pattern=rf"\A(?:{'|'.join(INTERVALS_MS)})\Z")]


def tag_of(kind: Any) -> str:
    """The wire's name of a type that is decoded here, or of one of its values."""
    return str(kind.__struct_config__.tag)


# --- subscriptions -----------------------------------------------------------------------------------------


class OfUser(Wire):
    """What is subscribed for a user, and nothing else is asked."""

    user: User

    @property
    def key(self) -> Key:
        return tag_of(self), self.user.lower()


class SpotState(OfUser, tag_field="type", tag="spotState"):
    pass


class WebData(OfUser, tag_field="type", tag="webData2"):
    pass


class History(OfUser, tag_field="type", tag="userHistoricalOrders"):
    pass


class LedgerUpdates(OfUser, tag_field="type", tag="userNonFundingLedgerUpdates"):
    pass


class Fundings(OfUser, tag_field="type", tag="userFundings"):
    pass


class TwapFills(OfUser, tag_field="type", tag="userTwapSliceFills"):
    pass


class TwapHistory(OfUser, tag_field="type", tag="userTwapHistory"):
    pass


class AllStates(OfUser, tag_field="type", tag="allDexsClearinghouseState"):
    pass


class OfUserAndDex(Wire):
    """What is subscribed for a user on one dex."""

    user: User
    dex: Dex = None

    @property
    def key(self) -> Key:
        return tag_of(self), self.user.lower(), self.dex or ""


class State(OfUserAndDex, tag_field="type", tag="clearinghouseState"):
    pass


class TwapStates(OfUserAndDex, tag_field="type", tag="twapStates"):
    pass


class Tradable(Wire, tag_field="type", tag="activeAssetData"):
    user: User
    coin: Coin

    @property
    def key(self) -> Key:
        return "activeAssetData", self.user.lower(), self.coin


class Context(Wire, tag_field="type", tag="activeAssetCtx"):
    coin: Coin

    @property
    def key(self) -> Key:
        return "activeAssetCtx", self.coin


class Candle(Wire, tag_field="type", tag="candle"):
    coin: Coin
    interval: Interval

    @property
    def key(self) -> Key:
        return "candle", self.coin, self.interval


class Contexts(Wire, tag_field="type", tag="assetCtxs"):
    dex: Dex = None

    @property
    def key(self) -> Key:
        return "assetCtxs", self.dex or ""


class AllContexts(Wire, tag_field="type", tag="allDexsAssetCtxs"):
    @property
    def key(self) -> Key:
        return ("allDexsAssetCtxs",)


class SpotContexts(Wire, tag_field="type", tag="spotAssetCtxs"):
    @property
    def key(self) -> Key:
        return ("spotAssetCtxs",)


_ABOUT_A_USER = (
    SpotState | WebData | History | LedgerUpdates | Fundings | TwapFills | TwapHistory | AllStates
    | State | TwapStates | Tradable
)  # fmt: skip
Subscription = _ABOUT_A_USER | Context | Candle | Contexts | AllContexts | SpotContexts
SUBSCRIPTIONS: tuple[type, ...] = get_args(Subscription)
SUBSCRIPTION_TAGS = tuple(map(tag_of, SUBSCRIPTIONS))
OF_A_USER: tuple[type, ...] = get_args(_ABOUT_A_USER)
OF_A_COIN = (Tradable, Context, Candle)


# --- POST /info --------------------------------------------------------------------------------------------


class AboutUser(Wire):
    """A question about a user, and nothing else is asked."""

    user: User


class AboutUserAndTime(Wire):
    """A question about a user's past. A time that is not given is no bound."""

    user: User
    start_ms: Milliseconds | None = field(name="startTime", default=None)
    end_ms: Milliseconds | None = field(name="endTime", default=None)


class TradableInfo(Wire, tag_field="type", tag="activeAssetData"):
    user: User
    coin: Coin


class RateLimit(AboutUser, tag_field="type", tag="userRateLimit"):
    pass


class Fees(AboutUser, tag_field="type", tag="userFees"):
    pass


class Portfolio(AboutUser, tag_field="type", tag="portfolio"):
    pass


class SubAccounts(AboutUser, tag_field="type", tag="subAccounts"):
    pass


class SubAccountsByDex(AboutUser, tag_field="type", tag="subAccounts2"):
    pass


class ExtraAgents(AboutUser, tag_field="type", tag="extraAgents"):
    pass


class Role(AboutUser, tag_field="type", tag="userRole"):
    pass


class Referral(AboutUser, tag_field="type", tag="referral"):
    pass


class VaultEquities(AboutUser, tag_field="type", tag="userVaultEquities"):
    pass


class MultiSigSigners(AboutUser, tag_field="type", tag="userToMultiSigSigners"):
    pass


class ApprovedBuilders(AboutUser, tag_field="type", tag="approvedBuilders"):
    pass


class MaxBuilderFee(Wire, tag_field="type", tag="maxBuilderFee"):
    user: User
    builder: User


class HistoricalOrders(AboutUser, tag_field="type", tag="historicalOrders"):
    pass


class LedgerInfo(AboutUserAndTime, tag_field="type", tag="userNonFundingLedgerUpdates"):
    pass


class FundingInfo(AboutUserAndTime, tag_field="type", tag="userFunding"):
    pass


class TwapFillsInfo(AboutUser, tag_field="type", tag="userTwapSliceFills"):
    pass


class TwapFillsByTime(AboutUserAndTime, tag_field="type", tag="userTwapSliceFillsByTime"):
    pass


class TwapHistoryInfo(AboutUser, tag_field="type", tag="twapHistory"):
    pass


class WebDataInfo(AboutUser, tag_field="type", tag="webData2"):
    pass


class Candles(Wire):
    coin: Coin
    interval: Interval
    start_ms: Milliseconds = field(name="startTime")
    end_ms: Milliseconds | None = field(name="endTime", default=None)


class CandleSnapshot(Wire, tag_field="type", tag="candleSnapshot"):
    candles: Candles = field(name="req")


class FundingHistory(Wire, tag_field="type", tag="fundingHistory"):
    coin: Coin
    start_ms: Milliseconds = field(name="startTime")
    end_ms: Milliseconds | None = field(name="endTime", default=None)


class PredictedFundings(Wire, tag_field="type", tag="predictedFundings"):
    pass


class AtOpenInterestCap(Wire, tag_field="type", tag="perpsAtOpenInterestCap"):
    dex: Dex = None


class MarginTable(Wire, tag_field="type", tag="marginTable"):
    id: int
    dex: Dex = None


class MaxMarketOrders(Wire, tag_field="type", tag="maxMarketOrderNtls"):
    pass


class Liquidatable(Wire, tag_field="type", tag="liquidatable"):
    pass


InfoRequest = (
    TradableInfo | RateLimit | Fees | Portfolio | SubAccounts | SubAccountsByDex | ExtraAgents | Role
    | Referral | VaultEquities | MultiSigSigners | ApprovedBuilders | MaxBuilderFee | HistoricalOrders
    | LedgerInfo | FundingInfo | TwapFillsInfo | TwapFillsByTime | TwapHistoryInfo | WebDataInfo
    | CandleSnapshot | FundingHistory | PredictedFundings | AtOpenInterestCap | MarginTable
    | MaxMarketOrders | Liquidatable
)  # fmt: skip
INFO_REQUESTS: tuple[type, ...] = get_args(InfoRequest)
