"""A world region written by hand: what the engine would publish, without the engine.

Orders are kept in plain dictionaries; at the end of a block the rows of the markets and accounts that changed
are written anew from them, under the brackets and in the order in which the engine does it. Small and slow,
on purpose.

    world = World()
    with world.block(time_ms=1_700_000_000_000) as block:
        block.open("BTC", ALICE, "B", "100.5", "2.0", oid=7)
"""

import os
from contextlib import contextmanager

import numpy as np

from shm import broadcast, codes, index, layout, region, seqlock, units
from shm.constants import BOOK_DEPTH, BOOK_SLOTS, PLACES
from shm.layout import NO_SLOT

ALICE, BOB, CAROL = "0x" + "a1" * 20, "0x" + "b0" * 20, "0x" + "ca" * 20
NOBODY = "0x" + "00" * 19 + "01"  # never in a world

COUNTS = {
    "status": 1, "names": 256, "markets": 8, "sides": 16, "levels": 16 * 256, "orders": 4096, "order_index":
    8192, "accounts": 64, "account_index": 128, "book_heads": 8, "books": 8 * BOOK_SLOTS, "event_ring": 1,
    "events": 1024, "trade_ring": 1, "trades": 256, "fill_ring": 1, "fills": 256, "closed_ring": 1, "closed":
    256, "rejected_ring": 1, "rejected": 256, "closed_buckets": 64, "rejected_buckets": 64, "cloid_buckets":
    64, "contracts": 1, "funds": 1, "positions": 1, "agents": 1, "ledger_ring": 1, "ledger": 1,
    "candle_heads": 1, "candles": 1, "rates": 1, "twap_ring": 1, "twaps": 1, "running_twaps": 1,
}  # fmt: skip

RESTING = codes.OrderState.RESTING
SIDES = {"B": codes.Side.BUY, "A": codes.Side.SELL}


def raw(text):
    """The bytes of `0x...`."""
    return np.frombuffer(bytes.fromhex(text[2:]), np.uint8)


def amount(text):
    return units.parse_decimal(str(text).encode(), PLACES)


