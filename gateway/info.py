"""Answers to POST /info, from the world as it is now: one request in, the bytes of one JSON body out.

What a node's logs do not hold (funding, margin, balances) is answered by the zero or the empty form that the
wire has for it, so that clients start; nothing is guessed. An exchange of our own knows these (account_info).
A coin, a user or an order that was never seen is not an error: there is an answer for each.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gateway import account_info, channels, codec, encode, errors, schema
from gateway.codec import encode as json
from gateway.errors import NotNow, Refusal
from gateway.older import Elsewhere, Older
from gateway.world import Array, World, dex_of
from shm import layout, rows
from shm.codes import MarketKind
from shm.constants import USER_FILLS_MAX

RECENT_TRADES = 10
REJECTED_SEARCHED = 1000  # of an account's newest refusals, when one is asked for by cloid
FILLS_KEPT = 10_000  # of an account, as the wire says

USDC = {
    "name": "USDC",
    "szDecimals": 8,
    "weiDecimals": 8,
    "index": 0,
    "tokenId": "0x6d1e7cde53ba9467b783cb7c530ce054",
    "isCanonical": True,
    "evmContract": None,
    "fullName": None,
    "deployerTradingFeeShare": "0.0",
}
NOTHING = "0.0"
SUMMARY = dict.fromkeys(("accountValue", "totalNtlPos", "totalRawUsd", "totalMarginUsed"), NOTHING)
NOBODY = "0x" + "00" * 20


class Info:
    """`world` is set when there is one, and anew after each restart of the engine.

    meta, spot_meta  what the node's own info server said at the start; else they are made from the markets
    seen
    """

    def __init__(self, meta: dict[str, Any] | None = None, spot_meta: dict[str, Any] | None = None):
        self.world: World | None = None
        self.older: Older | None = None  # where an exchange keeps what its rings forget
        self._meta = meta
        self._spot_meta = spot_meta
        self._answers: dict[type, Callable[[World, Any], bytes]] = {
            schema.MetaInfo: lambda world, request: json(self._meta_of(world, request.dex or "")),
            schema.SpotMetaInfo: lambda world, request: json(self._spot_meta_of(world)),
            schema.MetaAndAssetCtxs: self._meta_and_contexts,
            schema.SpotMetaAndAssetCtxs: self._spot_meta_and_contexts,
            schema.AllPerpMetas: self._all_metas,
            schema.PerpDexs: lambda world, request: json([None, *map(_dex, world.dexs())]),
            schema.OutcomeMeta: lambda world, request: b'{"outcomes":[],"questions":[]}',
            schema.ExchangeStatus: _exchange_status,
            schema.AllMids: _mids,
            schema.BookInfo: _book,
            schema.RecentTrades: _recent_trades,
            schema.OpenOrdersInfo: lambda world, request: _open_orders(world, request, encode.BASIC),
            schema.FrontendOpenOrders: lambda world, request: _open_orders(world, request, encode.FRONTEND),
            schema.OrderStatus: _order_status,
            schema.FillsInfo: _fills,
            schema.FillsByTime: _fills_by_time,
            schema.ClearinghouseState: _clearinghouse_state,
            schema.SpotClearinghouseState: lambda world, request: b'{"balances":[]}',
        }
        self._answers_of_exchange = self._answers | account_info.ANSWERS

    def learn(self, meta: Any, spot_meta: Any) -> None:
        """Take the node's own description of its markets, each if it is one."""
        self._meta = meta if isinstance(meta, dict) and "universe" in meta else self._meta
        if isinstance(spot_meta, dict) and {"universe", "tokens"} <= spot_meta.keys():
            self._spot_meta = spot_meta

    def answer(self, body: bytes) -> bytes:
        """Answer one request. Raises Refusal (the body is not one), NotNow (ask again) and Elsewhere."""
        return self._answer(codec.decode_info(body))

    def post(self, body: bytes, reply: Callable[[str, bytes], None]) -> None:
        """Answer one request that came over WebSocket, now or later: `reply` is called with the kind of the
        response and its payload.
        """
        try:
            request = codec.decode_info(body)
            reply("info", codec.info_payload(codec.tag(request), self._answer(request)))
        except Refusal:
            reply("error", json(codec.http_text(errors.BAD_BODY)))
        except NotNow:
            reply("error", json(codec.http_text(errors.NOT_READY if self.world is None else errors.BUSY)))
        except Elsewhere as question:
            self._post_later(codec.tag(request), question, reply)

    def _post_later(self, kind: str, question: Elsewhere, reply: Callable[[str, bytes], None]) -> None:
        def answered(answer: bytes | None) -> None:
            if answer is None:
                reply("error", json(codec.http_text(errors.BUSY)))
            else:
                reply("info", codec.info_payload(kind, answer))

        assert self.older is not None
        try:
            self.older.ask(question, answered)
        except NotNow:
            answered(None)

    def _answer(self, request: schema.InfoRequest) -> bytes:
        if isinstance(request, schema.BookInfo):
            if not schema.valid_figures(request.figures, request.mantissa):
                raise Refusal(errors.BAD_BODY.message)
        if self.world is None:
            raise NotNow
        answers = self._answers_of_exchange if self.world.is_exchange else self._answers
        if type(request) not in answers:
            raise Refusal(errors.BAD_BODY.message)
        try:
            return answers[type(request)](self.world, request)
        except Elsewhere as question:
            if self.older is not None:
                raise
            return question.without()

    # what there is to trade

    def _meta_of(self, world: World, dex: str) -> dict[str, Any] | None:
        """The universe of a dex; null for one that is not known."""
        if not dex and self._meta is not None:
            return self._meta
        coins = _perps(world, dex)
        if dex and not coins:
            return None
        universe = [
            {"szDecimals": world.size_decimals(market), "name": coin, "maxLeverage": 1, "marginTableId": 1}
            for market, coin in coins
        ]
        return {"universe": universe, "marginTables": [], "collateralToken": 0}

    def _spot_meta_of(self, world: World) -> dict[str, Any]:
        """Pairs, and a token for each of them: the logs name pairs alone, and clients look every token up."""
        if self._spot_meta is not None:
            return self._spot_meta
        tokens, pairs = [USDC], []
        for market, coin in _pairs(world):
            index = spot_index(coin)
            name = coin.partition("/")[0]
            token = len(tokens)
            tokens.append(
                USDC
                | {
                    "name": name,
                    "szDecimals": world.size_decimals(market),
                    "index": token,
                    "tokenId": f"0x{token:032x}",
                    "isCanonical": False,
                }
            )
            canonical = coin != f"@{index}"
            pairs.append({"tokens": [token, 0], "name": coin, "index": index, "isCanonical": canonical})
        return {"universe": pairs, "tokens": tokens}

    def _meta_and_contexts(self, world: World, request: schema.MetaAndAssetCtxs) -> bytes:
        meta = self._meta_of(world, request.dex or "")
        if meta is None:
            return b"null"
        contexts = (_perp_context(world, asset["name"]) for asset in meta["universe"])
        return b"[%b,[%b]]" % (json(meta), b",".join(contexts))

    def _spot_meta_and_contexts(self, world: World, request: schema.SpotMetaAndAssetCtxs) -> bytes:
        meta = self._spot_meta_of(world)
        contexts = (_spot_context(world, pair["name"]) for pair in meta["universe"])
        return b"[%b,[%b]]" % (json(meta), b",".join(contexts))

    def _all_metas(self, world: World, request: schema.AllPerpMetas) -> bytes:
        return json([self._meta_of(world, dex) for dex in ("", *world.dexs())])


