"""What each channel says: records of the world and events of a block in, payloads of messages out.

Two kinds. A state channel (l2Book, bbo, allMids, openOrders) tells the whole of something whenever it has
changed: who falls behind gets the newest and misses nothing. An event channel (trades, l4Book, orderUpdates,
userFills, userEvents) begins with what there is and then tells what happens, block by block: nothing may be
left out.

A channel knows no client and no clock. It is bound to one world, and bound anew to the next.
"""

import numpy as np

from gateway import account_channels, encode, interest, ledger, schema, twaps
from gateway.bound import Block, Bound, First, State, gather, missed
from gateway.codec import encode as json
from gateway.world import Array, Depth, World
from shm import layout, units
from shm.codes import Ledger
from shm.constants import USER_FILLS_MAX

TRADES_FIRST = 10  # recent trades in a first message
REPAIR_MAX = 4096  # trades or fills that are told anew after a gap


# --- state channels ----------------------------------------------------------------------------------------


class BookChannel(Bound):
    """l2Book: the best levels of both sides, as they are or in buckets."""

    is_state = True
    wants = interest.BOOK

    def __init__(self, subscription: schema.Book):
        super().__init__("l2Book", subscription.key, coin=subscription.coin)
        self._levels = subscription.depth
        self._figures, self._mantissa = subscription.figures, subscription.mantissa or 1
        self._end = b',"fast":true}}' if subscription.fast else b"}}"

    def read(self, world: World) -> State:
        assert self.row is not None
        depth = world.depth(self.row, self._levels, self._figures, self._mantissa)
        return State(
            book_core(world, self.row, depth, self._figures is not None), depth.height, depth.time_ms
        )

    def message(self, state: State) -> bytes:
        coin = json(self.coin)
        head = b'{"channel":"l2Book","data":{"coin":%b,"time":%d,' % (coin, state.time_ms)
        return head + state.core + self._end


def book_core(world: World, market: int, depth: Depth, bucketed: bool) -> bytes:
    """`"levels":[[bids],[asks]]`, and the spread of these levels where they are buckets."""
    core = b'"levels":[[%b],[%b]]' % (
        world.levels_json(depth.bids, market),
        world.levels_json(depth.asks, market),
    )
    if bucketed and len(depth.bids) and len(depth.asks):
        spread = int(depth.asks["price"][0]) - int(depth.bids["price"][0])
        places = int(world.arrays["markets"]["price_places"][market])
        core += b',"spread":"%b"' % units.format_decimal(spread, places).encode()
    return core


class BboChannel(Bound):
    """bbo: the touch, null on a side that is empty."""

    is_state = True
    wants = interest.BOOK

    def __init__(self, subscription: schema.Bbo):
        super().__init__("bbo", subscription.key, coin=subscription.coin)

    def read(self, world: World) -> State:
        assert self.row is not None
        depth = world.depth(self.row, 1)
        bid, ask = (world.levels_json(levels, self.row) or b"null" for levels in (depth.bids, depth.asks))
        return State(b"[%b,%b]" % (bid, ask), depth.height, depth.time_ms)

    def message(self, state: State) -> bytes:
        return b'{"channel":"bbo","data":{"coin":%b,"time":%d,"bbo":%b}}' % (
            json(self.coin),
            state.time_ms,
            state.core,
        )


class MidsChannel(Bound):
    """allMids: the middle of every book of a dex. A key `dex` only for a builder's: clients compare it."""

    is_state = True

    def __init__(self, subscription: schema.Mids):
        super().__init__("allMids", subscription.key)
        self._dex = subscription.dex or ""
        self._end = b"}}}" if not self._dex else b'},"dex":%b}}' % json(self._dex)

    def read(self, world: World) -> State:
        status = world.look()
        return State(world.mids_json(world.wanted(self._dex)), status.height, status.time_ms)

    def message(self, state: State) -> bytes:
        return b'{"channel":"allMids","data":{"mids":{' + state.core + self._end


