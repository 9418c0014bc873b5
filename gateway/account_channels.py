"""The channels that an exchange of our own has besides those of `channels`: accounts, contexts, candles.

An account's state is told when the account has changed, and looked at again every second or so, because
prices move it too. Candles are an event channel, so that nobody misses how one ended; what each message says
is as new as the world, and not older than its block.
"""

from typing import Any

import numpy as np

from gateway import account_info, accounts, candles, contracts, encode, interest, ledger
from gateway import exchange_schema as asked
from gateway.bound import Block, Bound, First, State, gather, missed
from gateway.codec import encode as json
from gateway.errors import NotNow
from gateway.world import Array, World
from shm import layout

CANDLES_REPAIRED = 100  # of the newest that are told anew after a gap
EMPTY_SNAPSHOTS = {  # what there is not here: the key of the list that is empty
    asked.TwapFills: "twapSliceFills",
    asked.TwapHistory: "history",
}


def _user_of(subscription: asked.OfUser | asked.OfUserAndDex | asked.Tradable) -> str:
    return subscription.user.lower()


# --- state channels ----------------------------------------------------------------------------------------


class StateOfAccount(Bound):
    """clearinghouseState: an account's margin and positions."""

    is_state = is_marked = True
    wants = interest.FUNDS

    def __init__(self, subscription: asked.State):
        super().__init__("clearinghouseState", subscription.key, user=_user_of(subscription))
        self._dex = subscription.dex or ""

    def read(self, world: World) -> State:
        status = world.look()
        account = account_info.account_of(world, self.row, self._dex)
        return State(json(accounts.state_core(account))[:-1], status.height, status.time_ms)

    def message(self, state: State) -> bytes:
        head = b'{"channel":"clearinghouseState","data":{"dex":%b,"user":%b,"clearinghouseState":' % (
            json(self._dex),
            json(self.user),
        )
        return head + state.core + b',"time":%d}}}' % state.time_ms


class AllStatesOfAccount(StateOfAccount):
    """allDexsClearinghouseState: the same, of the only dex."""

    def __init__(self, subscription: asked.AllStates):
        Bound.__init__(self, "allDexsClearinghouseState", subscription.key, user=_user_of(subscription))
        self._dex = ""

    def message(self, state: State) -> bytes:
        head = b'{"channel":"allDexsClearinghouseState","data":{"user":%b,"clearinghouseStates":[["",' % json(
            self.user
        )
        return head + state.core + b',"time":%d}]]}}' % state.time_ms


class WebDataChannel(Bound):
    """webData2: all that a screen shows of an account, every second or so."""

    is_state = is_marked = True

    def __init__(self, subscription: asked.WebData):
        super().__init__("webData2", subscription.key, user=_user_of(subscription))

    def read(self, world: World) -> State:
        status = world.look()
        core = account_info.web_data_core(world, self.row, self.user or "")
        return State(core, status.height, status.time_ms)

    def message(self, state: State) -> bytes:
        return b'{"channel":"webData2","data":%b}' % account_info.web_data(state.core, state.time_ms)


class TradableChannel(Bound):
    """activeAssetData: what a user may buy and sell of a coin."""

    is_state = is_marked = True
    wants = interest.FUNDS | interest.OPEN

    def __init__(self, subscription: asked.Tradable):
        super().__init__("activeAssetData", subscription.key, user=_user_of(subscription))
        self._coin = subscription.coin

    def read(self, world: World) -> State:
        status, market = world.look(), world.market(self._coin)
        if market is None:
            raise NotNow  # a new world, which does not have its markets yet
        tradable = accounts.tradable(world, self.row, market)
        return State(json({"user": self.user} | tradable), status.height, status.time_ms)

    def message(self, state: State) -> bytes:
        return b'{"channel":"activeAssetData","data":%b}' % state.core


class ContextChannel(Bound):
    """activeAssetCtx: a market's context."""

    is_state = is_marked = True
    wants = interest.BOOK | interest.PRICE

    def __init__(self, subscription: asked.Context):
        super().__init__("activeAssetCtx", subscription.key, coin=subscription.coin)

    def read(self, world: World) -> State:
        assert self.row is not None
        status = world.look()
        return State(contracts.context(world, self.row), status.height, status.time_ms)

    def message(self, state: State) -> bytes:
        return b'{"channel":"activeAssetCtx","data":{"coin":%b,"ctx":%b}}' % (json(self.coin), state.core)


