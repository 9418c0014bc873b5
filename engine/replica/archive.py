"""What happened, for as long as anyone may ask: an SQLite file that one process writes and many read.

Its tables are in `shm/archived.py`. Rows are what the rings of the replica's own world hold after each block,
and what its accounts are worth at each hour (`equity`). They are written with the sequence of the block's
last command in the same transaction: whatever dies, each item is there once. All of it follows from the
journal; without the file, it is made again as far as that reaches. Where runs are cut is a matter of when
they were written; what is in them is not.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.exchange.candles import INTERVALS
from engine.exchange.world import World
from engine.replica import equity
from shm import archived
from shm.archived import (
    CANDLES,
    EQUITIES,
    EQUITY,
    FILLS,
    FORMS,
    MARKET,
    MARKETS,
    RATES,
    RINGS,
    SAMPLE,
    SAMPLES,
    TABLES,
    Table,
)

SPAN = "span"  # one row: the sequences that the rows are of
VERSION = 2
CHECKPOINT_PAGES = 8192  # of 4 KB: a page that changes often is written once


class Archive:
    """first, last: the rows are of the commands first..last, committed; last 0: of none yet."""

    def __init__(self, path: Path):
        """Open it, or make it. Raises sqlite3.Error: it is not one, or it is damaged."""
        self._rows: dict[str, list[tuple[Any, ...]]] = {table.name: [] for table in TABLES}
        self._news: dict[str, list[np.ndarray]] = {table.name: [] for table in RINGS}  # items, as they came
        self._settled = 0
        self._settled_counts = dict.fromkeys(self._rows, 0)  # of each table, rows or items
        self._seen = dict.fromkeys((table.name for table in RINGS), 0)  # positions taken from each ring
        self._candles = np.zeros(0, np.int64)  # of each series, how many have been taken
        self._traded: set[int] = set()  # markets, since candles were taken
        self._markets = 0  # that were taken
        self._rates = np.zeros(0, np.int64)  # of each market, how many have been taken
        self._time_ms = 0  # of the last block
        self._told: np.ndarray | None = None  # EQUITY[], by account: its last row; None: it is in the file
        self._forms: dict[str, int] = {}  # by table: how its items are packed, as a row of `forms`
        self._connection = sqlite3.connect(path, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            with self._transaction():
                self._make_tables()
            self.first, self.last = self._connection.execute(f"SELECT first, last FROM {SPAN}").fetchone()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    @property
    def row_count(self) -> int:
        """Rows that may be committed."""
        return sum(self._settled_counts.values())

    def begin(self, world: World, sequence: int) -> None:
        """From here on what happens in `world` is taken; up to `sequence` it has been, or is lost.

        Nothing of a command that is in the archive is taken again: until then the world is only followed.
        """
        self._look(world)
        self._rates = np.zeros(len(world.contracts), np.int64)
        if self.last == 0:
            self.first, self.last = sequence + 1, sequence

    def take(self, world: World, sequence: int) -> None:
        """Take what the rings have got since the last call; `sequence` is that of the world's last command.

        No ring has gone round since then, and no series of candles.
        """
        if sequence <= self.last:
            self._look(world)
            return
        self._take_markets(world)
        for table in RINGS:
            for news in self._come(world, table):
                self._news[table.name].append(archived.packed(table, news, self._seen[table.name]))
                self._seen[table.name] += len(news)
                if table is FILLS:
                    self._traded |= {*np.unique(news["market"]).tolist()}
        if self._traded:
            self._take_candles(world)
        self._take_rates(world)
        self._take_sample(world)

    def settle(self, sequence: int) -> None:
        """What was taken so far, which is all of the commands up to `sequence`, is known to be right."""
        self._settled = sequence
        self._settled_counts = {name: len(rows) for name, rows in self._rows.items()}
        self._settled_counts |= {name: sum(map(len, news)) for name, news in self._news.items()}

    def commit(self) -> None:
        """Write what is settled. Raises sqlite3.Error."""
        if self._settled <= self.last:
            return
        news = {name: np.concatenate(parts) for name, parts in self._news.items() if parts}
        with self._transaction():
            for table in TABLES:
                if count := self._settled_counts[table.name]:
                    rows = (
                        self._runs(table, news[table.name][:count])
                        if table.ring
                        else self._rows[table.name][:count]
                    )
                    self._connection.executemany(_insert(table), rows)
            self._connection.execute(f"UPDATE {SPAN} SET first = ?, last = ?", (self.first, self._settled))
        self.last = self._settled
        for name, count in self._settled_counts.items():
            del self._rows[name][:count]
            if name in news:
                self._news[name] = [news[name][count:]] if count < len(news[name]) else []
        self._settled_counts = dict.fromkeys(self._rows, 0)

    def _runs(self, table: Table, items: np.ndarray) -> Iterator[tuple[Any, ...]]:
        """The rows of items: those of an account together, and accounts in the order of the index."""
        items = items[np.argsort(items["account"], kind="stable")]
        begins = np.flatnonzero(np.diff(items["account"], prepend=items["account"][0] - 1))
        heads, form = items[begins], self._forms[table.name]
        ends, size, memory = [*begins[1:].tolist(), len(items)], items.itemsize, items.tobytes()
        for account, since, first, begin, end in zip(
            heads["account"].tolist(), heads[table.time].tolist(), heads["position"].tolist(),
            begins.tolist(), ends, strict=True,
        ):  # fmt: skip
            yield account, since, first, self._settled, form, memory[begin * size : end * size]

    def sync(self) -> None:
        """What was committed outlives the machine from here on."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # --- what there is to take ------------------------------------------------------------------------------

    def _look(self, world: World) -> None:
        """Pass over what the world holds by now."""
        sections = sections_of(world)
        for table in RINGS:
            self._seen[table.name] = int(sections[table.ring][0]["tail"])
        self._candles = world.candle_heads["count"].copy()
        self._time_ms = equity.time_of(world)

    def _come(self, world: World, table: Table) -> Iterator[np.ndarray]:
        """What a ring has got, in the one or two pieces in which it lies there."""
        sections = sections_of(world)
        slots, tail = sections[table.name], int(sections[table.ring][0]["tail"])
        while (seen := self._seen[table.name]) < tail:
            at = seen % len(slots)
            yield slots[at : at + tail - seen]

    def _take_markets(self, world: World) -> None:
        """The markets that are new; after a start all of them, as they are."""
        count = int(world.state.status[0]["market_count"])
        for market in range(self._markets, count):
            row = np.zeros(1, MARKET)
            for name in MARKET.names:
                row[name] = world.state.markets[market][name]
            self._rows[MARKETS.name] += [(market, *archived.to_rows(MARKETS, row)[0])]
        self._markets = count

    def _take_candles(self, world: World) -> None:
        """The candles that a trade has moved, as they are now; a later row takes the place of an earlier."""
        kept = len(world.candles) // len(world.candle_heads)
        for market in self._traded:
            for series in range(market * INTERVALS, (market + 1) * INTERVALS):
                begun = int(world.candle_heads[series]["count"])
                numbers = np.arange(max(int(self._candles[series]) - 1, 0), begun)
                moved = world.candles[series * kept + numbers % kept]
                self._rows[CANDLES.name] += [(series, *row) for row in archived.to_rows(CANDLES, moved)]
                self._candles[series] = begun
        self._traded.clear()

    def _take_rates(self, world: World) -> None:
        """The hours of funding that are over; after a start all that the world still knows."""
        kept, counts = len(world.rates) // len(world.contracts), world.contracts["rate_count"]
        for market in np.flatnonzero(counts > self._rates).tolist():
            numbers = np.arange(max(int(self._rates[market]), int(counts[market]) - kept), counts[market])
            rows = archived.to_rows(RATES, world.rates[market * kept + numbers % kept])
            self._rows[RATES.name] += [(market, *row) for row in rows]
            self._rates[market] = counts[market]

    def _take_sample(self, world: World) -> None:
        """When an hour has begun: what accounts are worth, of those that have changed."""
        before_ms, self._time_ms = self._time_ms, equity.time_of(world)
        if not equity.is_due(before_ms, self._time_ms):
            return
        sample = np.zeros(1, SAMPLE)
        sample["time_ms"], sample["height"] = self._time_ms, world.state.status[0]["height"]
        self._rows[SAMPLES.name] += archived.to_rows(SAMPLES, sample)
        worth = equity.of_accounts(world)
        changed = equity.differing(worth, self._last_told() if self._told is None else self._told)
        rows = archived.to_rows(EQUITIES, worth[changed])
        self._rows[EQUITIES.name] += [
            (account, *row) for account, row in zip(changed.tolist(), rows, strict=True)
        ]
        self._told = worth

    def _last_told(self) -> np.ndarray:
        """The last row of each account, as the file has it: a look-up for each."""
        newest = (
            "WITH RECURSIVE known (account) AS (SELECT min(account) FROM equity UNION ALL "
            "SELECT (SELECT min(account) FROM equity WHERE account > known.account) FROM known "
            "WHERE account IS NOT NULL) "
            "SELECT account, time_ms, value, deposited, volume FROM known JOIN equity USING (account) "
            "WHERE time_ms = (SELECT max(time_ms) FROM equity AS later WHERE later.account = known.account)"
        )
        rows = self._connection.execute(newest).fetchall()
        told = np.zeros(rows[-1][0] + 1 if rows else 0, EQUITY)
        for account, *row in rows:
            told[account] = tuple(row)
        return told

    # --- the file -------------------------------------------------------------------------------------------

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._connection)

    def _make_tables(self) -> None:
        """Make what is not there; a field that is new since then is zero in the rows of before.

        Raises sqlite3.DatabaseError: it is of a time when rings had other tables.
        """
        run = self._connection.execute
        if run("PRAGMA user_version").fetchone() == (0,) and run("SELECT 1 FROM sqlite_master").fetchone():
            raise sqlite3.DatabaseError("its tables are those of an earlier version")
        run(f"PRAGMA user_version = {VERSION}")
        run(f"CREATE TABLE IF NOT EXISTS {SPAN} (first INTEGER, last INTEGER)")
        if run(f"SELECT count(*) FROM {SPAN}").fetchone() == (0,):
            run(f"INSERT INTO {SPAN} VALUES (0, 0)")
        run(f"CREATE TABLE IF NOT EXISTS {FORMS} (id INTEGER PRIMARY KEY, fields TEXT UNIQUE)")
        for table in TABLES:
            if table.ring:
                self._make_runs(table)
            else:
                self._make_rows(table)

    def _make_runs(self, table: Table) -> None:
        run, fields = self._connection.execute, (archived.written(archived.form(table)),)
        run(f"CREATE TABLE IF NOT EXISTS {table.name} ({', '.join(archived.RUN.values())})")
        of = f"{table.name} (account, since, first)"
        run(f"CREATE UNIQUE INDEX IF NOT EXISTS {table.name}_by_account ON {of}")
        run(f"INSERT OR IGNORE INTO {FORMS} (fields) VALUES (?)", fields)
        (self._forms[table.name],) = run(f"SELECT id FROM {FORMS} WHERE fields = ?", fields).fetchone()

    def _make_rows(self, table: Table) -> None:
        run = self._connection.execute
        types = {name: _type(table, name) for name in archived.columns(table)}
        named = ", ".join(f'"{name}" {kind}' for name, kind in types.items())
        keys = ", ".join(table.keys)
        run(f"CREATE TABLE IF NOT EXISTS {table.name} ({named}, PRIMARY KEY ({keys})) WITHOUT ROWID")
        held = {row[1] for row in run(f"PRAGMA table_info({table.name})")}
        for name in types.keys() - held:
            run(f'ALTER TABLE {table.name} ADD COLUMN "{name}" {types[name]}')


class _Transaction:
    """All of what is done within, or nothing."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type | None, *_: Any) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def sections_of(world: World) -> dict[str, np.ndarray]:
    """The rings of a world, by the names of their sections."""
    own = ("ledger_ring", "ledger", "twap_ring", "twaps")
    return {**world.state.history._asdict(), **{name: getattr(world, name) for name in own}}


def _type(table: Table, column: str) -> str:
    if archived.is_bytes(table, column):
        return f"BLOB NOT NULL DEFAULT x'{'00' * table.dtype[column].itemsize}'"
    return "INTEGER NOT NULL DEFAULT 0"


def _insert(table: Table) -> str:
    if table.ring:
        return f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(archived.RUN))})"
    marks = ", ".join("?" * len(archived.columns(table)))
    return f"INSERT OR REPLACE INTO {table.name} ({archived.selected(table)}) VALUES ({marks})"
