"""What an exchange of our own answers to POST /info, and a world that follows a node cannot.

Each answer is what the rows say, or the empty form that the wire has for what there is not here:
vaults, referrals, builders' fees, spot. A user who was never seen has nothing, and is no error.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from gateway import accounts, candles, contracts, encode, ledger, portfolio, schema, twaps
from gateway import exchange_schema as asked
from gateway.accounts import Account
from gateway.codec import encode as json
from gateway.contracts import usd
from gateway.older import EVER, Wanted, chain, everything, finished
from gateway.world import Array, World
from shm import layout
from shm.archived import CLOSED, FILLS, LEDGER, RATES, REJECTED, TWAPS
from shm.codes import Status
from shm.constants import USER_FILLS_MAX

HISTORY_MAX = 2000  # orders in one answer, as on the wire
ORDER_FIELDS = (
    "order", "price", "quantity", "original", "trigger_price", "timestamp_ms", "cloid", "market", "account",
    "side", "condition", "flags", "tif", "order_type",
)  # fmt: skip
FILLS_SEARCHED = 10_000  # of an account, for those within a time


def row_of(world: World, user: str) -> int | None:
    """The row of a user's account, once it was seen."""
    return world.account(bytes.fromhex(user[2:]))


def account_of(world: World, row: int | None, dex: str = "") -> Account | None:
    """The account in this row, if there is one: there is no dex but the main one."""
    return None if row is None or dex else accounts.read(world, row)


# --- accounts ----------------------------------------------------------------------------------------------


def _state(world: World, request: schema.ClearinghouseState) -> bytes:
    account = account_of(world, row_of(world, request.user), request.dex or "")
    return json(accounts.state(account, world.look().time_ms))


def _tradable(world: World, request: asked.TradableInfo) -> bytes:
    market = world.market(request.coin)
    if market is None:
        return b"null"
    row = row_of(world, request.user)
    return json({"user": request.user.lower()} | accounts.tradable(world, row, market))


def _rate_limit(world: World, request: asked.RateLimit) -> bytes:
    account = account_of(world, row_of(world, request.user))
    volume = 0 if account is None else int(account.funds["volume"])
    return json(
        {
            "cumVlm": usd(volume),
            "nRequestsUsed": 0 if account is None else int(account.funds["actions"]),
            "nRequestsCap": accounts.REQUESTS_FREE + volume // accounts.RATE_UNIT,
            "nRequestsSurplus": 0,
        }
    )


def _portfolio(world: World, request: asked.Portfolio) -> bytes:
    return portfolio.told(world, row_of(world, request.user))


def _subs(world: World, request: asked.SubAccounts) -> bytes:
    row = row_of(world, request.user)
    found = [] if row is None else [accounts.sub_account(world, sub) for sub in accounts.subs(world, row)]
    return json(found or None)


def _subs_by_dex(world: World, request: asked.SubAccountsByDex) -> bytes:
    row = row_of(world, request.user)
    found = [] if row is None else [accounts.sub_account(world, sub) for sub in accounts.subs(world, row)]
    for sub in found:
        sub["dexToClearinghouseState"] = [["", sub.pop("clearinghouseState")]]
    return json(found or None)


def _extra_agents(world: World, request: asked.ExtraAgents) -> bytes:
    row = row_of(world, request.user)
    return json([] if row is None else accounts.extra_agents(world, row))


def _role(world: World, request: asked.Role) -> bytes:
    return json(accounts.role(world, row_of(world, request.user), bytes.fromhex(request.user[2:])))


def _referral(world: World, request: asked.Referral) -> bytes:
    account = account_of(world, row_of(world, request.user))
    nothing = usd(0)
    return json(
        {
            "referredBy": None,
            "cumVlm": nothing if account is None else usd(int(account.funds["volume"])),
            "unclaimedRewards": nothing,
            "claimedRewards": nothing,
            "builderRewards": nothing,
            "referrerState": {"stage": "needToCreateCode"},
            "rewardHistory": [],
            "tokenToState": [],
        }
    )


def web_data_core(world: World, row: int | None, user: str) -> bytes:
    """webData2 without the time and without its last brace."""
    account = account_of(world, row)
    agent = None if row is None else accounts.unnamed_agent(world, row)
    orders = b"" if row is None else b"".join(world.orders_json(world.orders_of(row), encode.FRONTEND))
    facts: dict[str, Any] = {
        "leadingVaults": [],
        "totalVaultEquity": usd(0),
        "agentAddress": agent and agent["address"],
        "agentValidUntil": agent and agent["validUntil"],
        "cumLedger": usd(0 if account is None else int(account.funds["deposited"])),
        "meta": contracts.meta(world),
        "isVault": False,
        "user": user,
        "twapStates": twaps.states(world, row),
        "spotState": {"balances": []},
        "spotAssetCtxs": [],
        "perpsAtOpenInterestCap": contracts.at_interest_cap(world),
    }
    state = json(accounts.state_core(account))
    return b'%b,"assetCtxs":%b,"openOrders":[%b],"clearinghouseState":%b' % (
        json(facts)[:-1],
        contracts.contexts(world),
        orders,
        state[:-1],
    )


