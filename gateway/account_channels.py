"""The channels that an exchange of our own has besides those of `channels`: accounts, contexts, candles.

An account's state is told when the account has changed, and looked at again every second or so, because
prices move it too. Candles are an event channel, so that nobody misses how one ended; what each message says
is as new as the world, and not older than its block.
"""

from typing import Any

import numpy as np

from gateway import account_info, accounts, candles, contracts, encode, interest, ledger, twaps
from gateway import exchange_schema as asked
from gateway.bound import Block, Bound, First, State, gather, missed
from gateway.codec import encode as json
from gateway.errors import NotNow
from gateway.world import Array, World
from shm import layout

CANDLES_REPAIRED = 100  # of the newest that are told anew after a gap


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


class TwapStatesChannel(Bound):
    """twapStates: an account's TWAPs that run, as they stand."""

    is_state = True
    wants = interest.FUNDS | interest.TWAPS  # what executes something has moved the account's money

    def __init__(self, subscription: asked.TwapStates):
        super().__init__("twapStates", subscription.key, user=_user_of(subscription))
        self._dex = subscription.dex or ""

    def read(self, world: World) -> State:
        status, row = world.look(), None if self._dex else self.row
        return State(json(twaps.states(world, row)), status.height, status.time_ms)

    def message(self, state: State) -> bytes:
        return b'{"channel":"twapStates","data":{"dex":%b,"user":%b,"states":%b}}' % (
            json(self._dex),
            json(self.user),
            state.core,
        )


class ConstantChannel(Bound):
    """spotState, spotAssetCtxs: what never changes, because it is not here."""

    is_state = True

    def __init__(self, subscription: asked.SpotState | asked.SpotContexts):
        user = None if isinstance(subscription, asked.SpotContexts) else _user_of(subscription)
        super().__init__(asked.tag_of(subscription), subscription.key, user=user)
        self._core = json(_constant(subscription))

    def read(self, world: World) -> State:
        status = world.look()
        return State(self._core, status.height, status.time_ms)

    def message(self, state: State) -> bytes:
        return b'{"channel":"%b","data":%b}' % (self.name.encode(), state.core)


def _constant(subscription: asked.SpotState | asked.SpotContexts) -> Any:
    if isinstance(subscription, asked.SpotContexts):
        return []
    return {"user": _user_of(subscription), "spotState": {"balances": []}}


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


class EntriesChannel(Bound):
    """An account's entries of a ring: the newest, marked as a snapshot; then each block's."""

    repairable = True
    section = prior = list_key = ""  # of the world; the account's link to its newest; the message's list
    table = "funds"  # where that link is
    answer_max = ledger.ANSWER_MAX

    def __init__(self, subscription: asked.OfUser):
        super().__init__(asked.tag_of(subscription), subscription.key, user=_user_of(subscription))

    def first(self, world: World) -> First:
        height, entries = world.look().height, self.of(self._entries(world))[: self.answer_max]
        shown = entries[entries["height"] <= height]
        return First([self._message(world, shown, b'"isSnapshot":true,')], height)

    def tell(self, block: Block, first: int) -> list[bytes]:
        entries = self.of(gather(block, self.section, first, block.account_links))
        return [self._message(block.world, entries)] if len(entries) else []

    def since(self, world: World, after: int, until: int) -> list[bytes]:
        if self.row is None:
            return []
        newest = int(world.arrays[self.table][self.prior][self.row])
        later = self.of(missed(self._entries(world), "account_prior", newest, after, until))
        return [self._message(world, later)] if len(later) else []

    def read(self, world: World, row: int) -> Array:
        """The newest entries of the account in this row, newest first."""
        raise NotImplementedError

    def of(self, entries: Array) -> Array:
        """Those of them that are told here."""
        return entries

    def text(self, world: World, entries: Array) -> bytes:
        """Them, joined by commas."""
        raise NotImplementedError

    def _entries(self, world: World) -> Array:
        if self.row is None:
            return np.zeros(0, world.arrays[self.section].dtype)
        return self.read(world, self.row)

    def _message(self, world: World, entries: Array, flag: bytes = b"") -> bytes:
        head = b'{"channel":"%b","data":{%b"user":%b,"%b":[' % (
            self.name.encode(),
            flag,
            json(self.user),
            self.list_key.encode(),
        )
        return head + self.text(world, entries) + b"]}}"


class LedgerChannel(EntriesChannel):
    """userNonFundingLedgerUpdates: what moved an account's money, but for funding."""

    wants = interest.LEDGER
    section, prior, list_key = "ledger", "last_ledger", "nonFundingLedgerUpdates"

    def read(self, world: World, row: int) -> Array:
        return ledger.read(world, row)

    def of(self, entries: Array) -> Array:
        return ledger.of_the_rest(entries)

    def text(self, world: World, entries: Array) -> bytes:
        return b",".join(json(ledger.update(world, entry)) for entry in entries)


class FundingsChannel(LedgerChannel):
    """userFundings: what was paid or received for positions."""

    list_key = "fundings"

    def of(self, entries: Array) -> Array:
        return ledger.of_funding(entries)

    def text(self, world: World, entries: Array) -> bytes:
        return b",".join(json(ledger.funding(world, entry)) for entry in entries)


class TwapHistoryChannel(EntriesChannel):
    """userTwapHistory: how an account's TWAPs began and ended."""

    wants = interest.TWAPS
    section, prior, list_key = "twaps", "last_twap", "history"
    answer_max = twaps.ANSWER_MAX

    def read(self, world: World, row: int) -> Array:
        return twaps.history(world, row)

    def text(self, world: World, entries: Array) -> bytes:
        return b",".join(json(twaps.update(world, entry)) for entry in entries)


class TwapFillsChannel(EntriesChannel):
    """userTwapSliceFills: those of an account's fills that its TWAPs have made."""

    wants = interest.FILLS
    section, prior, list_key, table = "fills", "last_fill", "twapSliceFills", "accounts"
    answer_max = twaps.ANSWER_MAX

    def read(self, world: World, row: int) -> Array:
        return world.fills(row, twaps.KEPT)

    def of(self, entries: Array) -> Array:
        return twaps.of_slices(entries)

    def text(self, world: World, entries: Array) -> bytes:
        return world.slice_fills_json(entries)


StateChannel = (
    StateOfAccount
    | WebDataChannel
    | TradableChannel
    | TwapStatesChannel
    | ContextChannel
    | ContextsChannel
    | ConstantChannel
)
EventChannel = CandleChannel | HistoryChannel | EntriesChannel

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
    asked.TwapStates: TwapStatesChannel,
    asked.Candle: CandleChannel,
    asked.History: HistoryChannel,
    asked.LedgerUpdates: LedgerChannel,
    asked.Fundings: FundingsChannel,
    asked.TwapFills: TwapFillsChannel,
    asked.TwapHistory: TwapHistoryChannel,
}
