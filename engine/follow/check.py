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
from shm.codes import OrderState, Stale
from shm.kernel import entry
from shm.layout import ENDED, NO_ACCOUNT, NO_MARKET, TRADE

KEPT_BLOCKS = 8192  # about ten minutes
KEPT_BYTES = 512 << 20


class Kept(NamedTuple):
    """What of a block the books depend on."""

    height: int
    time_ns: int
    statuses: np.ndarray  # without the refusals
    diffs: np.ndarray
    fills: np.ndarray  # by which the second state, too, sees that a diff is missing
    whole: bool  # no stream was missing

    @property
    def nbytes(self) -> int:
        return int(self.statuses.nbytes + self.diffs.nbytes + self.fills.nbytes)


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
        self._bytes += block.nbytes
        while len(self.blocks) > KEPT_BLOCKS or self._bytes > KEPT_BYTES:
            old = self.blocks.popleft()
            self._bytes -= old.nbytes
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


class Built(NamedTuple):
    """A second state: made of the snapshot at `height`, brought up to `reached`."""

    height: int
    reached: int
    with_triggers: bool  # the snapshot holds untriggered orders: some leave them all out
    state: State


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
        self._parsing: Future[Parsed] | None = None
        self._parsed: Parsed | None = None  # waits for the live state to reach its height
        self._building: Future[Built] | None = None

    @property
    def busy(self) -> bool:
        return self.working or self._parsed is not None

    @property
    def working(self) -> bool:
        """Whether something is done in the background."""
        return self._parsing is not None or self._building is not None

    def begin(self, text: np.ndarray) -> None:
        """Parse a snapshot in the background."""
        self._parsing = self._pool.submit(_parse, text, self._capacity)

    def advance(self, live: State, past: Past, trusted_from: np.ndarray) -> Report | None:
        """Do what can be done now; compare when the second state is built. Raises records.Corrupt.

        trusted_from  i8[markets]: the log of a market is not to be trusted below this height, so an older
                      snapshot cannot be brought up by it
        Gives None while there is nothing to say, also when the snapshot turned out too old to be brought up.
        """
        if self._parsing is not None and self._parsing.done():
            parsing, self._parsing = self._parsing, None
            self._parsed = parsing.result()
        if self._parsed is not None and live.status[0]["height"] >= self._parsed.height:
            parsed, self._parsed = self._parsed, None
            blocks = past.after(parsed.height)
            if blocks is not None:
                translate(parsed.orders, parsed.tables, live)
                second = allocate(self._capacity)
                second.refusals[:] = live.refusals
                self._building = self._pool.submit(_build, second, parsed, blocks)
        if self._building is None or not self._building.done():
            return None
        building, self._building = self._building, None
        built = building.result()
        blocks = past.after(built.reached)
        if blocks is None:
            return None
        _bring_up(built.state, blocks)
        built.state.status["market_count"] = live.status["market_count"]
        return _compare(live, built.state, built.height < trusted_from, built.with_triggers)


def _build(second: State, parsed: Parsed, blocks: list[Kept]) -> Built:
    """Put the snapshot into the second state and bring it up. Beside the engine: it touches nothing live."""
    image.load(second, parsed.orders[parsed.orders["market"] != NO_MARKET])
    _bring_up(second, blocks)
    with_triggers = bool((parsed.orders["state"] == OrderState.UNTRIGGERED).any())
    return Built(parsed.height, blocks[-1].height if blocks else parsed.height, with_triggers, second)


def _bring_up(second: State, blocks: list[Kept]) -> None:
    ended, trade = np.zeros(1, ENDED), np.zeros(1, TRADE)
    for block in blocks:
        apply.apply_block(
            second, block.statuses, block.diffs, block.fills, block.height, block.time_ns, ended, trade
        )


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


def _compare(live: State, second: State, unfit: np.ndarray, with_triggers: bool) -> Report:
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
    if with_triggers:
        _repair_untriggered(live, second)
    live.status["checked_height"] = height
    return Report(height, count, orders, repaired)


def _repair_untriggered(live: State, second: State) -> None:
    """Make the live untriggered orders those of the second state."""
    mine, theirs = image.untriggered(live), image.untriggered(second)
    gone = mine["order"][~np.isin(mine["order"], theirs["order"])]
    missing = theirs[~np.isin(theirs["order"], mine["order"])]
    if len(gone) or len(missing):
        image.replace_untriggered(live, gone, missing)


def warm() -> None:
    """Compile the entry point of its own."""
    tables = _tables(TINY)
    translate_accounts(tables.accounts, tables, np.zeros(0, np.int32))