class World:
    def __init__(self, epoch=1, height=0, **counts):
        sizes = COUNTS | counts
        sections = {name: (dtype, sizes[name]) for name, dtype in layout.WORLD.items()}
        self.region = region.create("world", sections, epoch)
        self.arrays = self.region.arrays
        self.status = self.arrays["status"]
        self.orders = {}  # oid -> its facts
        self.markets, self.accounts, self.names = {}, {}, {}
        self.slots = list(range(sizes["orders"] - 1, -1, -1))
        self.side_levels = sizes["levels"] // sizes["sides"]
        for text in codes.NAMES:
            self.name(text)
        self.status["mode"], self.status["state"] = codes.Mode.FOLLOW, codes.Feed.LIVE
        self.status["height"] = height
        self.region.beat(2**62)

    def reader(self):
        """The same memory, as another process would see it."""
        return region.attach(os.dup(self.region.fd), layout.WORLD)

    def name(self, text):
        if text not in self.names:
            row = self.names[text] = len(self.names)
            encoded = text.encode()
            self.arrays["names"]["text"][row, : len(encoded)] = np.frombuffer(encoded, np.uint8)
            self.status["name_count"] = row + 1
        return self.names[text]

    def places(self, size_decimals):
        """Of a market's prices and of its quantities."""
        return PLACES, PLACES

    def price(self, coin, text):
        places = int(self.arrays["markets"]["price_places"][self.market(coin)])
        return units.parse_decimal(str(text).encode(), places)

    def size(self, coin, text):
        places = int(self.arrays["markets"]["quantity_places"][self.market(coin)])
        return units.parse_decimal(str(text).encode(), places)

    def market(self, coin, kind=codes.MarketKind.PERP, size_decimals=5):
        """The market's index; listed when it is new."""
        if coin not in self.markets:
            m = self.markets[coin] = len(self.markets)
            row = self.arrays["markets"][m : m + 1]
            row["name"][0, : len(coin)] = np.frombuffer(coin.encode(), np.uint8)
            row["kind"], row["size_decimals"] = kind, size_decimals
            row["price_places"], row["quantity_places"] = self.places(size_decimals)
            for side in range(2):
                self.arrays["sides"]["offset"][2 * m + side] = (2 * m + side) * self.side_levels
                self.arrays["sides"]["capacity"][2 * m + side] = self.side_levels
            self.status["market_count"] = m + 1
        return self.markets[coin]

    def account(self, address):
        if address not in self.accounts:
            a = self.accounts[address] = len(self.accounts)
            row = self.arrays["accounts"][a : a + 1]
            row["address"], row["first_order"], row["last_order"] = raw(address), NO_SLOT, NO_SLOT
            index.add_account(self.arrays["account_index"], raw(address), 0, a)
            self.status["account_count"] = a + 1
        return self.accounts[address]

    @contextmanager
    def block(self, height=None, time_ms=None):
        """Collect a block, then publish it. Heights rise by one unless told."""
        height = int(self.status["height"][0]) + 1 if height is None else height
        block = self.new_block(height, 1_700_000_000_000 + 100 * height if time_ms is None else time_ms)
        yield block
        block.publish()

    def new_block(self, height, time_ms):
        return Block(self, height, time_ms)

    def announce(self, kind, coin, status=0):
        """An event between blocks: STALE or RESET."""
        event = np.zeros(1, layout.EVENT)
        event["kind"], event["status"], event["height"] = kind, status, self.status["height"]
        event["time_ns"], event["account"] = self.status["time_ns"], layout.NO_ACCOUNT
        event["market"] = layout.NO_MARKET if coin is None else self.market(coin)
        broadcast.publish(self.arrays["event_ring"], self.arrays["events"], event, 1)

    def stale(self, coin, why=codes.Stale.GAP):
        self.arrays["markets"]["stale"][self.market(coin)] = why
        self.announce(codes.EventKind.STALE, coin, why)

    def reset(self, coin):
        m = self.market(coin)
        self.arrays["markets"]["stale"][m] = 0
        self.arrays["markets"]["epoch"][m] += 1
        self._publish_book(m)
        self.announce(codes.EventKind.RESET, coin)

    # writing rows

    def write_market(self, m, height):
        """Rewrite a market's levels and queues from the orders."""
        levels, orders = self.arrays["levels"], self.arrays["orders"]
        resting = [o for o in self.orders.values() if o["market"] == m and o["state"] == RESTING]
        for side in range(2):
            mine = [o for o in resting if o["side"] == side]
            prices = sorted({o["price"] for o in mine}, reverse=side == codes.Side.SELL)
            row = self.arrays["sides"][2 * m + side]
            row["count"], row["order_count"] = len(prices), len(mine)
            for i, price in enumerate(prices):
                queue = [o for o in mine if o["price"] == price]
                level = levels[int(row["offset"]) + i]
                level["price"], level["quantity"] = price, sum(o["quantity"] for o in queue)
                level["head"], level["tail"] = queue[0]["slot"], queue[-1]["slot"]
                level["count"] = len(queue)
                slots = [NO_SLOT, *(o["slot"] for o in queue), NO_SLOT]
                for n in range(1, len(slots) - 1):
                    orders["prior"][slots[n]], orders["next"][slots[n]] = slots[n - 1], slots[n + 1]
        self.arrays["markets"]["order_count"][m] = len(resting)
        self.arrays["markets"]["height"][m] = height

    def write_account(self, a):
        orders = self.arrays["orders"]
        mine = [o["slot"] for o in self.orders.values() if o["account"] == a]
        slots = [NO_SLOT, *mine, NO_SLOT]
        for n in range(1, len(slots) - 1):
            orders["account_prior"][slots[n]], orders["account_next"][slots[n]] = slots[n - 1], slots[n + 1]
        row = self.arrays["accounts"][a : a + 1]
        row["order_count"], row["first_order"], row["last_order"] = len(mine), slots[1], slots[-2]

    def write_order(self, o):
        row = self.arrays["orders"][o["slot"] : o["slot"] + 1]
        for field in (
            "order", "price", "quantity", "original", "trigger_price", "timestamp_ms", "cloid", "market",
            "account", "state", "side", "condition", "flags", "tif", "order_type", "group",
        ):  # fmt: skip
            row[field] = o[field]

    def _publish_book(self, m):
        market = self.arrays["markets"][m]
        head = self.arrays["book_heads"][m]
        cells = self.arrays["books"][m * BOOK_SLOTS : (m + 1) * BOOK_SLOTS]
        i = seqlock.begin(head, cells)
        cell = cells[i : i + 1]
        cell["height"], cell["epoch"], cell["stale"] = market["height"], market["epoch"], market["stale"]
        cell["time_ms"], cell["last_price"] = self.block_time_ms, market["last_price"]
        for side, (count, name) in enumerate([("bid_count", "bids"), ("ask_count", "asks")]):
            row = self.arrays["sides"][2 * m + side]
            end = int(row["offset"]) + int(row["count"])
            best = self.arrays["levels"][int(row["offset"]) : end][::-1][:BOOK_DEPTH]
            cell[count] = len(best)
            for field in ("price", "quantity", "count"):
                cell[name][field][0, : len(best)] = best[field]
        seqlock.end(head, cells, i)

    block_time_ms = 0