# --- markets -----------------------------------------------------------------------------------------------


def _perps(world: World, dex: str) -> list[tuple[int, str]]:
    kind = MarketKind.BUILDER if dex else MarketKind.PERP
    world.learn()
    return [
        (market, coin)
        for market, coin in enumerate(world.coins)
        if world.kind(market) == kind and (not dex or dex_of(coin) == dex)
    ]


def _pairs(world: World) -> list[tuple[int, str]]:
    world.learn()
    return [(m, coin) for m, coin in enumerate(world.coins) if world.kind(m) == MarketKind.SPOT]


def spot_index(coin: str) -> int:
    """The index of a spot pair: `@107` is 107; the one that has a name of its own is the first."""
    return int(coin[1:]) if coin.startswith("@") and coin[1:].isdigit() else 0


def _dex(name: str) -> dict[str, Any]:
    """A builder's dex, of which the logs tell the name alone."""
    return {
        "name": name,
        "fullName": name,
        "deployer": NOBODY,
        "oracleUpdater": None,
        "feeRecipient": None,
        "assetToStreamingOiCap": [],
        "subDeployers": [],
        "deployerFeeScale": NOTHING,
        "lastDeployerFeeScaleChangeTime": "1970-01-01T00:00:00",
        "assetToFundingMultiplier": [],
        "assetToFundingInterestRate": [],
    }


def _mid_of(world: World, coin: str) -> bytes | None:
    market = world.market(coin)
    return None if market is None else world.mid_json(market)


def _perp_context(world: World, coin: str) -> bytes:
    """A perp's context: its mid is known, and taken for its mark and oracle; the rest is zero or null."""
    mid = _mid_of(world, coin)
    price = mid or b'"0.0"'
    return (
        b'{"funding":"0.0","openInterest":"0.0","prevDayPx":%b,"dayNtlVlm":"0.0","premium":null,'
        b'"oraclePx":%b,"markPx":%b,"midPx":%b,"impactPxs":null,"dayBaseVlm":"0.0"}'
    ) % (price, price, price, mid or b"null")