def web_data(core: bytes, time_ms: int) -> bytes:
    """webData2, of its core."""
    return core + b',"time":%d},"serverTime":%d}' % (time_ms, time_ms)


def _web_data(world: World, request: asked.WebDataInfo) -> bytes:
    core = web_data_core(world, row_of(world, request.user), request.user.lower())
    return web_data(core, world.look().time_ms)


# --- the past ----------------------------------------------------------------------------------------------


def history(world: World, row: int) -> Array:
    """An account's newest orders, each with its last word (ENDED[]), newest first; as far as rings go."""
    return _newest(
        [world.closed_of(row, HISTORY_MAX), world.rejected_of(row, HISTORY_MAX), _opened(world, row)]
    )


def _opened(world: World, row: int) -> Array:
    """An account's open orders, newest first, in the form of those that have ended."""
    orders = world.orders_of(row)
    opened = np.zeros(len(orders), layout.ENDED)
    for field in ORDER_FIELDS:
        opened[field] = orders[field]
    opened["status"], opened["time_ns"] = Status.OPEN, orders["timestamp_ms"] * 1_000_000
    return opened[::-1]


def _newest(parts: list[Array]) -> Array:
    """Of orders that are newest first in each part, the newest of all."""
    found = np.concatenate(parts)
    newest_first = np.argsort(-found["time_ns"], kind="stable")
    return found[newest_first[:HISTORY_MAX]]


def _historical_orders(world: World, request: asked.HistoricalOrders) -> bytes:
    row = row_of(world, request.user)
    if row is None:
        return b"[]"
    closed, before_closed = chain(world, CLOSED, row, world.closed_of, HISTORY_MAX)
    rejected, before_rejected = chain(world, REJECTED, row, world.rejected_of, HISTORY_MAX)
    opened = _opened(world, row)
    wanted = tuple(
        Wanted(table, row, joint, HISTORY_MAX)
        for table, joint, kept in ((CLOSED, before_closed, closed), (REJECTED, before_rejected, rejected))
        if joint >= 0 and len(kept) < HISTORY_MAX
    )

    def finish(older: list[Array]) -> bytes:
        of = {each.table.name: found for each, found in zip(wanted, older, strict=True)}
        parts = (closed, of.get(CLOSED.name), rejected, of.get(REJECTED.name), opened)
        return b"[%b]" % world.ended_json(_newest([part for part in parts if part is not None]))

    return finished(wanted, finish)


class _Fills(NamedTuple):
    """Which fills are told, and how. Of more than fit, those with which their order begins."""

    of: Callable[[Array], Array]
    text: Callable[[Array], bytes]  # them, joined by commas
    newest_first: bool
    start_ms: int = 0
    end_ms: int = EVER


def _fills(world: World, user: str, told: _Fills) -> bytes:
    row = row_of(world, user)
    if row is None:
        return b"[]"
    kept, joint = chain(world, FILLS, row, world.fills, FILLS_SEARCHED)
    recent = told.of(kept[(kept["time_ms"] >= told.start_ms) & (kept["time_ms"] <= told.end_ms)])
    is_all = joint < 0 or (len(kept) > 0 and int(kept["time_ms"][-1]) < told.start_ms)
    is_enough = told.newest_first and len(recent) >= USER_FILLS_MAX
    more = Wanted(
        FILLS, row, joint, USER_FILLS_MAX, told.start_ms, told.end_ms, told.newest_first, told.of
    )  # fmt: skip

    def finish(older: list[Array]) -> bytes:
        fills = np.concatenate([recent, *older] if told.newest_first else [*older, recent[::-1]])
        return b"[%b]" % told.text(fills[:USER_FILLS_MAX])

    return finished(() if is_all or is_enough else (more,), finish)


def _fills_by_time(world: World, request: schema.FillsByTime) -> bytes:
    """Oldest first unless asked otherwise."""
    end_ms, newest_first = EVER if request.end_ms is None else request.end_ms, bool(request.newest_first)
    told = _Fills(everything, world.fills_json, newest_first, request.start_ms, end_ms)
    return _fills(world, request.user, told)


def _slice_fills(world: World, request: asked.TwapFillsInfo) -> bytes:
    told = _Fills(twaps.of_slices, world.slice_fills_json, newest_first=True)
    return _fills(world, request.user, told)


def _slice_fills_by_time(world: World, request: asked.TwapFillsByTime) -> bytes:
    """Oldest first, as other fills."""
    start_ms, end_ms = request.start_ms or 0, EVER if request.end_ms is None else request.end_ms
    told = _Fills(twaps.of_slices, world.slice_fills_json, False, start_ms, end_ms)
    return _fills(world, request.user, told)


def _twap_history(world: World, request: asked.TwapHistoryInfo) -> bytes:
    row = row_of(world, request.user)
    if row is None:
        return b"[]"
    most = twaps.ANSWER_MAX
    kept, joint = chain(world, TWAPS, row, partial(twaps.history, world), most)
    wanted = () if joint < 0 or len(kept) == most else (Wanted(TWAPS, row, joint, most),)

    def finish(older: list[Array]) -> bytes:
        entries = np.concatenate([kept, *older])[:most]
        return json([twaps.update(world, entry) for entry in entries])

    return finished(wanted, finish)


