"""Compare the live books with a later snapshot of the source, market by market, and repair those that differ.

The snapshot is of a block that the live state has passed, or will: it is built into a second state in private
memory, brought to the live height with the blocks that were kept, and compared there, lengths included. A
market that differs or was in doubt is rebuilt from the second state; the others are not touched.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from engine import apply, image
from engine.follow import intern, parse
from engine.state import TINY, Capacity, State, allocate, market_name, power_of_two, row_text
from shm import layout
from shm.codes import Stale
from shm.kernel import entry
from shm.layout import ENDED, FILL, NO_ACCOUNT, NO_MARKET, TRADE

KEPT_BLOCKS = 8192  # about ten minutes
KEPT_BYTES = 512 << 20


class Kept(NamedTuple):
    """What of a block the books depend on."""

    height: int
    time_ns: int
    statuses: np.ndarray  # without the refusals
    diffs: np.ndarray
    whole: bool  # no stream was missing


class Past:
    """The blocks that were applied last, oldest first, bounded in number and in bytes."""

    def __init__(self) -> None:
        self.blocks: deque[Kept] = deque()
        self._bytes = 0
        self._above = 0  # all blocks that were applied above this height are kept

    def begin(self, height: int) -> None:
        """The state stands at `height`: the blocks that will be kept are those after it."""
        self.blocks.clear()
        self._bytes, self._above = 0, height

    def keep(self, block: Kept) -> None:
        self.blocks.append(block)
        self._bytes += block.statuses.nbytes + block.diffs.nbytes
        while len(self.blocks) > KEPT_BLOCKS or self._bytes > KEPT_BYTES:
            old = self.blocks.popleft()
            self._bytes -= old.statuses.nbytes + old.diffs.nbytes
            self._above = old.height

    def after(self, height: int) -> list[Kept] | None:
        """The kept blocks above `height`, or None if they do not begin there or one of them is not whole."""
        later = [block for block in self.blocks if block.height > height]
        return later if height >= self._above and all(block.whole for block in later) else None


class Parsed(NamedTuple):
    """A snapshot, with rows of tables of its own."""

    height: int
    orders: np.ndarray  # ORDER[]
    tables: intern.Tables


class Report(NamedTuple):
    """What a comparison found."""

    height: int  # at which both stood
    markets: int
    orders: int
    repaired: dict[str, str]  # market -> what was wrong with it


class Check:
    """One comparison after another, beside the live engine.

    capacity  of the live state: the second one is as large
    """

    def __init__(self, capacity: Capacity):
        self._capacity = capacity._replace(
            events=1024, trades=64, fills=64, closed=64, rejected=64, buckets=64
        )
        self._pool = ThreadPoolExecutor(1, "check")
        self._work: Future[Parsed] | None = None
        self._parsed: Parsed | None = None

    @property
    def busy(self) -> bool:
        return self._work is not None or self._parsed is not None

    @property
    def working(self) -> bool:
        """Whether a snapshot is being parsed."""
        return self._work is not None

    def begin(self, text: np.ndarray) -> None:
        """Parse a snapshot in the background."""
        self._work = self._pool.submit(_parse, text, self._capacity)

    def advance(self, live: State, past: Past, trusted_from: np.ndarray) -> Report | None:
        """Compare when the snapshot is parsed and the live state has reached it. Raises records.Corrupt.

        trusted_from  i8[markets]: the log of a market is not to be trusted below this height, so an older
                      snapshot
                      cannot be brought up by it
        Gives None while there is nothing to say, also when the snapshot turned out too old to be brought up.
        """
        if self._work is not None and self._work.done():
            work, self._work = self._work, None
            self._parsed = work.result()
        if self._parsed is None or live.status[0]["height"] < self._parsed.height:
            return None
        parsed, self._parsed = self._parsed, None
        blocks = past.after(parsed.height)
        if blocks is None:
            return None
        return _compare(live, self._second(live, parsed, blocks), parsed.height < trusted_from)

    def _second(self, live: State, parsed: Parsed, blocks: list[Kept]) -> State:
        second = allocate(self._capacity)
        translate(parsed.orders, parsed.tables, live)
        image.load(second, parsed.orders[parsed.orders["market"] != NO_MARKET])
        ended, trade, no_fills = np.zeros(1, ENDED), np.zeros(1, TRADE), np.zeros(0, FILL)
        second.refusals[:] = live.refusals
        for block in blocks:
            apply.apply_block(
                second, block.statuses, block.diffs, no_fills, block.height, block.time_ns, ended, trade
            )
        second.status["market_count"] = live.status["market_count"]
        return second


def _tables(capacity: Capacity) -> intern.Tables:
    return intern.tables(
        np.zeros(capacity.markets, layout.MARKET),
        np.zeros(capacity.names, layout.NAME),
        np.zeros(capacity.accounts, layout.ACCOUNT),
        np.zeros(power_of_two(2 * capacity.accounts), np.int64),
        np.zeros(1, layout.WORLD_STATUS),
    )


def _parse(text: np.ndarray, capacity: Capacity) -> Parsed:
    own = _tables(capacity)
    height, orders, _ = parse.parse_snapshot(text, own)
    return Parsed(height, orders, own)


def translate(orders: np.ndarray, own: intern.Tables, live: State) -> None:
    """Rewrite the rows of `own` tables in `orders` as rows of the live tables, adding what those lack."""
    mine = intern.tables(live.markets, live.names, live.accounts, live.account_index, live.status)
    counts = own.counts[0]
    markets = [intern.market(mine, row_text(row["name"])) for row in own.markets[: counts["market_count"]]]
    names = [intern.name(mine, row_text(row["text"]) or None) for row in own.names[: counts["name_count"]]]
    accounts = np.full(int(counts["account_count"]) + 1, NO_ACCOUNT, np.int32)
    translate_accounts(own.accounts, mine, accounts[:-1])
    orders["market"] = np.array([*markets, NO_MARKET], np.int32)[orders["market"]]
    orders["account"] = accounts[orders["account"]]
    for field in ("tif", "order_type"):
        orders[field] = np.array(names, np.uint16)[orders[field]]


@entry
def translate_accounts(accounts, mine, out):
    """Write the row in the tables `mine` of each of accounts[:len(out)] into out (i4[])."""
    for row in range(len(out)):
        out[row] = intern.account_of(mine, accounts[row].address)


def _compare(live: State, second: State, unfit: np.ndarray) -> Report:
    height, time_ns = int(live.status[0]["height"]), int(live.status[0]["time_ns"])
    repaired, orders = {}, 0
    count = int(live.status[0]["market_count"])
    for market in range(count):
        mine, theirs = image.resting(live, market), image.resting(second, market)
        orders += len(theirs)
        at = image.first_difference(mine, theirs)
        stale = Stale(int(live.markets[market]["stale"]))
        if unfit[market] or second.markets[market]["stale"] or (at < 0 and stale == Stale.FRESH):
            continue
        if image.replace_market(live, market, theirs, height, time_ns) == 0:
            said = (
                f"{len(mine)} orders against {len(theirs)}, first difference at {at}" if at >= 0 else "equal"
            )
            repaired[market_name(live, market)] = f"{stale.name.lower()}: {said}"
    _repair_untriggered(live, second)
    live.status["checked_height"] = height
    return Report(height, count, orders, repaired)


def _repair_untriggered(live: State, second: State) -> None:
    """Make the live untriggered orders those of the second state."""
    mine, theirs = (image.untriggered(state, int(state.status[0]["order_count"])) for state in (live, second))
    gone = mine["order"][~np.isin(mine["order"], theirs["order"])]
    missing = theirs[~np.isin(theirs["order"], mine["order"])]
    if len(gone) or len(missing):
        image.replace_untriggered(live, gone, missing)


def warm() -> None:
    """Compile the entry point of its own."""
    tables = _tables(TINY)
    translate_accounts(tables.accounts, tables, np.zeros(0, np.int32))