def _spot_context(world: World, coin: str) -> bytes:
    mid = _mid_of(world, coin)
    price = mid or b'"0.0"'
    return (
        b'{"prevDayPx":%b,"dayNtlVlm":"0.0","markPx":%b,"midPx":%b,"circulatingSupply":"0.0","coin":%b,'
        b'"totalSupply":"0.0","dayBaseVlm":"0.0"}'
    ) % (price, price, mid or b"null", json(coin))


def _mids(world: World, request: schema.AllMids) -> bytes:
    return b"{%b}" % world.mids_json(world.wanted(request.dex or ""))


def _book(world: World, request: schema.BookInfo) -> bytes:
    market = world.market(request.coin)
    if market is None:
        return b"null"
    depth = world.depth(market, schema.DEPTH_DEFAULT, request.figures, request.mantissa or 1)
    core = channels.book_core(world, market, depth, request.figures is not None)
    return b'{"coin":%b,"time":%d,%b}' % (json(request.coin), depth.time_ms, core)


def _recent_trades(world: World, request: schema.RecentTrades) -> bytes:
    market = world.market(request.coin)
    return b"[%b]" % (b"" if market is None else world.trades_json(world.trades(market, RECENT_TRADES)))


def _exchange_status(world: World, request: schema.ExchangeStatus) -> bytes:
    return b'{"time":%d,"specialStatuses":null}' % world.look().time_ms


# --- users -------------------------------------------------------------------------------------------------


def _account(world: World, user: str) -> int | None:
    return world.account(bytes.fromhex(user[2:]))


def _clearinghouse_state(world: World, request: schema.ClearinghouseState) -> bytes:
    return json(
        {
            "marginSummary": SUMMARY,
            "crossMarginSummary": SUMMARY,
            "crossMaintenanceMarginUsed": NOTHING,
            "withdrawable": NOTHING,
            "assetPositions": [],
            "time": world.look().time_ms,
        }
    )


def _open_orders(
    world: World, request: schema.OpenOrdersInfo | schema.FrontendOpenOrders, form: int
) -> bytes:
    account = _account(world, request.user)
    if account is None:
        return b"[]"
    orders = channels.of_dex(world, world.orders_of(account), request.dex or "")
    return b"[%b]" % b"".join(world.orders_json(orders, form))


def _order_status(world: World, request: schema.OrderStatus) -> bytes:
    """Where an order is, or how it ended: open orders first, then those that were, then those refused."""
    account = _account(world, request.user)
    found = None
    if account is not None:
        if isinstance(request.oid, int):
            found = _by_oid(world, account, request.oid)
        else:
            found = _by_cloid(world, account, bytes.fromhex(request.oid[2:]))
    if found is None:
        return b'{"status":"unknownOid"}'
    return b'{"status":"order","order":%b}' % found


def _by_oid(world: World, account: int, oid: int) -> bytes | None:
    order = world.order(oid)
    if order is not None:
        return _open_status(world, order) if order["account"][0] == account else None
    for ring in ("closed", "rejected"):
        ended = world.ended(oid, ring)
        if ended is not None and ended["account"][0] == account:
            return world.ended_json(ended)
    return None


def _by_cloid(world: World, account: int, cloid: bytes) -> bytes | None:
    order = _with_cloid(world.orders_of(account), cloid)
    if order is not None:
        return _open_status(world, order)
    ended = world.ended_by_cloid(cloid, account)
    if ended is None:
        ended = _with_cloid(world.rejected_of(account, REJECTED_SEARCHED), cloid)
    return None if ended is None else world.ended_json(ended)


def _with_cloid(items: Array, cloid: bytes) -> Array | None:
    """The first of the items that came with this cloid."""
    text = np.frombuffer(cloid, np.uint8)
    found = [i for i in range(len(items)) if rows.has_cloid(items[i], text)]
    return items[found[:1]] if found else None


def _open_status(world: World, order: Array) -> bytes:
    """An order that is open, as one whose last word was `open`."""
    text = b"".join(world.orders_json(order, encode.FRONTEND))
    return b'{"order":%b,"status":"open","statusTimestamp":%d}' % (text, int(order["timestamp_ms"][0]))


def _fills(world: World, request: schema.FillsInfo) -> bytes:
    account = _account(world, request.user)
    return b"[%b]" % (b"" if account is None else world.fills_json(world.fills(account, USER_FILLS_MAX)))


def _fills_by_time(world: World, request: schema.FillsByTime) -> bytes:
    """Oldest first unless asked otherwise; of more than fit, those with which that order begins."""
    account = _account(world, request.user)
    fills = np.zeros(0, layout.FILL) if account is None else world.fills(account, FILLS_KEPT)
    times = fills["time_ms"]
    wanted = times >= request.start_ms
    if request.end_ms is not None:
        wanted &= times <= request.end_ms
    fills = fills[wanted] if request.newest_first else fills[wanted][::-1]
    return b"[%b]" % world.fills_json(fills[:USER_FILLS_MAX])
