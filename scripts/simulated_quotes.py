"""What simulated traders decide: from what they know to the actions they send, without a socket or a clock.

A `Picture` is what an account has been told of its own orders and positions. A `Maker` quotes both sides of a
market around a fair price that it moves against its inventory, and never holds more than its limit. A `Taker`
trades when the quotes are wrong (informed) or for no reason (noise), and closes what has become too much.
Decisions are a function of picture, prices and the generator given; actions have the exchange's wire form.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

from scripts.simulated_market import BUY, MINIMUM_NOTIONAL_USD, SELL, Spec

Action = dict[str, Any]
USD = 10**6  # price x quantity of every perp is in 10^-6 USD
BASIS_POINT = 1e-4


class Market(NamedTuple):
    """A perp and its number on the wire."""

    spec: Spec
    asset: int


class View(NamedTuple):
    """What is to be seen of a market: prices in its integers. bid, ask: best quotes of anybody; 0: none."""

    fair: int
    bid: int = 0
    ask: int = 0
    volatility: float = 0.0  # of one second, relative
    excitement: float = 0.0


# --- what an account knows of itself ------------------------------------------------------------------------


@dataclass(slots=True)
class Quote:
    """An own order on the book."""

    oid: int
    cloid: str
    side: str
    price: int
    quantity: int  # what is left


@dataclass
class Picture:
    """Own open orders with a client order id, and positions in lots, from the streams of one account.

    Statuses and fills may come in any order between each other: each names its order, and a fill the position
    before it, so the last word is right whatever came before.
    """

    specs: Mapping[str, Spec]
    positions: dict[str, int] = field(default_factory=dict)
    quotes: dict[str, dict[str, Quote]] = field(default_factory=dict)  # coin -> cloid -> order

    def position(self, coin: str) -> int:
        return self.positions.get(coin, 0)

    def begin(self, open_orders: Iterable[Mapping[str, Any]], state: Mapping[str, Any]) -> None:
        """Take the answers of openOrders and clearinghouseState for all there is."""
        self.quotes.clear()
        for order in open_orders:
            self._open(order)
        self.positions = {
            position["coin"]: scaled(position["szi"], self.specs[position["coin"]].size_decimals)
            for position in (entry["position"] for entry in state["assetPositions"])
        }

    def take_updates(self, updates: Iterable[Mapping[str, Any]]) -> None:
        """Data of orderUpdates."""
        for update in updates:
            order = update["order"]
            if update["status"] == "open":
                self._open(order)
            else:
                self._forget(order["coin"], order["oid"])

    def take_fills(self, fills: Iterable[Mapping[str, Any]]) -> None:
        """Fills, oldest first."""
        for fill in fills:
            coin, decimals = fill["coin"], self.specs[fill["coin"]].size_decimals
            size = scaled(fill["sz"], decimals)
            signed = size if fill["side"] == BUY else -size
            self.positions[coin] = scaled(fill["startPosition"], decimals) + signed
            quotes = self.quotes.get(coin, {})
            for quote in [quote for quote in quotes.values() if quote.oid == fill["oid"]]:
                quote.quantity -= size
                if quote.quantity <= 0:
                    del quotes[quote.cloid]

    def _open(self, order: Mapping[str, Any]) -> None:
        spec, cloid = self.specs[order["coin"]], order.get("cloid")
        if cloid is None:
            return
        self.quotes.setdefault(order["coin"], {})[cloid] = Quote(
            order["oid"],
            cloid,
            order["side"],
            scaled(order["limitPx"], spec.price_decimals),
            scaled(order["sz"], spec.size_decimals),
        )

    def _forget(self, coin: str, oid: int) -> None:
        quotes = self.quotes.get(coin, {})
        for cloid in [cloid for cloid, quote in quotes.items() if quote.oid == oid]:
            del quotes[cloid]


# --- numbers and actions as they go over the wire -----------------------------------------------------------


def scaled(text: str, decimals: int) -> int:
    """The integer of 10^-decimals that a decimal text says."""
    return int(Decimal(text).scaleb(decimals))


def legal_price(spec: Spec, price: float, side: str) -> int:
    """The nearest price that the exchange takes, away from the other side: bids go down, asks up."""
    whole = max(1, round(price))
    return spec.legal_price(whole) if side == BUY else whole + -whole % spec.step(whole)


def order_wire(
    market: Market,
    side: str,
    price: int,
    quantity: int,
    tif: str,
    *,
    reduce_only: bool = False,
    cloid: str | None = None,
) -> Action:
    """One order as it stands in actions, its keys in the order that is signed."""
    spec = market.spec
    order: Action = {
        "a": market.asset,
        "b": side == BUY,
        "p": spec.price_text(price).removesuffix(".0"),
        "s": spec.quantity_text(quantity).removesuffix(".0"),
        "r": reduce_only,
        "t": {"limit": {"tif": tif}},
    }
    return order if cloid is None else order | {"c": cloid}


def order_action(orders: list[Action]) -> Action:
    return {"type": "order", "orders": orders, "grouping": "na"}


# --- those who quote ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """How a maker quotes. It names its own orders by their client order ids, or by the exchange's."""

    levels: int = 4
    level_usd: int = 4_000  # each level; the farther ones are larger
    limit_usd: int = 100_000  # of a position, either way
    spread: float = 1.0 * BASIS_POINT  # from fair to the first level, in calm times
    gap: float = 1.2 * BASIS_POINT  # from level to level
    skew: float = 4.0 * BASIS_POINT  # how far the quotes move with a full inventory
    fear: float = 1.0  # of volatility: how many seconds' worth of it is added to the spread
    nerve: float = 0.7  # of excitement; beyond it the first level is withdrawn
    tolerance: float = 0.4 * BASIS_POINT  # a quote that is as near as that to where it belongs stays
    by_cloid: bool = True


