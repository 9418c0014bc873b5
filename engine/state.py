"""Everything the engine knows, as arrays of fixed capacity.

The world part lies in shared memory, where gateways read it; the rest is the engine's own: free lists, marks
of what a block has touched, and room to build a block's events in. A second state in private memory is how a
snapshot is compared with the live one.
"""

from typing import NamedTuple

import numpy as np

from shm import constants as c
from shm import layout
from shm.codes import NAMES, Feed, Mode, is_refusal
from shm.layout import NO_SLOT

EXTENT_CLASSES = 24  # a side's extent holds SIDE_LEVELS_MIN << class levels
FACTS_PER_BLOCK_MAX = 1 << 16  # opening statuses and removals that a block is searched for

RINGS = {  # what has happened: the header of each ring, and its slots
    "event_ring": "events",
    "trade_ring": "trades",
    "fill_ring": "fills",
    "closed_ring": "closed",
    "rejected_ring": "rejected",
    "ledger_ring": "ledger",
    "twap_ring": "twaps",
}
EXCHANGE_TABLES = (
    "contracts", "funds", "positions", "agents", "candle_heads", "candles", "rates", "running_twaps",
)  # fmt: skip

HEAP = layout.record(
    ("free_orders", "i8"),  # slots on the stack of free slots
    ("levels_top", "i8"),  # levels ever handed out to extents
    ("dirty_markets", "i8"),  # markets the current block has touched
    ("dirty_accounts", "i8"),
    ("block_events", "i8"),  # events of the current block that are not published yet
    ("block_facts", "i8"),  # opening statuses of the current block
    ("block_removed", "i8"),
    ("duplicates", "i8"),  # diffs that repeated what had been applied
    ("synthetic", "i8"),  # orders known by their diff alone
    ("unknown", "i8"),  # diffs for orders that were not there
    ("wrong", "i8"),  # diffs that disagreed with the order they named
    ("full", "i8"),  # refused for want of room
    ("trades", "i8"),
    ("fills", "i8"),
    ("unpaired_fills", "i8"),
)


class Capacity(NamedTuple):
    """How many of each; indexes and rings are rounded up to powers of two."""

    markets: int = c.MARKETS_MAX
    accounts: int = c.ACCOUNTS_MAX
    orders: int = c.ORDERS_MAX
    levels: int = c.LEVELS_MAX
    names: int = c.NAMES_MAX
    events: int = c.EVENTS_MAX
    trades: int = c.TRADES_MAX
    fills: int = c.FILLS_MAX
    closed: int = c.CLOSED_MAX
    rejected: int = c.REJECTED_MAX
    buckets: int = c.BUCKETS_MAX
    # of an exchange of our own (engine/exchange/world.py); where a node is followed, one of each
    contracts: int = 1
    funds: int = 1
    positions: int = 1
    agents: int = 1
    ledger: int = 1
    candle_heads: int = 1
    candles: int = 1
    rates: int = 1
    twaps: int = 1
    running_twaps: int = 1


TINY = Capacity(4, 4, 4, 64, 64, 8, 8, 8, 8, 8, 8)  # enough to compile the kernels with


class Rows(NamedTuple):
    """Markets, their books, orders and accounts: what the kernels of books work on."""

    status: np.ndarray  # WORLD_STATUS[1]
    markets: np.ndarray
    sides: np.ndarray
    levels: np.ndarray
    orders: np.ndarray
    order_index: np.ndarray
    accounts: np.ndarray
    # the engine's own
    heap: np.ndarray  # HEAP[1]
    free_orders: np.ndarray  # i4[orders], a stack
    free_extents: np.ndarray  # i8[EXTENT_CLASSES], offset + 1 of the first free extent of each class


class History(NamedTuple):
    """The rings of what has happened, and the heads of their chains."""

    trade_ring: np.ndarray
    trades: np.ndarray
    fill_ring: np.ndarray
    fills: np.ndarray
    closed_ring: np.ndarray
    closed: np.ndarray
    rejected_ring: np.ndarray
    rejected: np.ndarray
    closed_buckets: np.ndarray
    rejected_buckets: np.ndarray
    cloid_buckets: np.ndarray


class Work(NamedTuple):
    """What a block needs while it is applied, and where its outcome is published."""

    book_heads: np.ndarray
    books: np.ndarray
    event_ring: np.ndarray
    events: np.ndarray
    # the engine's own
    market_dirty: np.ndarray  # u1[markets]
    dirty_markets: np.ndarray  # i4[markets]
    account_dirty: np.ndarray  # u1[accounts]
    dirty_accounts: np.ndarray  # i4[accounts]
    refusals: np.ndarray  # u1[names]: whether a status is a refusal
    fact_index: np.ndarray  # i4[], the block's opening statuses by oid
    removed_index: np.ndarray  # i8[], the oids the block has removed