class OpenOrdersChannel(Bound):
    """openOrders: all of a user's orders on a dex. A user who was never seen has none."""

    is_state = True
    wants = interest.OPEN

    def __init__(self, subscription: schema.OpenOrders):
        super().__init__("openOrders", subscription.key, user=subscription.user.lower())
        self._dex = subscription.dex or ""

    def read(self, world: World) -> State:
        status, core = world.look(), b""
        if self.row is not None:
            orders = of_dex(world, world.orders_of(self.row), self._dex)
            core = b"".join(world.orders_json(orders, encode.FRONTEND))
        return State(core, status.height, status.time_ms)

    def message(self, state: State) -> bytes:
        return b'{"channel":"openOrders","data":{"dex":%b,"user":%b,"orders":[%b]}}' % (
            json(self._dex),
            json(self.user),
            state.core,
        )


def of_dex(world: World, orders: Array, dex: str) -> Array:
    """Those of `orders` whose market belongs to `dex`."""
    mine: Array = orders[world.wanted(dex)[orders["market"]]]
    return mine


# --- event channels ----------------------------------------------------------------------------------------


class TradesChannel(Bound):
    wants = interest.TRADES
    repairable = True

    def __init__(self, subscription: schema.Trades):
        super().__init__("trades", subscription.key, coin=subscription.coin)

    def first(self, world: World) -> First:
        height = world.look().height
        if self.row is None:
            return First([], height)
        trades = world.trades(self.row, TRADES_FIRST)
        recent = trades[trades["height"] <= height][::-1]
        return First([self._message(world, recent)] if len(recent) else [], height)

    def tell(self, block: Block, first: int) -> list[bytes]:
        trades = gather(block, "trades", first, block.market_links)
        return [self._message(block.world, trades)] if len(trades) else []

    def since(self, world: World, after: int, until: int) -> list[bytes]:
        """What was traded after one height and until another. Raises Lapped: not all of it is kept."""
        if self.row is None:
            return []
        newest = int(world.arrays["markets"]["last_trade"][self.row])
        later = missed(world.trades(self.row, REPAIR_MAX), "market_prior", newest, after, until)
        return [self._message(world, later)] if len(later) else []

    def _message(self, world: World, trades: Array) -> bytes:
        return b'{"channel":"trades","data":[%b]}' % world.trades_json(trades)


class QueueChannel(Bound):
    """l4Book: every order of a market, then every status and every change of the book."""

    wants = interest.QUEUE
    restarts = True

    def __init__(self, subscription: schema.L4Book):
        super().__init__("l4Book", subscription.key, coin=subscription.coin)

    def first(self, world: World) -> First:
        """All resting orders. Raises NotNow."""
        assert self.row is not None
        time_ms = world.look().time_ms
        orders, bids, height = world.queues(self.row)
        head = b'{"channel":"l4Book","data":{"Snapshot":{"coin":%b,"time":%d,"height":%d,"levels":[[' % (
            json(self.coin),
            time_ms,
            height,
        )
        parts = [head, *world.orders_json(orders[:bids], encode.L4), b"],["]
        return First([*parts, *world.orders_json(orders[bids:], encode.L4), b"]]}}}"], height)

    def tell(self, block: Block, first: int) -> list[bytes]:
        statuses, diffs = block.world.queue_json(block.events, block.market_links, first)
        if not statuses and not diffs:
            return []
        head = b'{"channel":"l4Book","data":{"Updates":{"time":%d,"height":%d,"order_statuses":[' % (
            block.time_ms,
            block.height,
        )
        return [b"".join([head, statuses, b'],"book_diffs":[', diffs, b"]}}}"])]


class OrderUpdatesChannel(Bound):
    """orderUpdates: every status of a user's orders. It begins with nothing; openOrders tells the rest."""

    wants = interest.ORDERS

    def __init__(self, subscription: schema.OrderUpdates):
        super().__init__("orderUpdates", subscription.key, user=subscription.user.lower())

    def first(self, world: World) -> First:
        return First([], world.look().height)

    def tell(self, block: Block, first: int) -> list[bytes]:
        updates = block.world.updates_json(block.events, block.account_links, first)
        return [b'{"channel":"orderUpdates","data":[%b]}' % updates] if updates else []


