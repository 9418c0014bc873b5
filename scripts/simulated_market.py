"""One simulated market: price-time matching over integers, and the lines that a node would log about it.

Prices are integers of 10^-price_decimals USD, quantities integers of 10^-size_decimals coins. A `Block`
collects what one block logs, as finished JSON text in execution order; the key order and number text are
those of captured node output. Nothing here reads a clock or draws a random number, so a simulation is a
function of its commands.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

STATUSES, DIFFS, FILLS = range(3)
BUY, SELL = "B", "A"
HIP2 = "0x" + "f" * 40  # the spot market maker inside the chain: its orders have diffs but no statuses
ZERO_HASH = "0x" + "0" * 64
MINIMUM_NOTIONAL_USD = 10
HELD_COINS = 1_000_000  # of a spot token, by everybody at first: enough to sell for ever


def decimal_text(value: int, decimals: int) -> str:
    """Write value x 10^-decimals as the node does: shortest form, integers with `.0`."""
    whole, part = divmod(abs(value), 10**decimals)
    fraction = str(part).zfill(decimals).rstrip("0") if part else "0"
    return f"{'-' if value < 0 else ''}{whole}.{fraction}"


def time_text(time_ns: int) -> str:
    """Write nanoseconds since 1970 as ISO 8601 in UTC with nine digits and no zone."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}"


def quoted(text: str | None) -> str:
    return "null" if text is None else f'"{text}"'


@dataclass(frozen=True)
class Spec:
    """A market's name and its number rules; `reference` is the price around which the simulation walks."""

    coin: str
    size_decimals: int
    price_decimals: int  # 6 - size_decimals for perps, 8 - size_decimals for spot
    reference: int
    leverage_max: int = 0  # 0: spot
    base: str = ""  # spot: the token bought

    @property
    def spot(self) -> bool:
        return self.leverage_max == 0

    @property
    def lots_per_coin(self) -> int:
        return int(10**self.size_decimals)

    @property
    def notional_decimals(self) -> int:
        """price x quantity is an integer of 10^-notional_decimals USD: 6 for perps, 8 for spot."""
        return self.size_decimals + self.price_decimals

    def legal_price(self, price: int) -> int:
        """Round down to five significant figures or a whole number of USD, whichever is finer."""
        step = self.step(price)
        return max(price - price % step, step)

    def step(self, price: int) -> int:
        return int(min(10 ** max(0, len(str(price)) - 5), 10**self.price_decimals))

    def price_text(self, price: int) -> str:
        return decimal_text(price, self.price_decimals)

    def quantity_text(self, quantity: int) -> str:
        return decimal_text(quantity, self.size_decimals)


SPECS = {
    spec.coin: spec
    for spec in (
        Spec("BTC", 5, 1, 813_070, leverage_max=40),
        Spec("ETH", 4, 2, 234_510, leverage_max=25),
        Spec("SOL", 2, 4, 841_230, leverage_max=20),
        Spec("HYPE", 2, 4, 381_420, leverage_max=10),
        Spec("PURR/USDC", 0, 8, 11_234_000, base="PURR"),
        Spec("@107", 2, 6, 38_142_000, base="HYPE"),
    )
}


