"""Simulated makers and takers: legal, uncrossed, bounded, and the same for the same seed."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.simulated_market import BUY, SELL, SPECS
from scripts.simulated_prices import FARTHEST, STEP_SECONDS, Prices
from scripts.simulated_quotes import (
    USD,
    Maker,
    Market,
    Picture,
    Style,
    Taker,
    View,
    legal_price,
    order_action,
    order_wire,
    scaled,
)
from tests.scripts.toy_exchange import Toy, is_legal

PERPS = {coin: spec for coin, spec in SPECS.items() if not spec.spot}
MARKETS = [Market(spec, asset) for asset, spec in enumerate(PERPS.values())]
BTC = MARKETS[0]


class Players:
    """Accounts of a toy exchange by their names, and what each believes of itself."""

    def __init__(self, market: Market, names: list[str]):
        self.toy = Toy(market.spec, market.asset, self._tell)
        self.pictures = {name: Picture(PERPS) for name in names}
        self._users = {name: f"0x{number:040x}" for number, name in enumerate(names, 1)}
        self._names = {user: name for name, user in self._users.items()}
        self._coin = market.spec.coin

    def view(self, fair: int, **more: float) -> View:
        return View(fair, self.toy.book.best(BUY) or 0, self.toy.book.best(SELL) or 0, **more)

    def act(self, name: str, actions: list) -> None:
        for action in actions:
            statuses = self.toy.act(self._users[name], action)
            assert {"error": "cloid"} not in statuses, "a name is used once at a time"

    def check(self) -> None:
        """What accounts believe is what is so."""
        for name, picture in self.pictures.items():
            user, believed = self._users[name], picture.quotes.get(self._coin, {})
            assert {(q.oid, q.cloid, q.price, q.quantity) for q in believed.values()} == {
                (o.oid, o.cloid, o.price, o.quantity) for o in self.toy.orders(user)
            }
            assert picture.position(self._coin) == self.toy.position(user)

    def _tell(self, user: str, channel: str, data: list) -> None:
        picture = self.pictures[self._names[user]]
        (picture.take_updates if channel == "orderUpdates" else picture.take_fills)(data)


# --- numbers ------------------------------------------------------------------------------------------------


@given(st.sampled_from(list(PERPS.values())), st.integers(1, 10**9), st.sampled_from([BUY, SELL]))
def test_prices_are_legal_and_lie_on_their_own_side(spec, price, side):
    legal = legal_price(spec, price, side)
    assert is_legal(spec, legal)
    if price >= spec.step(price):
        assert (legal <= price) if side == BUY else (legal >= price)
        assert abs(legal - price) < max(spec.step(price), spec.step(legal))


def test_orders_are_written_as_they_are_signed():
    order = order_wire(BTC, BUY, 813_070, 100_000, "Alo", cloid="0x" + "1" * 32)
    assert json.dumps(order_action([order])) == (
        '{"type": "order", "orders": [{"a": 0, "b": true, "p": "81307", "s": "1", "r": false, '
        '"t": {"limit": {"tif": "Alo"}}, "c": "0x' + "1" * 32 + '"}], "grouping": "na"}'
    )


# --- makers -------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(MARKETS),
    st.floats(0.7, 1.3),
    st.floats(-1.2, 1.2),
    st.integers(-60, 60),
    st.integers(1, 40),
    st.floats(0, 2e-3),
)
def test_quotes_are_legal_uncrossed_worth_enough_and_bounded(market, moved, held, off, width, volatility):
    spec = market.spec
    fair = round(spec.reference * moved)
    maker = Maker(market, Style())
    bid = legal_price(spec, fair + off * spec.step(fair), BUY)
    view = View(fair, bid, legal_price(spec, bid + width * spec.step(bid), SELL), volatility)
    position = round(maker.limit * held)
    quotes = maker.wanted(position, view).values()
    bids, asks = ([q for q in quotes if q.side == side] for side in (BUY, SELL))
    assert bids or asks
    assert all(is_legal(spec, q.price) and q.price * q.quantity >= 10 * USD for q in quotes)
    assert all(b.price < view.ask for b in bids) and all(a.price > view.bid for a in asks)
    assert all(b.price < a.price for b in bids for a in asks)
    assert position + sum(q.quantity for q in bids) <= max(maker.limit, position)
    assert position - sum(q.quantity for q in asks) >= min(-maker.limit, position)


@pytest.mark.parametrize("market", MARKETS, ids=PERPS)
def test_inventory_moves_the_quotes_against_itself(market):
    maker = Maker(market, Style())
    view = View(market.spec.reference)

    def best(position):
        quotes = maker.wanted(position, view).values()
        bids = [q.price for q in quotes if q.side == BUY]
        asks = [q.price for q in quotes if q.side == SELL]
        return max(bids, default=0), min(asks, default=10**18)

    half = maker.limit // 2
    short, flat, long = best(-half), best(0), best(half)
    assert short[0] > flat[0] > long[0] and short[1] > flat[1] > long[1]
    assert best(maker.limit)[0] == 0 and best(-maker.limit)[1] == 10**18, "full: one side only"


def test_quotes_that_are_where_they_belong_are_left_alone():
    players = Players(BTC, ["maker"])
    maker, view = Maker(BTC, Style()), View(BTC.spec.reference)
    players.act("maker", maker.decide(players.pictures["maker"], view))
    assert len(players.pictures["maker"].quotes["BTC"]) == 2 * Style().levels
    assert maker.decide(players.pictures["maker"], view) == []


@pytest.mark.parametrize("moved", [0.99, 1.01])
def test_a_jump_moves_all_quotes_and_none_runs_into_another(moved):
    players = Players(BTC, ["maker"])
    maker, picture = Maker(BTC, Style()), players.pictures["maker"]
    for fair in (BTC.spec.reference, round(BTC.spec.reference * moved)):
        players.act("maker", maker.decide(picture, players.view(fair)))
    believed = {cloid: (q.side, q.price, q.quantity) for cloid, q in picture.quotes["BTC"].items()}
    assert believed == maker.wanted(0, View(fair))
    assert set(players.toy.statuses) == {"open", "canceled"}


def test_a_quote_is_filled_up_when_less_than_half_is_left_and_cut_when_it_is_too_much():
    players = Players(BTC, ["maker"])
    maker, picture, view = Maker(BTC, Style()), players.pictures["maker"], View(BTC.spec.reference)
    players.act("maker", maker.decide(picture, view))
    quote = picture.quotes["BTC"][maker.cloid(BUY, 0)]
    whole = quote.quantity
    for quantity, acts in ((whole // 2 + 1, False), (whole // 2, True), (whole + 1, True)):
        quote.quantity = quantity
        assert bool(maker.decide(picture, view)) == acts, quantity
    (action,) = maker.decide(picture, view)
    assert (action["type"], action["oid"]) == ("modify", quote.cloid)
    assert scaled(action["order"]["s"], BTC.spec.size_decimals) == whole


@pytest.mark.parametrize("by_cloid", [True, False], ids=["by cloid", "by oid"])
def test_after_a_jump_the_first_level_is_withdrawn_for_a_while(by_cloid):
    players = Players(BTC, ["maker"])
    maker, picture = Maker(BTC, Style(by_cloid=by_cloid)), players.pictures["maker"]
    calm, excited = View(BTC.spec.reference), View(BTC.spec.reference, excitement=Style().nerve + 0.1)
    players.act("maker", maker.decide(picture, calm))
    before = set(picture.quotes["BTC"])
    first = {maker.cloid(BUY, 0), maker.cloid(SELL, 0)}
    (action,) = maker.decide(picture, excited)
    assert action["type"] == ("cancelByCloid" if by_cloid else "cancel")
    players.act("maker", [action])
    assert set(picture.quotes["BTC"]) == before - first
    players.act("maker", maker.decide(picture, calm))
    assert set(picture.quotes["BTC"]) == before


@pytest.mark.parametrize("by_cloid", [True, False], ids=["by cloid", "by oid"])
@pytest.mark.parametrize("market", MARKETS, ids=PERPS)
def test_a_market_lives_and_inventories_stay_bounded(market, by_cloid):
    names = ["maker", "other", "informed", "noise"]
    draw, players = Random(market.asset), Players(market, names)
    toy, pictures = players.toy, players.pictures
    prices = Prices(draw, [market.spec])
    makers = {
        "maker": Maker(market, Style(by_cloid=by_cloid, limit_usd=20_000)),
        "other": Maker(market, Style(by_cloid=by_cloid, limit_usd=30_000, spread=2e-4)),
    }
    takers = {
        "informed": Taker(market, draw, informed=True, limit_usd=15_000),
        "noise": Taker(market, draw, informed=False, limit_usd=15_000),
    }
    traders: dict = makers | takers
    coin, quoted, rounds = market.spec.coin, 0, 1_500
    for _ in range(rounds):
        prices.step()
        for name in draw.sample(names, len(names)):
            seen = prices.excitement[coin]
            view = players.view(prices.fair(coin), volatility=prices.volatility, excitement=seen)
            players.act(name, traders[name].decide(pictures[name], view))
            players.check()
            for trader, limited in traders.items():
                assert abs(pictures[trader].position(coin)) <= limited.limit
        quoted += toy.book.best(BUY) is not None and toy.book.best(SELL) is not None
    assert quoted > rounds * 0.95
    assert toy.statuses.count("filled") > rounds / 10
    refused = [s for s in toy.statuses if s.endswith("Rejected")]
    assert len(refused) < len(toy.statuses) / 20, "a refusal is an accident"
    cancel = "cancelByCloid" if by_cloid else "cancel"
    assert toy.kinds == {"order", "modify", "batchModify", cancel}


# --- takers -------------------------------------------------------------------------------------------------


def test_informed_takers_trade_only_against_wrong_quotes():
    market, picture = BTC, Picture(PERPS)
    taker = Taker(market, Random(1), informed=True)
    fair = market.spec.reference
    assert not any(taker.decide(picture, View(fair, fair - 100, fair + 100)) for _ in range(50))
    for view, buys in (
        (View(fair, fair - 900, fair - 800), True),
        (View(fair, fair + 800, fair + 900), False),
    ):
        orders = [taker.decide(picture, view)[0]["orders"][0] for _ in range(50)]
        assert {(o["b"], o["r"], o["t"]["limit"]["tif"]) for o in orders} == {(buys, False, "Ioc")}


@pytest.mark.parametrize("sign", [1, -1])
def test_too_large_a_position_is_closed_by_a_reduce_only_order(sign):
    taker = Taker(BTC, Random(2), informed=False)
    picture = Picture(PERPS, {"BTC": sign * (taker.limit + 7)})
    fair = BTC.spec.reference
    (action,) = taker.decide(picture, View(fair, fair - 10, fair + 10))
    (order,) = action["orders"]
    assert (order["b"], order["r"]) == (sign < 0, True)
    assert scaled(order["s"], BTC.spec.size_decimals) == taker.limit + 7


def test_nobody_trades_with_an_empty_book():
    for informed in (True, False):
        taker = Taker(BTC, Random(3), informed=informed)
        assert not any(taker.decide(Picture(PERPS), View(BTC.spec.reference)) for _ in range(50))


# --- what an account believes -------------------------------------------------------------------------------


def test_a_picture_begins_with_what_is_there():
    order = {
        "coin": "BTC",
        "side": "A",
        "limitPx": "81310.0",
        "sz": "0.5",
        "oid": 9,
        "cloid": "0x" + "2" * 32,
    }
    state = {"assetPositions": [{"position": {"coin": "ETH", "szi": "-1.5"}}]}
    picture = Picture(PERPS, {"BTC": 3})
    picture.begin([order, order | {"oid": 10, "cloid": None}], state)
    assert (picture.position("BTC"), picture.position("ETH")) == (0, -15_000)
    assert [(q.oid, q.price, q.quantity) for q in picture.quotes["BTC"].values()] == [(9, 813_100, 50_000)]


def test_an_older_orders_end_does_not_end_the_one_that_took_its_name():
    picture = Picture(PERPS)
    order = {"coin": "BTC", "side": "B", "limitPx": "81300.0", "sz": "1.0", "cloid": "0x" + "3" * 32}
    picture.take_updates([{"status": "open", "order": order | {"oid": 1}}])
    picture.take_updates([{"status": "open", "order": order | {"oid": 2}}])
    picture.take_updates([{"status": "canceled", "order": order | {"oid": 1}}])
    assert [q.oid for q in picture.quotes["BTC"].values()] == [2]


def test_fills_take_from_what_is_left_and_say_the_position():
    picture = Picture(PERPS)
    order = {
        "coin": "BTC",
        "side": "A",
        "limitPx": "81300.0",
        "sz": "1.0",
        "cloid": "0x" + "3" * 32,
        "oid": 1,
    }
    picture.take_updates([{"status": "open", "order": order}])
    fill = {"coin": "BTC", "side": "A", "sz": "0.25", "startPosition": "0.5", "oid": 1}
    picture.take_fills([fill])
    assert [q.quantity for q in picture.quotes["BTC"].values()] == [75_000]
    assert picture.position("BTC") == 25_000
    picture.take_fills([fill | {"startPosition": "0.25", "sz": "0.75"}])
    assert (picture.position("BTC"), picture.quotes["BTC"]) == (-50_000, {})


# --- prices -------------------------------------------------------------------------------------------------


def walk(seed, steps=3_000):
    prices = Prices(Random(seed), PERPS.values())
    told = []
    for _ in range(steps):
        prices.step()
        told.append(tuple(prices.fair(coin) for coin in PERPS) + (prices.volatility,))
    return told


def test_a_seed_names_one_path_and_every_decision_on_it():
    assert walk(1) == walk(1) != walk(2)

    def actions(seed):
        draw = Random(seed)
        taker, view = Taker(BTC, draw, informed=False), View(BTC.spec.reference, 813_000, 813_100)
        return [taker.decide(Picture(PERPS), view) for _ in range(200)]

    assert actions(1) == actions(1) != actions(2)


def test_prices_stay_near_their_references_and_times_change():
    told = walk(3, steps=round(3_600 / STEP_SECONDS))
    for column, spec in enumerate(PERPS.values()):
        moved = [fair[column] / spec.reference for fair in told]
        assert 1 - FARTHEST < min(moved) < 0.9999 and 1.0001 < max(moved) < 1 + FARTHEST
    assert len({fair[-1] for fair in told}) == 3, "calm, busy and wild"