class FillsChannel(Bound):
    """userFills: the newest fills, newest first and marked as a snapshot; then each block's."""

    wants = interest.FILLS
    repairable = True

    def __init__(self, subscription: schema.UserFills):
        super().__init__("userFills", subscription.key, user=subscription.user.lower())

    def first(self, world: World) -> First:
        height, fills = world.look().height, np.zeros(0, layout.FILL)
        if self.row is not None:
            fills = world.fills(self.row, USER_FILLS_MAX)
            fills = fills[fills["height"] <= height]
        head = b'{"channel":"userFills","data":{"isSnapshot":true,"user":%b,"fills":[' % json(self.user)
        return First([head + world.fills_json(fills) + b"]}}"], height)

    def tell(self, block: Block, first: int) -> list[bytes]:
        fills = gather(block, "fills", first, block.account_links)
        return [self._message(block.world, fills)] if len(fills) else []

    def since(self, world: World, after: int, until: int) -> list[bytes]:
        if self.row is None:
            return []
        newest = int(world.arrays["accounts"]["last_fill"][self.row])
        later = missed(world.fills(self.row, REPAIR_MAX), "account_prior", newest, after, until)
        return [self._message(world, later)] if len(later) else []

    def _message(self, world: World, fills: Array) -> bytes:
        return b'{"channel":"userFills","data":{"user":%b,"fills":[%b]}}' % (
            json(self.user),
            world.fills_json(fills),
        )


class UserEventsChannel(Bound):
    """userEvents, on the channel `user`: fills, funding, liquidations, TWAPs, orders cancelled by others."""

    wants = interest.FILLS | interest.ORDERS | interest.LEDGER | interest.TWAPS

    def __init__(self, subscription: schema.UserEvents):
        super().__init__("user", subscription.key, user=subscription.user.lower())

    def first(self, world: World) -> First:
        return First([], world.look().height)

    def tell(self, block: Block, first: int) -> list[bytes]:
        world, said = block.world, []
        fills = gather(block, "fills", first, block.account_links)
        if len(fills):
            said.append(b'{"channel":"user","data":{"fills":[%b]}}' % world.fills_json(fills))
        slices = twaps.of_slices(fills)
        if len(slices):
            text = world.slice_fills_json(slices)
            said.append(b'{"channel":"user","data":{"twapSliceFills":[%b]}}' % text)
        entries = [twaps.update(world, entry) for entry in gather(block, "twaps", first, block.account_links)]
        if entries:
            said.append(b'{"channel":"user","data":{"twapHistory":%b}}' % json(entries))
        for entry in gather(block, "ledger", first, block.account_links):
            if entry["kind"] == Ledger.FUNDING:
                said.append(b'{"channel":"user","data":{"funding":%b}}' % json(ledger.funding(world, entry)))
            elif entry["kind"] == Ledger.TAKEN:
                said.append(b'{"channel":"user","data":{"liquidation":%b}}' % json(ledger.liquidation(entry)))
        cancels = world.nonuser_cancels_json(block.events, block.account_links, first)
        if cancels:
            said.append(b'{"channel":"user","data":{"nonUserCancel":[%b]}}' % cancels)
        return said


class SilentChannel(Bound):
    """A channel of the wire on which there is never anything to say."""

    repairable = True

    def __init__(self, subscription: schema.Notification):
        super().__init__("notification", subscription.key, user=subscription.user.lower())

    def first(self, world: World) -> First:
        return First([], world.look().height)

    def tell(self, block: Block, first: int) -> list[bytes]:
        return []

    def since(self, world: World, after: int, until: int) -> list[bytes]:
        return []


StateChannel = BookChannel | BboChannel | MidsChannel | OpenOrdersChannel | account_channels.StateChannel
EventChannel = (
    TradesChannel
    | QueueChannel
    | OrderUpdatesChannel
    | FillsChannel
    | UserEventsChannel
    | SilentChannel
    | account_channels.EventChannel
)
Channel = StateChannel | EventChannel

_CHANNELS: dict[type, type] = {
    schema.Book: BookChannel,
    schema.Bbo: BboChannel,
    schema.Mids: MidsChannel,
    schema.OpenOrders: OpenOrdersChannel,
    schema.Trades: TradesChannel,
    schema.L4Book: QueueChannel,
    schema.OrderUpdates: OrderUpdatesChannel,
    schema.UserFills: FillsChannel,
    schema.UserEvents: UserEventsChannel,
    schema.Notification: SilentChannel,
    **account_channels.CHANNELS,
}


def make(subscription: schema.Subscription) -> Channel:
    channel: Channel = _CHANNELS[type(subscription)](subscription)
    return channel