@dataclass(slots=True, eq=False)
class Order:
    """An instruction; on the book, waiting for its trigger, or a child waiting for its parent."""

    oid: int
    user: str
    side: str
    price: int
    quantity: int  # what is left
    tif: str | None
    time_ms: int
    cloid: str | None = None
    reduce_only: bool = False
    order_type: str = "Limit"
    builder: str | None = None
    trigger_price: int = 0  # 0: no trigger order
    trigger_above: bool = False  # fires at mark >= trigger_price, else at mark <= trigger_price
    triggered: bool = False
    children: list["Order"] = field(default_factory=list)
    original: int = 0
    hash: str = ZERO_HASH  # of the action that placed it

    def __post_init__(self) -> None:
        self.original = self.quantity

    @property
    def silent(self) -> bool:
        return self.user == HIP2

    @property
    def waiting(self) -> bool:
        return self.trigger_price > 0 and not self.triggered

    def fires(self, mark: int) -> bool:
        return mark >= self.trigger_price if self.trigger_above else mark <= self.trigger_price

    def text(self, spec: Spec) -> str:
        """The order object of status records and snapshots."""
        condition = "Triggered" if self.triggered else "N/A"
        if self.waiting:
            bound = spec.price_text(self.trigger_price).removesuffix(".0")
            condition = f"Price {'above' if self.trigger_above else 'below'} {bound}"
        trigger_price = spec.price_text(self.trigger_price) if self.waiting else "0.0"
        children = ",".join(child.text(spec) for child in self.children)
        return (
            f'{{"coin":"{spec.coin}","side":"{self.side}","limitPx":"{spec.price_text(self.price)}",'
            f'"sz":"{spec.quantity_text(self.quantity)}","oid":{self.oid},"timestamp":{self.time_ms},'
            f'"triggerCondition":"{condition}","isTrigger":{"true" if self.waiting else "false"},'
            f'"triggerPx":"{trigger_price}","children":[{children}],"isPositionTpsl":false,'
            f'"reduceOnly":{"true" if self.reduce_only else "false"},"orderType":"{self.order_type}",'
            f'"origSz":"{spec.quantity_text(self.original)}","tif":{quoted(self.tif)},'
            f'"cloid":{quoted(self.cloid)}}}'
        )


class Block:
    """What one block logs: (stream, event text) in execution order. Hands out its order ids and trade ids."""

    ORDERS_MAX = 10_000  # ids are height x 10,000 + n, so that no two blocks and no two runs share one

    def __init__(self, height: int, time_ns: int):
        self.height = height
        self.time_ms = time_ns // 1_000_000
        self.time_text = time_text(time_ns)
        self.events: list[tuple[int, str]] = []
        self._orders = 0
        self._trades = 0

    @property
    def full(self) -> bool:
        """Whether the ids left might not do for one more command (which uses at most a few tens of them)."""
        return self._orders > self.ORDERS_MAX - 100

    def take_oid(self) -> int:
        assert self._orders < self.ORDERS_MAX, "a block ran out of order ids"
        self._orders += 1
        return self.height * self.ORDERS_MAX + self._orders - 1

    def take_tid(self) -> int:
        self._trades += 1
        return self.height * 100_000 + self._trades

    def emit_status(self, spec: Spec, order: Order, status: str) -> None:
        if order.silent:
            return
        builder = "null" if order.builder is None else f'{{"b":"{order.builder}","f":5}}'
        digest = quoted(order.hash) if status == "open" else "null"
        text = (
            f'{{"time":"{self.time_text}","user":"{order.user}","hash":{digest},"builder":{builder},'
            f'"status":"{status}","order":{order.text(spec)}}}'
        )
        self.events.append((STATUSES, text))

    def emit_diff(self, spec: Spec, order: Order, change: str) -> None:
        text = (
            f'{{"user":"{order.user}","oid":{order.oid},"coin":"{spec.coin}","side":"{order.side}",'
            f'"px":"{spec.price_text(order.price)}","raw_book_diff":{change}}}'
        )
        self.events.append((DIFFS, text))

    def emit_fill(self, user: str, text: str) -> None:
        self.events.append((FILLS, f'["{user}",{text}]'))