class Wanted(NamedTuple):
    side: str
    price: int
    quantity: int


class Maker:
    """One account's quotes in one market. Its levels have client order ids of their own, which they keep."""

    def __init__(self, market: Market, style: Style):
        self.market, self.style = market, style
        spec = market.spec
        self.limit = max(1, style.limit_usd * USD // spec.reference)  # lots
        self._lots = [
            max(1, style.level_usd * (2 + level) * USD // (2 * spec.reference))
            for level in range(style.levels)
        ]

    def cloid(self, side: str, level: int) -> str:
        return f"0x{(self.market.asset << 16) + (level << 1) + (side == SELL) + 1:032x}"

    def wanted(self, position: int, view: View) -> dict[str, Wanted]:
        """The quotes it would like to have, by cloid. Together they cannot carry it beyond its limit."""
        style = self.style
        centre = view.fair * (1 - style.skew * max(-1.0, min(1.0, position / self.limit)))
        quotes: dict[str, Wanted] = {}
        for side, sign in ((BUY, -1), (SELL, 1)):
            room = self.limit + sign * position
            for level, lots in enumerate(self._lots):
                away = style.spread + style.fear * view.volatility + style.gap * level
                price = self._behind(
                    side, legal_price(self.market.spec, centre * (1 + sign * away), side), view
                )
                quantity = min(lots, room)
                if quantity * price < MINIMUM_NOTIONAL_USD * USD:
                    break
                if level == 0 and view.excitement > style.nerve:
                    continue
                room -= quantity
                quotes[self.cloid(side, level)] = Wanted(side, price, quantity)
        return quotes

    def _behind(self, side: str, price: int, view: View) -> int:
        """Stay behind the other side's best quote: a post-only order that reaches it is refused."""
        spec = self.market.spec
        if side == BUY and view.ask and price >= view.ask:
            return legal_price(spec, view.ask - 1, BUY)
        if side == SELL and view.bid and price <= view.bid:
            return legal_price(spec, view.bid + 1, SELL)
        return price

    def decide(self, picture: Picture, view: View) -> list[Action]:
        """The actions that make its quotes what they should be, in the order in which to send them."""
        coin = self.market.spec.coin
        quotes = picture.quotes.get(coin, {})
        wanted = self.wanted(picture.position(coin), _of_others(view, quotes))
        gone = [quote for cloid, quote in quotes.items() if cloid not in wanted]
        moved = [
            (quotes[cloid], new)
            for cloid, new in wanted.items()
            if cloid in quotes and not self._stays(quotes[cloid], new)
        ]
        moved.sort(key=lambda pair: _advances(*pair))  # room is made before it is taken
        missing = [(cloid, new) for cloid, new in wanted.items() if cloid not in quotes]
        return self._cancels(gone) + self._modifies(moved) + self._places(missing)

    def _stays(self, quote: Quote, new: Wanted) -> bool:
        near = abs(quote.price - new.price) <= self.style.tolerance * new.price
        return near and new.quantity // 2 < quote.quantity <= new.quantity

    def _cancels(self, quotes: list[Quote]) -> list[Action]:
        if not quotes:
            return []
        asset = self.market.asset
        if self.style.by_cloid:
            named = [{"asset": asset, "cloid": quote.cloid} for quote in quotes]
            return [{"type": "cancelByCloid", "cancels": named}]
        return [{"type": "cancel", "cancels": [{"a": asset, "o": quote.oid} for quote in quotes]}]

    def _modifies(self, moved: list[tuple[Quote, Wanted]]) -> list[Action]:
        modifies: list[Action] = [
            {
                "oid": quote.cloid if self.style.by_cloid else quote.oid,
                "order": order_wire(self.market, *new, "Alo", cloid=quote.cloid),
            }
            for quote, new in moved
        ]
        if len(modifies) == 1:
            return [{"type": "modify", **modifies[0]}]
        return [{"type": "batchModify", "modifies": modifies}] if modifies else []

    def _places(self, missing: list[tuple[str, Wanted]]) -> list[Action]:
        orders = [order_wire(self.market, *new, "Alo", cloid=cloid) for cloid, new in missing]
        return [order_action(orders)] if orders else []


def _of_others(view: View, quotes: Mapping[str, Quote]) -> View:
    """The view without best quotes that may be one's own: those move out of the way."""
    own = {(quote.side, quote.price) for quote in quotes.values()}
    bid = 0 if (BUY, view.bid) in own else view.bid
    ask = 0 if (SELL, view.ask) in own else view.ask
    return view._replace(bid=bid, ask=ask)


def _advances(quote: Quote, new: Wanted) -> bool:
    """Whether the order goes towards the other side."""
    return (new.price > quote.price) == (quote.side == BUY)


# --- those who take -----------------------------------------------------------------------------------------

EDGE = 3 * BASIS_POINT  # from here on a quote is wrong enough to be taken
SLIPPAGE = 10 * BASIS_POINT  # beyond the best quote
STUBBORN = 0.7  # how probably a noise taker goes on as before


class Taker:
    """One account's trades in one market, all of them immediate or not at all."""

    def __init__(self, market: Market, random: Random, *, informed: bool, limit_usd: int = 50_000):
        self.market, self.informed = market, informed
        self.limit = max(1, limit_usd * USD // market.spec.reference)  # lots
        self._random = random
        self._side = random.choice((BUY, SELL))

    def decide(self, picture: Picture, view: View) -> list[Action]:
        """At most one order. It draws from the generator equally often whatever it sees."""
        usd = min(12 + self._random.lognormvariate(6, 1.4), 30_000)
        if self._random.random() > STUBBORN:
            self._side = BUY if self._side == SELL else SELL
        position = picture.position(self.market.spec.coin)
        if abs(position) >= self.limit:
            return self._order(SELL if position > 0 else BUY, abs(position), view, reduce_only=True)
        side = self._wrong_side(view) if self.informed else self._side
        if side is None:
            return []
        lots = int(usd * (1 + view.excitement) * USD) // view.fair
        room = self.limit - position if side == BUY else self.limit + position
        return self._order(side, min(lots, room), view)

    def _wrong_side(self, view: View) -> str | None:
        if view.ask and view.fair > view.ask * (1 + EDGE):
            return BUY
        if view.bid and view.fair < view.bid * (1 - EDGE):
            return SELL
        return None

    def _order(self, side: str, quantity: int, view: View, reduce_only: bool = False) -> list[Action]:
        best = view.ask if side == BUY else view.bid
        if not best:
            return []
        slipped = best * (1 + SLIPPAGE) if side == BUY else best * (1 - SLIPPAGE)
        price = legal_price(self.market.spec, slipped, BUY if side == SELL else SELL)
        if quantity * min(price, best) < MINIMUM_NOTIONAL_USD * USD and not reduce_only:
            return []
        order = order_wire(self.market, side, price, quantity, "Ioc", reduce_only=reduce_only)
        return [order_action([order])]