def _ledger(
    world: World, request: asked.LedgerInfo | asked.FundingInfo, of: Callable[[Array], Array]
) -> bytes:
    """Oldest first; of more than fit, the oldest, so that the next question begins where this answer ends."""
    row = row_of(world, request.user)
    if row is None:
        return b"[]"
    since_ms = 0 if request.start_ms is None else request.start_ms
    until_ms = EVER if request.end_ms is None else request.end_ms
    kept, joint = chain(world, LEDGER, row, partial(ledger.read, world), ledger.KEPT)
    recent = of(kept[(kept["time_ms"] >= since_ms) & (kept["time_ms"] <= until_ms)])
    is_all = joint < 0 or (len(kept) > 0 and int(kept["time_ms"][-1]) < since_ms)
    more = Wanted(LEDGER, row, joint, ledger.ANSWER_MAX, since_ms, until_ms, newest_first=False, of=of)

    def finish(older: list[Array]) -> bytes:
        entries = np.concatenate([*older, recent[::-1]])[: ledger.ANSWER_MAX]
        return json([ledger.update(world, entry) for entry in entries])

    return finished(() if is_all else (more,), finish)


def _updates(world: World, request: asked.LedgerInfo) -> bytes:
    return _ledger(world, request, ledger.of_the_rest)


def _fundings(world: World, request: asked.FundingInfo) -> bytes:
    return _ledger(world, request, ledger.of_funding)


def _candles(world: World, request: asked.CandleSnapshot) -> bytes:
    wanted = request.candles
    return candles.snapshot(world, wanted.coin, wanted.interval, wanted.start_ms, wanted.end_ms)


# --- contracts ---------------------------------------------------------------------------------------------


def _meta(world: World, request: schema.MetaInfo) -> bytes:
    return b"null" if request.dex else json(contracts.meta(world))


def _meta_and_contexts(world: World, request: schema.MetaAndAssetCtxs) -> bytes:
    if request.dex:
        return b"null"
    return b"[%b,%b]" % (json(contracts.meta(world)), contracts.contexts(world))


def _funding_history(world: World, request: asked.FundingHistory) -> bytes:
    """Oldest first; of more than fit, the oldest, so that the next question begins where this answer ends."""
    market = world.market(request.coin)
    if market is None:
        return b"[]"
    most, since_ms = contracts.RATES_ANSWERED, request.start_ms
    until_ms = EVER if request.end_ms is None else request.end_ms
    kept, is_all = contracts.rates(world, market)
    recent = kept[(kept["time_ms"] >= since_ms) & (kept["time_ms"] <= until_ms)]
    joint = int(kept["time_ms"][0]) if len(kept) else 0
    more = Wanted(RATES, market, joint, most, since_ms, until_ms, newest_first=False)

    def finish(older: list[Array]) -> bytes:
        hours = np.concatenate([*older, recent])[:most]
        return json([contracts.hour(world, market, each) for each in hours])

    return finished(() if is_all or joint <= since_ms else (more,), finish)


def _always(body: bytes) -> Callable[[World, Any], bytes]:
    return lambda world, request: body


_NONE, _NULL = _always(b"[]"), _always(b"null")

ANSWERS: dict[type, Callable[[World, Any], bytes]] = {
    schema.ClearinghouseState: _state,
    schema.FillsByTime: _fills_by_time,
    schema.MetaInfo: _meta,
    schema.MetaAndAssetCtxs: _meta_and_contexts,
    schema.AllPerpMetas: lambda world, request: json([contracts.meta(world)]),
    asked.TradableInfo: _tradable,
    asked.RateLimit: _rate_limit,
    asked.Fees: lambda world, request: json(contracts.fees(world)),
    asked.Portfolio: _portfolio,
    asked.SubAccounts: _subs,
    asked.SubAccountsByDex: _subs_by_dex,
    asked.ExtraAgents: _extra_agents,
    asked.Role: _role,
    asked.Referral: _referral,
    asked.VaultEquities: _NONE,
    asked.MultiSigSigners: _NULL,
    asked.ApprovedBuilders: _NONE,
    asked.MaxBuilderFee: _always(b"0"),
    asked.HistoricalOrders: _historical_orders,
    asked.LedgerInfo: _updates,
    asked.FundingInfo: _fundings,
    asked.TwapFillsInfo: _slice_fills,
    asked.TwapFillsByTime: _slice_fills_by_time,
    asked.TwapHistoryInfo: _twap_history,
    asked.WebDataInfo: _web_data,
    asked.CandleSnapshot: _candles,
    asked.FundingHistory: _funding_history,
    asked.PredictedFundings: lambda world, request: json(contracts.predicted(world)),
    asked.AtOpenInterestCap: lambda world, request: json(contracts.at_interest_cap(world)),
    asked.MarginTable: lambda world, request: json(contracts.margin_table(world, request.id)),
    asked.MaxMarketOrders: lambda world, request: json(contracts.max_market_orders()),
    asked.Liquidatable: _NONE,
}