class Accounts:
    """Positions and what they cost, only for the texts of fills; nobody is ever liquidated here."""

    def __init__(self) -> None:
        self._positions: dict[
            tuple[str, str], tuple[int, int]
        ] = {}  # lots, their cost in price x lots: signed

    def position(self, user: str, spec: Spec) -> int:
        held = HELD_COINS * spec.lots_per_coin if spec.spot else 0
        return self._positions.get((user, spec.coin), (held, 0))[0]

    def trade(self, user: str, spec: Spec, signed: int, price: int) -> tuple[int, str, int]:
        """Change a position; return (position before, `dir` text, profit closed in price x lots)."""
        start = self.position(user, spec)
        cost = self._positions.get((user, spec.coin), (0, 0))[1]
        closed = 0 if spec.spot or start * signed >= 0 else min(abs(start), abs(signed))
        released = cost * closed // abs(start) if closed else 0
        profit = (closed * price if start > 0 else -closed * price) - released if closed else 0
        opened = abs(signed) - closed
        cost += (opened * price if signed > 0 else -opened * price) - released
        self._positions[user, spec.coin] = (start + signed, cost)
        return start, self._direction(spec, start, signed), profit

    @staticmethod
    def _direction(spec: Spec, start: int, signed: int) -> str:
        if spec.spot:
            return "Buy" if signed > 0 else "Sell"
        if start * signed >= 0:
            return "Open Long" if signed > 0 else "Open Short"
        if abs(signed) > abs(start):
            return "Short > Long" if signed > 0 else "Long > Short"
        return "Close Short" if signed > 0 else "Close Long"


