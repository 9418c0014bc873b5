"""The archive as tables for research: for each of its tables a CSV or a Parquet file.

What it holds as numbers is put into words: coins, addresses, sides, statuses. Amounts are exact decimals.
All tables are of one moment, however long it takes to write them.
"""

import csv
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from shm import archived
from shm.codes import INTERVALS_MS, NAMES, Flag, Ledger, Side, Twap
from shm.constants import FUNDING_PLACES, PERP_DECIMALS, PLACES, USD_PLACES

ROWS = 50_000  # written at once
Shown = Callable[[int, int], None]  # rows that were written, and all there are
NO_MARKET = "-1"  # as SQL
DIGITS = 32  # of a decimal column, FUNDING_PLACES of them behind the point: more than any amount needs
assert FUNDING_PLACES >= max(PLACES, USD_PLACES, PERP_DECIMALS), "of all, rates are the finest"


class Unusable(Exception):
    """What was asked for cannot be done here. The text is for the user."""


class Market(NamedTuple):
    name: str
    size_decimals: int


class Column(NamedTuple):
    """name: in the file; source: the archive's column; how: an entry of READ."""

    name: str
    source: str
    how: str


Read = Callable[[Any, Market | None], Any]


def _decimal(places: int) -> Read:
    return lambda value, market: Decimal(value).scaleb(-places)


def _coded(codes: Any) -> Read:
    return lambda value, market: codes(value).name.lower()


def _size(value: int, market: Market | None) -> Decimal | None:
    return None if market is None else Decimal(value).scaleb(-market.size_decimals)


def _price(value: int, market: Market | None) -> Decimal | None:
    return None if market is None else Decimal(value).scaleb(market.size_decimals - PERP_DECIMALS)


def _hex(value: bytes, market: Market | None) -> str | None:
    return "0x" + value.hex() if any(value) else None


READ: dict[str, tuple[str, Read]] = {  # the type of the column, and what makes its values
    "integer": ("integer", lambda value, market: value),
    "id": ("integer", lambda value, market: value if value >= 0 else None),
    "coin": ("text", lambda value, market: market and market.name),
    "interval": ("text", lambda value, market: [*INTERVALS_MS][value % len(INTERVALS_MS)]),
    "size": ("decimal", _size),
    "price": ("decimal", _price),
    "usd": ("decimal", _decimal(USD_PLACES)),
    "rate": ("decimal", _decimal(FUNDING_PLACES)),
    "fine": ("decimal", _decimal(PLACES)),
    "hex": ("text", _hex),
    "side": ("text", _coded(Side)),
    "ledger": ("text", _coded(Ledger)),
    "twap": ("text", _coded(Twap)),
    "word": ("text", lambda value, market: NAMES[value]),
    "role": ("text", lambda value, market: "taker" if value & Flag.CROSSED else "maker"),
    "text": ("text", lambda value, market: value.rstrip(b"\0").decode("ascii", "replace")),
}
_ENDED = (
    "position position integer, height height integer, time_ns time_ns integer, coin market coin, "
    "user address hex, order order integer, side side side, status status word, price price price, "
    "left quantity size, size original size, placed_ms timestamp_ms integer, tif tif word, "
    "type order_type word, cloid cloid hex"
)
TABLES = {
    archived.FILLS: "position position integer, height height integer, time_ms time_ms integer, "
    "coin market coin, user address hex, order order integer, side side side, role flags role, "
    "price price price, size quantity size, direction direction word, start_position start_position size, "
    "closed_pnl closed_pnl fine, fee fee fine, builder_fee builder_fee fine, fee_token fee_token word, "
    "trade trade integer, twap twap id, cloid cloid hex, hash hash hex",
    archived.CLOSED: _ENDED,
    archived.REJECTED: _ENDED,
    archived.LEDGER: "position position integer, height height integer, time_ms time_ms integer, "
    "user address hex, kind kind ledger, amount amount usd, other other hex, nonce nonce integer, "
    "coin market coin, rate rate rate, samples samples integer, hash hash hex",
    archived.TWAPS: "position position integer, height height integer, time_ms time_ms integer, "
    "twap order integer, coin market coin, user address hex, side side side, state state twap, "
    "size quantity size, executed executed size, notional notional usd, began_ms began_ms integer, "
    "minutes minutes integer, randomized is_randomized integer",
    archived.CANDLES: "coin series coin, interval series interval, start_ms start_ms integer, "
    "open open price, high high price, low low price, close close price, volume volume size, "
    "notional notional usd, trades count integer",
    archived.RATES: "coin market coin, time_ms time_ms integer, rate rate rate, premium premium rate, "
    "oracle price price, samples samples integer",
    archived.SAMPLES: "time_ms time_ms integer, height height integer",
    archived.EQUITIES: "account account integer, time_ms time_ms integer, value value usd, "
    "deposited deposited usd, volume volume usd",
    archived.MARKETS: "market market integer, coin name text, size_decimals size_decimals integer",
}


class Sink(Protocol):
    """Takes the rows of one table."""

    def __init__(self, directory: Path, name: str, columns: list[Column]): ...
    def write(self, rows: list[list[Any]]) -> None: ...
    def close(self) -> None: ...