class Block:
    """What happens in one block. Prices and sizes are the wire's texts."""

    def __init__(self, world, height, time_ms):
        self.world, self.height, self.time_ms = world, height, time_ms
        self.events, self.markets, self.accounts = [], set(), set()
        self.trades, self.fills, self.ended = [], [], []
        self.added, self.removed = [], []

    def _event(self, kind, **fields):
        event = np.zeros(1, layout.EVENT)
        event["kind"], event["height"], event["time_ns"] = kind, self.height, self.time_ms * 1_000_000
        for field, value in fields.items():
            event[field] = value
        self.events.append(event)
        return event

    def _facts(self, coin, user, side, px, sz, oid, **more):
        world = self.world
        cloid = more.pop("cloid", None)
        flags = more.pop("flags", 0) | (codes.Flag.HAS_CLOID if cloid else 0)
        return {
            "market": world.market(coin), "account": world.account(user), "side": SIDES[side], "order": oid,
            "price": world.price(coin, px), "quantity": world.size(coin, sz),
            "original": world.size(coin, more.pop("original", sz)),
            "trigger_price": world.price(coin, more.pop("trigger_px", "0")),
            "timestamp_ms": more.pop("timestamp", self.time_ms),
            "cloid": raw(cloid) if cloid else np.zeros(16, np.uint8),
            "condition": more.pop("condition", 0), "flags": flags, "tif": world.name(more.pop("tif", "Gtc")),
            "order_type": world.name(more.pop("order_type", "Limit")), **more,
        }  # fmt: skip

    def status(self, coin, user, side, px, sz, oid, status, **more):
        """An order's status; one that is not `open` or `triggered` is the order's last word."""
        facts = self._facts(coin, user, side, px, sz, oid, **more)
        event = self._event(
            codes.EventKind.STATUS, address=raw(user), status=self.world.name(status), **facts
        )
        if status not in ("open", "triggered"):
            self.ended.append((event, codes.is_refusal(status)))

    def open(self, coin, user, side, px, sz, oid, state=RESTING, told=True, group=0, **more):
        """A new order: its status `open`, and, unless it waits for a trigger, its NEW."""
        facts = self._facts(coin, user, side, px, sz, oid, **more)
        if told:
            self._event(codes.EventKind.STATUS, address=raw(user), status=codes.Status.OPEN, **facts)
        if state == RESTING:
            self._event(codes.EventKind.NEW, address=raw(user), **facts)
        self.added.append(facts | {"state": state, "group": group, "slot": self.world.slots.pop()})
        self.markets.add(facts["market"])
        self.accounts.add(facts["account"])

    def _change(self, oid, kind, quantity, original):
        order = self.world.orders.get(oid) or next(o for o in self.added if o["order"] == oid)
        address = self.world.arrays["accounts"]["address"][order["account"]]
        told = {
            field: order[field]
            for field in ("order", "price", "market", "account", "side", "timestamp_ms", "cloid", "flags")
        }
        self._event(kind, address=address, **told | {"quantity": quantity, "original": original})
        self.markets.add(order["market"])
        self.accounts.add(order["account"])
        return order

    def update(self, oid, sz):
        order = self.world.orders[oid]
        coin = next(coin for coin, m in self.world.markets.items() if m == order["market"])
        self._change(oid, codes.EventKind.UPDATE, self.world.size(coin, sz), order["quantity"])
        order["quantity"] = self.world.size(coin, sz)

    def remove(self, oid, status="canceled"):
        order = self.world.orders[oid]
        fields = {k: v for k, v in order.items() if k not in ("slot", "state", "group")}
        address = self.world.arrays["accounts"]["address"][order["account"]]
        event = self._event(codes.EventKind.STATUS, address=address, status=self.world.name(status), **fields)
        self.ended.append((event, False))
        self._change(oid, codes.EventKind.REMOVE, 0, 0)
        self.removed.append(oid)

    def trade(self, coin, buyer, seller, side, px, sz, tid, maker_oid=1, taker_oid=2, **fill):
        """A trade and its two fills."""
        m = self.world.market(coin)
        trade = np.zeros(1, layout.TRADE)
        trade["height"], trade["time_ms"], trade["trade"] = self.height, self.time_ms, tid
        trade["price"], trade["quantity"] = self.world.price(coin, px), self.world.size(coin, sz)
        trade["market"] = m
        trade["side"], trade["buyer"], trade["seller"] = SIDES[side], raw(buyer), raw(seller)
        trade["hash"] = np.arange(32)
        self.trades.append(trade)
        for user, mine in ((buyer, "B"), (seller, "A")):
            taker = mine == side
            self.fill(coin, user, mine, px, sz, tid, taker_oid if taker else maker_oid, crossed=taker, **fill)

    def fill(self, coin, user, side, px, sz, tid, oid, crossed=True, direction="Open Long", flags=0, **more):
        item = np.zeros(1, layout.FILL)
        item["height"], item["time_ms"], item["trade"], item["order"] = self.height, self.time_ms, tid, oid
        item["price"], item["quantity"] = self.world.price(coin, px), self.world.size(coin, sz)
        item["market"] = self.world.market(coin)
        item["account"], item["address"], item["side"] = self.world.account(user), raw(user), SIDES[side]
        item["flags"] = flags | (codes.Flag.CROSSED if crossed else 0)
        item["direction"], item["fee_token"] = self.world.name(direction), self.world.name("USDC")
        item["twap"], item["hash"] = -1, np.arange(32)
        for field, value in more.items():
            item[field] = value
        self.fills.append(item)

    # publishing, in the engine's order

    def publish(self):
        world, arrays = self.world, self.world.arrays
        world.block_time_ms = self.time_ms
        self.markets |= {int(trade["market"][0]) for trade in self.trades}
        brackets = [world.status[0], *(arrays["markets"][m] for m in sorted(self.markets))]
        brackets += [arrays["accounts"][a] for a in sorted(self.accounts)]
        for row in brackets:
            seqlock.open_row(row)
        self._write_rows()
        self._write_rings()
        for m in self.markets:
            arrays["markets"]["height"][m] = self.height
            world._publish_book(m)
        for row in reversed(brackets):
            if row is brackets[0]:
                world.status["height"], world.status["time_ns"] = self.height, self.time_ms * 1_000_000
            seqlock.close_row(row)
        self._event(codes.EventKind.BLOCK, market=layout.NO_MARKET, account=layout.NO_ACCOUNT)
        events = np.concatenate(self.events)
        broadcast.publish(arrays["event_ring"], arrays["events"], events, len(events))

    def _write_rows(self):
        world = self.world
        for oid in self.removed:
            order = world.orders[oid]
            index.remove_order(world.arrays["order_index"], world.arrays["orders"], oid)
            world.arrays["orders"]["state"][order["slot"]] = codes.OrderState.FREE
            world.slots.append(world.orders.pop(oid)["slot"])
        for order in self.added:
            world.orders[order["order"]] = order
            world.write_order(order)
            index.add_order(world.arrays["order_index"], order["order"], order["slot"])
        for order in world.orders.values():
            world.write_order(order)
        for m in self.markets:
            world.write_market(m, self.height)
        for a in self.accounts:
            world.write_account(a)
        world.status["order_count"] = len(world.orders)

    def _write_rings(self):
        arrays = self.world.arrays
        for trade in self.trades:
            m = int(trade["market"][0])
            trade["market_prior"] = arrays["markets"]["last_trade"][m]
            position = broadcast.publish(arrays["trade_ring"], arrays["trades"], trade, 1)
            arrays["markets"]["last_trade"][m] = position + 1
            arrays["markets"]["last_price"][m] = trade["price"][0]
            self._event(codes.EventKind.TRADE, order=position, market=m, account=layout.NO_ACCOUNT)
        for fill in self.fills:
            a = int(fill["account"][0])
            fill["account_prior"] = arrays["accounts"]["last_fill"][a]
            position = broadcast.publish(arrays["fill_ring"], arrays["fills"], fill, 1)
            arrays["accounts"]["last_fill"][a] = position + 1
            self._event(codes.EventKind.FILL, order=position, market=fill["market"][0], account=a)
        for event, refused in self.ended:
            self._write_ended(event, "rejected" if refused else "closed")

    def _write_ended(self, event, ring):
        arrays = self.world.arrays
        ended = np.zeros(1, layout.ENDED)
        for field in layout.EVENT.names[1:]:
            ended[field] = event[field]
        a, oid = int(event["account"][0]), int(event["order"][0])
        buckets = arrays[f"{ring}_buckets"]
        bucket = index.mix(oid) & (len(buckets) - 1)
        ended["account_prior"] = arrays["accounts"][f"last_{ring}"][a]
        ended["bucket_prior"] = buckets[bucket]
        has_cloid = ring == "closed" and event["flags"][0] & codes.Flag.HAS_CLOID
        if has_cloid:
            by_cloid = index.key_of(event["cloid"][0], 0, 16) & (len(arrays["cloid_buckets"]) - 1)
            ended["cloid_prior"] = arrays["cloid_buckets"][by_cloid]
        position = broadcast.publish(arrays[f"{ring}_ring"], arrays[ring], ended, 1)
        arrays["accounts"][f"last_{ring}"][a] = position + 1
        buckets[bucket] = position + 1
        if has_cloid:
            arrays["cloid_buckets"][by_cloid] = position + 1