def fee_text(spec: Spec, user: str, side: str, price: int, quantity: int, taker: bool) -> tuple[str, str]:
    """Return (fee, token): perps 0.045 % / 0.015 % or a rebate, spot 0.07 % / 0.04 % of what was received."""
    if spec.spot:
        rate = 7 if taker else 4
        if side == BUY:
            return decimal_text(quantity * rate, spec.size_decimals + 4), spec.base
        return decimal_text(price * quantity * rate // 10_000, 8), "USDC"
    rebated = not taker and int(user[-1], 16) % 2 == 0
    rate = 45 if taker else -1 if rebated else 15
    return decimal_text(price * quantity * rate // 100_000, 6), "USDC"


def fill_text(
    block: Block,
    spec: Spec,
    accounts: Accounts,
    order: Order,
    price: int,
    quantity: int,
    taker: Order,
    tid: int,
) -> str:
    signed = quantity if order.side == BUY else -quantity
    start, direction, profit = accounts.trade(order.user, spec, signed, price)
    fee, token = fee_text(spec, order.user, order.side, price, quantity, order is taker)
    cloid = "" if order.cloid is None else f',"cloid":"{order.cloid}"'
    builder = "" if order.builder is None else f',"builder":"{order.builder}"'
    return (
        f'{{"coin":"{spec.coin}","px":"{spec.price_text(price)}","sz":"{spec.quantity_text(quantity)}",'
        f'"side":"{order.side}","time":{block.time_ms},"startPosition":"{spec.quantity_text(start)}",'
        f'"dir":"{direction}","closedPnl":"{decimal_text(profit, spec.notional_decimals)}",'
        f'"hash":"{taker.hash}","oid":{order.oid},"crossed":{"true" if order is taker else "false"},'
        f'"fee":"{fee}","tid":{tid}{cloid},"feeToken":"{token}"{builder},"twapId":null}}'
    )


class Market:
    """The book of one market and its untriggered trigger orders; each change goes into the block given."""

    def __init__(self, spec: Spec, accounts: Accounts):
        self.spec = spec
        self.orders: dict[int, Order] = {}  # resting, by oid
        self.triggers: dict[int, Order] = {}  # waiting for the mark price, by oid
        self._accounts = accounts
        self._queues: dict[str, dict[int, dict[int, Order]]] = {BUY: {}, SELL: {}}  # side, price, oid

    def best(self, side: str) -> int | None:
        queues = self._queues[side]
        if not queues:
            return None
        return max(queues) if side == BUY else min(queues)

    def in_priority(self, side: str) -> Iterator[Order]:
        """Yield the resting orders of a side, best price first, then by arrival."""
        for price in sorted(self._queues[side], reverse=side == BUY):
            yield from self._queues[side][price].values()

    def crosses(self, side: str, price: int) -> bool:
        opposite = self.best(SELL if side == BUY else BUY)
        if opposite is None:
            return False
        return price >= opposite if side == BUY else price <= opposite

    def place(self, block: Block, order: Order) -> None:
        """Take an order that is no trigger order: refuse it, match it, rest what is left."""
        if order.price * order.quantity < MINIMUM_NOTIONAL_USD * 10**self.spec.notional_decimals:
            refused = "minTradeSpotNtlRejected" if self.spec.spot else "minTradeNtlRejected"
            return block.emit_status(self.spec, order, refused)
        crosses = self.crosses(order.side, order.price)
        if order.tif == "Alo" and crosses:
            return block.emit_status(self.spec, order, "badAloPxRejected")
        if order.tif == "Ioc" and not crosses:
            return block.emit_status(self.spec, order, "iocCancelRejected")
        block.emit_status(self.spec, order, "open")
        self._execute(block, order)

    def place_trigger(self, block: Block, order: Order, mark: int) -> None:
        if order.fires(mark):
            return block.emit_status(self.spec, order, "badTriggerPxRejected")
        block.emit_status(self.spec, order, "open")
        self.triggers[order.oid] = order

    def fire(self, block: Block, mark: int) -> None:
        """Let every trigger order go whose condition holds at this mark price."""
        for order in list(self.triggers.values()):
            if order.fires(mark):
                del self.triggers[order.oid]
                block.emit_status(self.spec, order, "triggered")
                order.triggered, order.tif, order.time_ms = True, "Gtc", block.time_ms
                self._execute(block, order)

    def cancel(self, block: Block, order: Order, status: str = "canceled") -> None:
        """End an order that rests or waits; its children end with it."""
        block.emit_status(self.spec, order, status)
        if order.oid in self.triggers:
            del self.triggers[order.oid]
            return
        self._leave(order)
        block.emit_diff(self.spec, order, '"remove"')
        for child in order.children:
            block.emit_status(self.spec, child, "canceled")

    def _execute(self, block: Block, order: Order) -> None:
        while order.quantity and self.crosses(order.side, order.price):
            self._match_best(block, order)
        if not order.quantity:
            self._end_filled(block, order)
        elif order.tif == "Ioc":
            block.emit_status(self.spec, order, "canceled")
        else:
            self.orders[order.oid] = order
            self._queues[order.side].setdefault(order.price, {})[order.oid] = order
            size = self.spec.quantity_text(order.quantity)
            block.emit_diff(self.spec, order, f'{{"new":{{"sz":"{size}"}}}}')

    def _match_best(self, block: Block, taker: Order) -> None:
        side = SELL if taker.side == BUY else BUY
        price = self.best(side)
        assert price is not None
        maker = next(iter(self._queues[side][price].values()))
        if maker.user == taker.user:
            return self.cancel(block, maker, "selfTradeCanceled")
        quantity, before = min(maker.quantity, taker.quantity), maker.quantity
        maker.quantity -= quantity
        taker.quantity -= quantity
        if maker.quantity:
            sizes = self.spec.quantity_text(before), self.spec.quantity_text(maker.quantity)
            block.emit_diff(self.spec, maker, f'{{"update":{{"origSz":"{sizes[0]}","newSz":"{sizes[1]}"}}}}')
        else:
            self._leave(maker)
            block.emit_diff(self.spec, maker, '"remove"')
        tid = block.take_tid()
        for order in (taker, maker) if taker.side == BUY else (maker, taker):  # the buyer comes first
            fill = fill_text(block, self.spec, self._accounts, order, price, quantity, taker, tid)
            block.emit_fill(order.user, fill)
        if not maker.quantity:
            self._end_filled(block, maker)

    def _end_filled(self, block: Block, order: Order) -> None:
        """Log the end of an order that is all filled, and let its children wait for their triggers."""
        block.emit_status(self.spec, order, "filled")
        for child in order.children:
            block.emit_status(self.spec, child, "open")
            self.triggers[child.oid] = child

    def _leave(self, order: Order) -> None:
        del self.orders[order.oid]
        queue = self._queues[order.side][order.price]
        del queue[order.oid]
        if not queue:
            del self._queues[order.side][order.price]