class Csv:
    """A header, then a line each. What is not there is empty."""

    def __init__(self, directory: Path, name: str, columns: list[Column]):
        self._file = open(directory / f"{name}.csv", "w", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow([column.name for column in columns])

    def write(self, rows: list[list[Any]]) -> None:
        self._writer.writerows(
            [f"{value:f}" if isinstance(value, Decimal) else value for value in row] for row in rows
        )

    def close(self) -> None:
        self._file.close()


class Parquet:
    """Integers of 64 bits, texts, and decimals of FUNDING_PLACES. Raises Unusable without pyarrow."""

    def __init__(self, directory: Path, name: str, columns: list[Column]):
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise Unusable(
                "Parquet needs pyarrow, which ringside itself does not: pip install --require-hashes "
                "-r requirements-parquet.lock puts it in; or take --csv DIR"
            ) from None
        types = {
            "integer": pyarrow.int64(),
            "text": pyarrow.string(),
            "decimal": pyarrow.decimal128(DIGITS, FUNDING_PLACES),
        }
        self._schema = pyarrow.schema([(column.name, types[READ[column.how][0]]) for column in columns])
        self._arrow = pyarrow
        self._writer = parquet.ParquetWriter(directory / f"{name}.parquet", self._schema)

    def write(self, rows: list[list[Any]]) -> None:
        kinds = (field.type for field in self._schema)
        columns = [
            self._arrow.array(of, kind) for of, kind in zip(zip(*rows, strict=True), kinds, strict=True)
        ]
        self._writer.write_batch(self._arrow.record_batch(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def export(archive: Path, directory: Path, sink: type[Sink], show: Shown) -> dict[str, int]:
    """Write all tables; the rows of each. Raises Unusable, OSError."""
    if not archive.is_file():
        raise Unusable(f"there is no archive: {archive}")
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with closing(
            sqlite3.connect(f"file:{archive}?mode=ro", uri=True, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN")
            return _export(connection, directory, sink, show)
    except sqlite3.Error as error:
        raise Unusable(f"{archive}: {error}") from None


def _export(connection: sqlite3.Connection, directory: Path, sink: type[Sink], show: Shown) -> dict[str, int]:
    markets, forms = _markets(connection), archived.forms(connection.execute("SELECT id, fields FROM forms"))
    counts = {table.name: _count(connection, table, forms) for table in TABLES}
    total, done = sum(counts.values()), 0
    for table, words in TABLES.items():
        columns = [Column(*word.split()) for word in words.split(", ")]
        of, share = _market_of(table)
        sources = [of, *(column.source for column in columns)]
        reads = [READ[column.how][1] for column in columns]
        found = (
            _of_ring(connection, table, sources, forms)
            if table.ring
            else _of_rows(connection, table, sources)
        )
        with closing(sink(directory, table.name, columns)) as out:
            for items in found:
                out.write([
                    [read(value, markets.get(of // share)) for read, value in zip(reads, item, strict=True)]
                    for of, *item in items
                ])  # fmt: skip
                done += len(items)
                show(done, total)
    return counts


def _count(connection: sqlite3.Connection, table: archived.Table, forms: dict[int, np.dtype]) -> int:
    if not table.ring:
        return int(connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0])
    sizes = connection.execute(f"SELECT form, sum(length(records)) FROM {table.name} GROUP BY form")
    return sum(size // forms[form].itemsize for form, size in sizes)


Items = Iterator[list[tuple[Any, ...]]]  # some thousands at a time, in the order of the table's key


def _of_rows(connection: sqlite3.Connection, table: archived.Table, sources: list[str]) -> Items:
    named = ", ".join(source if source == NO_MARKET else f'"{source}"' for source in sources)
    found = connection.execute(f"SELECT {named} FROM {table.name} ORDER BY {', '.join(table.keys)}")
    while taken := found.fetchmany(ROWS):
        yield taken


def _of_ring(
    connection: sqlite3.Connection, table: archived.Table, sources: list[str], forms: dict[int, np.dtype]
) -> Items:
    """Transaction by transaction: what one has written is later than what was written before."""
    found = connection.execute(f"SELECT settled, form, records FROM {table.name} ORDER BY rowid")
    for _, runs in groupby(found, key=itemgetter(0)):
        parts = [archived.unpacked(table, np.frombuffer(memory, forms[form])) for _, form, memory in runs]
        records = np.concatenate(parts)
        records = records[np.argsort(records["sequence"])]
        rows = zip((records["sequence"] - 1).tolist(), archived.to_rows(table, records), strict=True)
        taken = [archived.columns(table).index(source) for source in sources]
        yield [tuple((position, *row)[at] for at in taken) for position, row in rows]


def _market_of(table: archived.Table) -> tuple[str, int]:
    """The column that says a row's market, and by what it is to be divided."""
    if table is archived.CANDLES:
        return "series", len(INTERVALS_MS)
    return ("market" if "market" in archived.columns(table) else NO_MARKET), 1


def _markets(connection: sqlite3.Connection) -> dict[int, Market]:
    found = connection.execute(f"SELECT market, name, size_decimals FROM {archived.MARKETS.name}")
    return {
        row: Market(name.rstrip(b"\0").decode("ascii", "replace"), decimals) for row, name, decimals in found
    }
