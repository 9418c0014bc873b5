"""A world of an exchange of our own, written by hand: `tests.world` with accounts, contracts and candles.

Money is in 10**-6 USD; the margin of an account is what the test says, not what an engine would make of it.

    world = Exchange()
    world.market("BTC", size_decimals=5, max_leverage=40, price="60000")
    with world.block() as block:
        block.funds(ALICE, cash=5_000_000)
        block.position(ALICE, "BTC", "0.001", entry=60_000_000, leverage=20)
"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np

from shm import broadcast, codes, layout
from shm.constants import PERP_DECIMALS
from shm.layout import NO_ACCOUNT, NO_MARKET, NO_SLOT
from tests.world import SIDES, Block, World, raw

KEPT = 16  # candles of each market and interval
INTERVALS = list(codes.INTERVALS_MS)
COUNTS = {
    "contracts": 8, "funds": 64, "positions": 256, "agents": 64, "ledger": 64,
    "candle_heads": 8 * len(INTERVALS), "candles": 8 * len(INTERVALS) * KEPT,
    "rates": 8 * KEPT, "twaps": 64, "running_twaps": 64,
}  # fmt: skip


def begins(time_ms, interval):
    """When the candle that holds this moment began."""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if interval == "1M":
        return int(midnight.replace(day=1).timestamp()) * 1000
    if interval == "1w":
        return int((midnight - timedelta(days=midnight.weekday())).timestamp()) * 1000
    return time_ms - time_ms % codes.INTERVALS_MS[interval]


class Exchange(World):
    def __init__(self, epoch=1, height=0, **counts):
        super().__init__(epoch, height, **COUNTS | counts)
        self.status["mode"] = codes.Mode.EXCHANGE
        self.positions = {}  # (account, market) -> row
        self.twaps = {}  # id -> row, while it runs

    def places(self, size_decimals):
        return PERP_DECIMALS - size_decimals, size_decimals

    def market(self, coin, size_decimals=2, max_leverage=20, price="100", maker=150, taker=450):
        if coin not in self.markets:
            m = super().market(coin, codes.MarketKind.PERP, size_decimals)
            row = self.arrays["contracts"][m : m + 1]
            row["max_leverage"], row["maker_rate"], row["taker_rate"] = max_leverage, maker, taker
            row["reference_price"] = row["mark"] = self.price(coin, price)
            row["tier_count"], row["tier_leverage"][0, 0] = 1, max_leverage
        return self.markets[coin]

    def account(self, address):
        if address not in self.accounts:
            a = super().account(address)
            row = self.arrays["funds"][a : a + 1]
            row["master"] = row["first_sub"] = row["next_sub"] = NO_ACCOUNT
            row["first_agent"] = row["first_position"] = row["first_twap"] = NO_SLOT
        return self.accounts[address]

    def new_block(self, height, time_ms):
        return ExchangeBlock(self, height, time_ms)


class ExchangeBlock(Block):
    """What happens in one block. Amounts are in 10**-6 USD."""

    def __init__(self, world, height, time_ms):
        super().__init__(world, height, time_ms)
        self.changes, self.entries, self.twaps = [], [], []

    def funds(self, user, **fields):
        """Give an account these FUNDS."""
        self._change_account(user, lambda a: self._set("funds", a, fields))

    def position(self, user, coin, size, entry, leverage=20, is_cross=True, **fields):
        """Give an account this position. entry: signed notional."""
        world = self.world
        told = {"size": world.size(coin, size), "entry": entry, "leverage": leverage, "is_cross": is_cross}
        self._change_account(user, lambda a: self._write_position(a, world.market(coin), told | fields))

    def agent(self, user, address, name="", valid_until_ms=0, is_live=True):
        text = np.frombuffer(name.encode().ljust(16, b"\0"), np.uint8)
        told = {"is_live": is_live, "valid_until_ms": valid_until_ms, "address": raw(address), "name": text}
        self._change_account(user, lambda a: self._link("agents", "agent_count", a, "first_agent", told))

    def sub(self, master, address, name):
        """A sub-account of `master`."""
        text = np.frombuffer(name.encode().ljust(16, b"\0"), np.uint8)
        a, sub = self.world.account(master), self.world.account(address)

        def write(_):
            funds = self.world.arrays["funds"]
            told = {"master": a, "name": text, "next_sub": funds["first_sub"][a]}
            self._set("funds", sub, told)
            funds["first_sub"][a] = sub

        self._change_account(master, write)
        self._change_account(address, lambda _: None)

    def money(self, user, kind, amount, other="0x" + "00" * 20, nonce=0, coin=None, **more):
        """An entry of the ledger. more: others of its fields."""
        entry = np.zeros(1, layout.LEDGER)
        entry["height"], entry["time_ms"], entry["amount"], entry["nonce"] = (
            self.height, self.time_ms, amount, nonce,
        )  # fmt: skip
        entry["hash"], entry["address"], entry["other"] = np.arange(32), raw(user), raw(other)
        entry["account"], entry["kind"] = self.world.account(user), kind
        entry["market"] = NO_MARKET if coin is None else self.world.market(coin)
        for field, value in more.items():
            entry[field] = value
        self.entries.append(entry)

    def twap(self, user, id, coin, state=codes.Twap.ACTIVATED, side="B", sz="0", done="0", **fields):
        """A TWAP begins, goes on or ends. sz, done: what is wanted and executed. fields: others of TWAP."""
        world = self.world
        told = {"height": self.height, "time_ms": self.time_ms, "order": id, "state": state, "next": NO_SLOT}
        told |= {"side": SIDES[side], "market": world.market(coin), "account": world.account(user)}
        told |= {"quantity": world.size(coin, sz), "executed": world.size(coin, done), "address": raw(user)}
        begins, ends = id not in world.twaps, state != codes.Twap.ACTIVATED
        if begins and not ends:
            taken = {*world.twaps.values()}
            world.twaps[id] = next(row for row in range(64) if row not in taken)
        row = world.twaps.pop(id, None) if ends else world.twaps[id]
        self._change_account(user, lambda a: self._write_twap(a, row, begins, ends, told | fields))
        if begins or ends:
            entry = np.zeros(1, layout.TWAP)
            for field, value in (told | fields).items():
                entry[field] = value
            self.twaps.append(entry)

    def open_interest(self, coin, size):
        self.contract(coin, open_interest=self.world.size(coin, size))

    def contract(self, coin, **fields):
        """Give a market these fields of its CONTRACT."""
        m = self.world.market(coin)
        self.changes.append((None, lambda _: self._set("contracts", m, fields)))
        self.markets.add(m)

    def rate(self, coin, rate, premium=0):
        """An hour of funding is over."""
        m, arrays = self.world.market(coin), self.world.arrays

        def write(_):
            kept, begun = len(arrays["rates"]) // len(arrays["contracts"]), arrays["contracts"]["rate_count"]
            told = {"time_ms": self.time_ms, "rate": rate, "premium": premium}
            self._set("rates", m * kept + int(begun[m]) % kept, told)
            begun[m] += 1

        self.changes.append((None, write))
        self.markets.add(m)

    def _change_account(self, user, write):
        a = self.world.account(user)
        self.changes.append((a, write))
        self.accounts.add(a)

    def _set(self, section, i, fields):
        row = self.world.arrays[section][i : i + 1]
        for field, value in fields.items():
            row[field] = value

    def _link(self, section, count, a, first, told):
        """Add a row to an account's chain; return it."""
        status, funds = self.world.status, self.world.arrays["funds"]
        i = int(status[count][0])
        self._set(section, i, told | {"account": a, "next": funds[first][a]})
        funds[first][a], status[count] = i, i + 1
        return i

    def _write_position(self, a, m, told):
        rows = self.world.positions
        if (a, m) not in rows:
            rows[a, m] = self._link("positions", "position_count", a, "first_position", {"market": m})
        self._set("positions", rows[a, m], told)

    def _write_twap(self, a, row, begins, ends, told):
        funds, running = self.world.arrays["funds"], self.world.arrays["running_twaps"]
        links = [link for link in self._running(a) if link != row or not ends]
        links = [row, *links] if begins and not ends else links
        if row is not None:
            self._set("running_twaps", row, told)
        for link, following in pairwise([*links, NO_SLOT]):
            running["next"][link] = following
        funds["first_twap"][a] = links[0] if links else NO_SLOT

    def _running(self, a):
        row = int(self.world.arrays["funds"]["first_twap"][a])
        while row != NO_SLOT:
            yield row
            row = int(self.world.arrays["running_twaps"]["next"][row])

    def _write_rows(self):
        super()._write_rows()
        for a, write in self.changes:
            write(a)

    def _write_rings(self):
        super()._write_rings()
        arrays = self.world.arrays
        for trade in self.trades:
            m = int(trade["market"][0])
            arrays["contracts"]["reference_price"][m] = arrays["contracts"]["mark"][m] = trade["price"][0]
            arrays["contracts"]["trade_count"][m] += 1
            for i, interval in enumerate(INTERVALS):
                self._write_candle(m * len(INTERVALS) + i, interval, trade[0])
        for a in sorted({a for a, _ in self.changes if a is not None}):
            address = arrays["accounts"]["address"][a]
            self._event(codes.EventKind.FUNDS, market=layout.NO_MARKET, account=a, address=address)
        for entry in self.entries:
            position = self._keep("ledger", entry)
            a = int(entry["account"][0])
            self._event(codes.EventKind.LEDGER, order=position, market=layout.NO_MARKET, account=a)
        for entry in self.twaps:
            position = self._keep("twaps", entry)
            a, m = int(entry["account"][0]), entry["market"][0]
            self._event(codes.EventKind.TWAP, order=position, market=m, account=a)

    def _keep(self, section, entry):
        """Put an entry of an account into the ring of a section, on top of those before; return where."""
        one = section.removesuffix("s")
        arrays, a = self.world.arrays, int(entry["account"][0])
        entry["account_prior"] = arrays["funds"][f"last_{one}"][a]
        position = broadcast.publish(arrays[f"{one}_ring"], arrays[section], entry, 1)
        arrays["funds"][f"last_{one}"][a] = position + 1
        return position

    def _write_candle(self, series, interval, trade):
        head, kept = self.world.arrays["candle_heads"]["count"], KEPT
        start_ms, price, n = begins(self.time_ms, interval), trade["price"], int(head[series]) - 1
        candle = self.world.arrays["candles"][series * kept + n % kept]
        if n < 0 or candle["start_ms"] != start_ms:
            head[series] += 1
            candle = self.world.arrays["candles"][series * kept + (n + 1) % kept]
            candle["start_ms"], candle["open"], candle["high"], candle["low"] = start_ms, price, price, price
            candle["volume"] = candle["notional"] = candle["count"] = 0
        candle["high"], candle["low"] = max(candle["high"], price), min(candle["low"], price)
        candle["close"] = price
        candle["volume"] += trade["quantity"]
        candle["notional"] += price * trade["quantity"]
        candle["count"] += 1