class ContextsChannel(Bound):
    """assetCtxs, allDexsAssetCtxs: the contexts of all markets, every second or so."""

    is_state = is_marked = True

    def __init__(self, subscription: asked.Contexts | asked.AllContexts):
        super().__init__(asked.tag_of(subscription), subscription.key)
        dex = subscription.dex or "" if isinstance(subscription, asked.Contexts) else None
        self._is_empty = bool(dex)
        self._head, self._end = (
            (b'{"ctxs":[["",', b"]]}") if dex is None else (b'{"dex":%b,"ctxs":' % json(dex), b"}")
        )

    def read(self, world: World) -> State:
        status = world.look()
        core = b"[]" if self._is_empty else contracts.contexts(world)
        return State(core, status.height, status.time_ms)

    def message(self, state: State) -> bytes:
        return b'{"channel":"%b","data":%b%b%b}' % (self.name.encode(), self._head, state.core, self._end)


class ConstantChannel(Bound):
    """spotState, spotAssetCtxs, twapStates: what never changes, because it is not here."""

    is_state = True

    def __init__(self, subscription: asked.SpotState | asked.SpotContexts | asked.TwapStates):
        user = None if isinstance(subscription, asked.SpotContexts) else _user_of(subscription)
        super().__init__(asked.tag_of(subscription), subscription.key, user=user)
        self._core = json(_constant(subscription))

    def read(self, world: World) -> State:
        status = world.look()
        return State(self._core, status.height, status.time_ms)

    def message(self, state: State) -> bytes:
        return b'{"channel":"%b","data":%b}' % (self.name.encode(), state.core)


def _constant(subscription: asked.SpotState | asked.SpotContexts | asked.TwapStates) -> Any:
    if isinstance(subscription, asked.SpotContexts):
        return []
    if isinstance(subscription, asked.SpotState):
        return {"user": _user_of(subscription), "spotState": {"balances": []}}
    return {"dex": subscription.dex or "", "user": _user_of(subscription), "states": []}


# --- event channels ----------------------------------------------------------------------------------------


class CandleChannel(Bound):
    """candle: the newest candle, whenever a trade has moved it; and before it those that ended meanwhile."""

    wants = interest.PRICE
    repairable = True

    def __init__(self, subscription: asked.Candle):
        super().__init__("candle", subscription.key, coin=subscription.coin)
        self._interval = subscription.interval
        self._told = b""  # what was said last, to all who read
        self._told_start_ms: int | None = None  # when that candle began; None: nothing was said yet

    def first(self, world: World) -> First:
        height = world.look().height
        newest = self._read(world, 0, 1)
        messages = [self._message(world, newest)] if len(newest) else []
        if self._told_start_ms is None:
            self._told_start_ms = int(newest["start_ms"][0]) if len(newest) else 0
        return First(messages, height)

    def tell(self, block: Block, first: int) -> list[bytes]:
        return self._tell(block.world)

    def since(self, world: World, after: int, until: int) -> list[bytes]:
        return self._tell(world)

    def _tell(self, world: World) -> list[bytes]:
        """The candle that was told last, if it has changed since, and all after it."""
        start_ms = self._told_start_ms
        newer = self._read(world, start_ms or 0, 1 if start_ms is None else CANDLES_REPAIRED)[::-1].copy()
        said = [self._message(world, newer[i : i + 1]) for i in range(len(newer))]
        said = [message for message in said if message != self._told]
        if said:
            self._told, self._told_start_ms = said[-1], int(newer["start_ms"][-1])
        return said

    def _read(self, world: World, start_ms: int, most: int) -> Array:
        if self.row is None:
            return np.zeros(0, layout.CANDLE)
        return candles.read(world, self.row, self._interval, start_ms, candles.NEVER_MS, most)

    def _message(self, world: World, candle: Array) -> bytes:
        assert self.row is not None
        text = candles.text(world, self.row, self._interval, candle)
        return b'{"channel":"candle","data":%b}' % text


