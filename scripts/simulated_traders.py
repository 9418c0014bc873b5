"""Who sends what to the simulated markets: a seeded flow of commands around a random walk.

Most commands of a real node are post-only orders that are refused because they would cross; so here. The rest
keeps the books some hundreds of orders deep, trades, modifies, and sets trigger orders. Every choice comes
from one generator, so a seed and a number of blocks name one log.
"""

from collections.abc import Callable
from random import Random

from scripts.simulated_market import (
    BUY,
    HIP2,
    SELL,
    ZERO_HASH,
    Accounts,
    Block,
    Market,
    Order,
    Spec,
    fill_text,
)

USERS = 48
TRIGGERS_MAX = 40  # a market
HIP2_LEVELS = 8  # a side
HIP2_BLOCKS = 43  # it renews its quotes every so many blocks: some three seconds
ALO, CANCEL, TAKE = range(3)  # the order of execution inside a block


class Traders:
    """`act` sends one block's commands. Books hold about `depth` orders each; `rate` commands a block."""

    def __init__(self, random: Random, specs: list[Spec], rate: int, depth: int):
        self.accounts = Accounts()
        self.markets = {spec.coin: Market(spec, self.accounts) for spec in specs}
        self.marks = {spec.coin: spec.legal_price(spec.reference) for spec in specs}
        self._random = random
        self._rate = rate
        self._depth = depth
        self._users = [f"0x{random.getrandbits(160):040x}" for _ in range(USERS)]
        self._builder = f"0x{random.getrandbits(160):040x}"
        self._weights: list[tuple[int, Callable[[Block, Market], None], int]] = [
            (40, self._misplace, ALO),
            (20, self._make, ALO),
            (6, self._modify, ALO),
            (2, self._refuse, ALO),
            (2, self._set_trigger, ALO),
            (20, self._cancel, CANCEL),
            (2, self._unset_trigger, CANCEL),
            (4, self._take, TAKE),
            (2, self._miss, TAKE),
            (3, self._limit, TAKE),
        ]
        self._coin_weights = [3 if spec.coin == "BTC" else 2 if not spec.spot else 1 for spec in specs]

    def act(self, block: Block, opening: bool = False) -> None:
        """Log one block. An opening block fills the empty books first."""
        markets = list(self.markets.values())
        for market in markets:
            self._walk(block, market)
            if market.spec.coin == "PURR/USDC" and (opening or block.height % HIP2_BLOCKS == 0):
                self._renew_hip2(block, market)
        if opening:
            for market in markets:
                for _ in range(min(self._depth, Block.ORDERS_MAX // 2 // len(markets))):
                    self._make(block, market)
        actions = self._random.choices(self._weights, [w for w, _, _ in self._weights], k=self._rate)
        for _, action, _ in sorted(actions, key=lambda entry: entry[2]):
            if not block.full:
                action(block, self._random.choices(markets, self._coin_weights)[0])
        if "@107" in self.markets and self._random.random() < 1 / 200:
            self._convert_dust(block, self.markets["@107"])

    def _walk(self, block: Block, market: Market) -> None:
        spec, mark = market.spec, self.marks[market.spec.coin]
        if self._random.random() < 0.25:
            pull = (mark < spec.reference * 0.97) - (mark > spec.reference * 1.03)
            mark += spec.step(mark) * (self._random.choice((-2, -1, -1, 1, 1, 2)) + pull)
            self.marks[spec.coin] = spec.legal_price(mark)
        market.fire(block, self.marks[spec.coin])

    def _order(self, block: Block, market: Market, side: str, price: int, tif: str | None, usd: int) -> Order:
        """An order of a random user worth about `usd`; two of three have a client order id."""
        draw, spec = self._random, market.spec
        unit = 10**spec.notional_decimals
        return Order(
            oid=block.take_oid(),
            user=draw.choice(self._users),
            side=side,
            price=spec.legal_price(price),
            quantity=max(1, usd * unit // price),
            tif=tif,
            time_ms=block.time_ms,
            cloid=f"0x{draw.getrandbits(128):032x}" if draw.random() < 0.67 else None,
            builder=self._builder if draw.random() < 0.03 else None,
            hash=f"0x{draw.getrandbits(256):064x}",
        )

    def _away(self, market: Market, side: str, steps: int) -> int:
        """The price that many steps from the mark, on the passive side of it (active side if negative)."""
        mark = self.marks[market.spec.coin]
        distance = steps * market.spec.step(mark)
        return mark - distance if side == BUY else mark + distance

    def _side(self) -> str:
        return self._random.choice((BUY, SELL))

    def _make(self, block: Block, market: Market) -> None:
        if len(market.orders) > self._depth:
            return self._cancel(block, market)
        side, steps = self._side(), 1 + int(self._random.expovariate(1 / 25))
        order = self._order(block, market, side, self._away(market, side, steps), "Alo", self._usd())
        order.reduce_only = self._random.random() < 0.02
        market.place(block, order)

    def _usd(self) -> int:
        return int(12 + self._random.expovariate(1 / 2_000))

    def _misplace(self, block: Block, market: Market) -> None:
        """A post-only order through the other side: refused when there is another side."""
        side = self._side()
        order = self._order(block, market, side, self._away(market, side, -2_000), "Alo", 25)
        order.reduce_only = self._random.random() < 0.2
        market.place(block, order)

    def _quoted(self, market: Market) -> Order | None:
        orders = [order for order in market.orders.values() if not order.silent]
        return self._random.choice(orders) if orders else None

    def _cancel(self, block: Block, market: Market) -> None:
        order = self._quoted(market)
        if order is None or len(market.orders) < self._depth * 3 // 4:
            return
        by_engine = order.reduce_only and self._random.random() < 0.5
        market.cancel(block, order, "reduceOnlyCanceled" if by_engine else "canceled")

    def _modify(self, block: Block, market: Market) -> None:
        """Cancel and place anew under the same client order id, as the venue does."""
        old = self._quoted(market)
        if old is None or old.tif != "Alo":
            return
        market.cancel(block, old)
        price = self._away(market, old.side, self._random.randint(1, 30))
        new = self._order(block, market, old.side, price, "Alo", self._usd())
        new.user, new.cloid = old.user, old.cloid
        market.place(block, new)

    def _take(self, block: Block, market: Market) -> None:
        """Sweep quotes that the mark has passed; else buy or sell a little."""
        mark, ask, bid = self.marks[market.spec.coin], market.best(SELL), market.best(BUY)
        side, steps, usd = self._side(), -20, self._usd()
        if ask is not None and ask < mark:
            side, steps, usd = BUY, 0, 20_000
        elif bid is not None and bid > mark:
            side, steps, usd = SELL, 0, 20_000
        order = self._order(block, market, side, self._away(market, side, steps), "Ioc", usd)
        position = self.accounts.position(order.user, market.spec)
        order.reduce_only = order.quantity <= (-position if side == BUY else position)
        market.place(block, order)

    def _miss(self, block: Block, market: Market) -> None:
        side = self._side()
        market.place(block, self._order(block, market, side, self._away(market, side, 500), "Ioc", 25))

    def _limit(self, block: Block, market: Market) -> None:
        """A Gtc order near or through the touch, sometimes with a take-profit child."""
        side = self._side()
        price = self._away(market, side, self._random.randint(-8, 40))
        order = self._order(block, market, side, price, "Gtc", self._usd())
        if self._random.random() < 0.2 and not market.spec.spot:
            order.children.append(self._trigger(block, market, SELL if side == BUY else BUY, order.user))
        market.place(block, order)

    def _refuse(self, block: Block, market: Market) -> None:
        """An order that is too small, or whose user (we say) lacks the margin."""
        side = self._side()
        order = self._order(block, market, side, self._away(market, side, 3), "Gtc", 5)
        if self._random.random() < 0.3:
            return market.place(block, order)
        order.quantity = order.original = order.quantity * 100_000
        refused = "insufficientSpotBalanceRejected" if market.spec.spot else "perpMarginRejected"
        block.emit_status(market.spec, order, refused)

    def _trigger(self, block: Block, market: Market, side: str, user: str | None = None) -> Order:
        """A stop or take-profit order, to the market or with a limit, not yet anywhere."""
        draw, profit = self._random, self._random.random() < 0.5
        above = (side == SELL) == profit
        mark = self.marks[market.spec.coin]
        distance = draw.randint(2, 60) * market.spec.step(mark)
        trigger_price = market.spec.legal_price(mark + distance if above else mark - distance)
        limited = draw.random() < 0.5
        slack = 0 if limited else trigger_price // 10
        price = trigger_price + slack if side == BUY else trigger_price - slack
        order = self._order(block, market, side, price, None, self._usd())
        order.order_type = f"{'Take Profit' if profit else 'Stop'} {'Limit' if limited else 'Market'}"
        order.trigger_price, order.trigger_above, order.reduce_only = trigger_price, above, True
        order.user = user or order.user
        return order

    def _set_trigger(self, block: Block, market: Market) -> None:
        if len(market.triggers) >= TRIGGERS_MAX or market.spec.spot:
            return self._unset_trigger(block, market)
        market.place_trigger(block, self._trigger(block, market, self._side()), self.marks[market.spec.coin])

    def _unset_trigger(self, block: Block, market: Market) -> None:
        if market.triggers:
            market.cancel(block, self._random.choice(list(market.triggers.values())))

    def _renew_hip2(self, block: Block, market: Market) -> None:
        for old in [order for order in market.orders.values() if order.silent]:
            market.cancel(block, old)
        for level in range(1, HIP2_LEVELS + 1):
            for side in (BUY, SELL):
                order = self._order(block, market, side, self._away(market, side, 30 * level), None, 800)
                order.user, order.cloid, order.builder = HIP2, None, None
                if not market.crosses(side, order.price):
                    market.place(block, order)

    def _convert_dust(self, block: Block, market: Market) -> None:
        """One side of a fill without a partner, as the venue's daily conversion of dust logs it."""
        price = self.marks[market.spec.coin]
        order = self._order(block, market, SELL, price, "Ioc", 1)
        order.quantity, order.cloid, order.builder, order.hash = 1, None, None, ZERO_HASH
        text = fill_text(block, market.spec, self.accounts, order, price, 1, order, tid=0)
        direction = text.replace('"dir":"Sell"', '"dir":"Spot Dust Conversion"')
        block.emit_fill(order.user, direction)