class State(NamedTuple):
    """All of it. Kernels take the part they need; the tables of texts are the parser's."""

    rows: Rows
    history: History
    work: Work
    names: np.ndarray
    account_index: np.ndarray

    @property
    def status(self) -> np.ndarray:
        return self.rows.status

    @property
    def markets(self) -> np.ndarray:
        return self.rows.markets

    @property
    def sides(self) -> np.ndarray:
        return self.rows.sides

    @property
    def levels(self) -> np.ndarray:
        return self.rows.levels

    @property
    def orders(self) -> np.ndarray:
        return self.rows.orders

    @property
    def accounts(self) -> np.ndarray:
        return self.rows.accounts

    @property
    def heap(self) -> np.ndarray:
        return self.rows.heap

    @property
    def refusals(self) -> np.ndarray:
        return self.work.refusals


def power_of_two(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << max(count - 1, 1).bit_length()


def world_counts(capacity: Capacity) -> dict[str, tuple[np.dtype, int]]:
    """What a world region of this capacity holds: section -> (dtype, count), for shm.region.create."""
    rows = capacity._asdict()
    counts = {
        "status": 1,
        "names": rows["names"],
        "markets": rows["markets"],
        "sides": 2 * rows["markets"],
        "levels": rows["levels"],
        "orders": rows["orders"],
        "order_index": power_of_two(2 * rows["orders"]),
        "accounts": rows["accounts"],
        "account_index": power_of_two(2 * rows["accounts"]),
        "book_heads": rows["markets"],
        "books": c.BOOK_SLOTS * rows["markets"],
        **{ring: 1 for ring in RINGS},
        **{slots: power_of_two(rows[slots]) for slots in RINGS.values()},
        **{b: power_of_two(rows["buckets"]) for b in ("closed_buckets", "rejected_buckets", "cloid_buckets")},
        **{table: rows[table] for table in EXCHANGE_TABLES},
    }
    return {name: (dtype, counts[name]) for name, dtype in layout.WORLD.items()}


def allocate(capacity: Capacity, arrays: dict[str, np.ndarray] | None = None) -> State:
    """Make an empty state over `arrays` (zeroed sections of a world region), or in private memory."""
    world = arrays or {
        name: np.zeros(count, dtype) for name, (dtype, count) in world_counts(capacity).items()
    }
    own = {
        "heap": np.zeros(1, HEAP),
        "free_orders": np.arange(capacity.orders - 1, -1, -1, np.int32),
        "free_extents": np.zeros(EXTENT_CLASSES, np.int64),
        "market_dirty": np.zeros(capacity.markets, np.uint8),
        "dirty_markets": np.zeros(capacity.markets, np.int32),
        "account_dirty": np.zeros(capacity.accounts, np.uint8),
        "dirty_accounts": np.zeros(capacity.accounts, np.int32),
        "refusals": np.zeros(capacity.names, np.uint8),
        "fact_index": np.zeros(2 * FACTS_PER_BLOCK_MAX, np.int32),
        "removed_index": np.zeros(2 * FACTS_PER_BLOCK_MAX, np.int64),
    }
    every = {**world, **own}
    rows, history, work = (
        part(**{name: every[name] for name in part._fields}) for part in (Rows, History, Work)
    )
    state = State(rows, history, work, world["names"], world["account_index"])
    state.heap["free_orders"] = capacity.orders
    for ring, slots in RINGS.items():
        world[ring]["capacity"] = len(world[slots])
    state.accounts["first_order"] = NO_SLOT
    state.accounts["last_order"] = NO_SLOT
    state.status["mode"], state.status["state"] = Mode.FOLLOW, Feed.WAITING
    for row, text in enumerate(NAMES):
        state.names[row]["text"][: len(text)] = np.frombuffer(text.encode("ascii"), np.uint8)
    state.status["name_count"] = len(NAMES)
    learn_names(state, 0)
    return state


def learn_names(state: State, first: int) -> int:
    """Judge which of the interned texts from row `first` on refuse an order; return how many there are."""
    count = int(state.status[0]["name_count"])
    for row in range(first, count):
        state.refusals[row] = is_refusal(row_text(state.names[row]["text"]))
    return count


def row_text(zero_filled: np.ndarray) -> str:
    """The ASCII text in a zero-filled u1[] field of a row."""
    return bytes(zero_filled).rstrip(b"\0").decode("ascii")


def market_name(state: State, market: int) -> str:
    """The wire's coin of a market row."""
    return row_text(state.markets[market]["name"])