class HistoryChannel(Bound):
    """userHistoricalOrders: every order that is known, with its last word; then every status."""

    wants = interest.ORDERS
    restarts = True

    def __init__(self, subscription: asked.History):
        super().__init__("userHistoricalOrders", subscription.key, user=_user_of(subscription))
        head = b'{"channel":"userHistoricalOrders","data":{%b"user":%b,"orderHistory":['
        self._first, self._later = (head % (flag, json(self.user)) for flag in (b'"isSnapshot":true,', b""))

    def first(self, world: World) -> First:
        status, text = world.look(), b""
        if self.row is not None:
            history = account_info.history(world, self.row)
            until = (history["height"] <= status.height) & (history["time_ns"] <= status.time_ns)
            text = world.ended_json(history[until])
        return First([self._first, text, b"]}}"], status.height)

    def tell(self, block: Block, first: int) -> list[bytes]:
        updates = block.world.updates_json(block.events, block.account_links, first, encode.FRONTEND)
        return [self._later + updates + b"]}}"] if updates else []


class LedgerChannel(Bound):
    """userNonFundingLedgerUpdates: the newest entries, marked as a snapshot; then each block's."""

    wants = interest.LEDGER
    repairable = True
    list_key = "nonFundingLedgerUpdates"
    of = staticmethod(ledger.of_the_rest)
    text = staticmethod(ledger.update)

    def __init__(self, subscription: asked.LedgerUpdates | asked.Fundings):
        super().__init__(asked.tag_of(subscription), subscription.key, user=_user_of(subscription))

    def first(self, world: World) -> First:
        height, entries = world.look().height, self.of(self._entries(world))[: ledger.ANSWER_MAX]
        shown = entries[entries["height"] <= height]
        return First([self._message(world, shown, {"isSnapshot": True})], height)

    def tell(self, block: Block, first: int) -> list[bytes]:
        entries = self.of(gather(block, "ledger", first, block.account_links))
        return [self._message(block.world, entries)] if len(entries) else []

    def since(self, world: World, after: int, until: int) -> list[bytes]:
        if self.row is None:
            return []
        newest = int(world.arrays["funds"]["last_ledger"][self.row])
        later = self.of(missed(self._entries(world), "account_prior", newest, after, until))
        return [self._message(world, later)] if len(later) else []

    def _entries(self, world: World) -> Array:
        if self.row is None:
            return np.zeros(0, layout.LEDGER)
        return ledger.read(world, self.row)

    def _message(self, world: World, entries: Array, more: dict[str, Any] | None = None) -> bytes:
        listed = [self.text(world, entry) for entry in entries]
        told = {"user": self.user, self.list_key: listed}
        return b'{"channel":"%b","data":%b}' % (self.name.encode(), json((more or {}) | told))


class FundingsChannel(LedgerChannel):
    """userFundings: what was paid or received for positions, likewise."""

    list_key = "fundings"
    of = staticmethod(ledger.of_funding)
    text = staticmethod(ledger.funding)


class EmptyChannel(Bound):
    """userTwapSliceFills, userTwapHistory: an empty snapshot, and nothing ever after it."""

    repairable = True

    def __init__(self, subscription: asked.TwapFills | asked.TwapHistory):
        super().__init__(asked.tag_of(subscription), subscription.key, user=_user_of(subscription))
        self._key = EMPTY_SNAPSHOTS[type(subscription)]

    def first(self, world: World) -> First:
        told: dict[str, Any] = {"isSnapshot": True, "user": self.user, self._key: []}
        message = b'{"channel":"%b","data":%b}' % (self.name.encode(), json(told))
        return First([message], world.look().height)

    def tell(self, block: Block, first: int) -> list[bytes]:
        return []

    def since(self, world: World, after: int, until: int) -> list[bytes]:
        return []


StateChannel = (
    StateOfAccount | WebDataChannel | TradableChannel | ContextChannel | ContextsChannel | ConstantChannel
)
EventChannel = CandleChannel | HistoryChannel | LedgerChannel | EmptyChannel

CHANNELS: dict[type, type] = {
    asked.State: StateOfAccount,
    asked.AllStates: AllStatesOfAccount,
    asked.WebData: WebDataChannel,
    asked.Tradable: TradableChannel,
    asked.Context: ContextChannel,
    asked.Contexts: ContextsChannel,
    asked.AllContexts: ContextsChannel,
    asked.SpotState: ConstantChannel,
    asked.SpotContexts: ConstantChannel,
    asked.TwapStates: ConstantChannel,
    asked.Candle: CandleChannel,
    asked.History: HistoryChannel,
    asked.LedgerUpdates: LedgerChannel,
    asked.Fundings: FundingsChannel,
    asked.TwapFills: EmptyChannel,
    asked.TwapHistory: EmptyChannel,
}
