"""The archive's tables: what a ring of the world forgets, kept by the position that it had in its ring.

Each table is named as the section that it goes on from, and has a column for each field of its records, but
for what only links a ring: so who reads a chain to its end in shared memory goes on here, at the position
that the chain names, without a gap and without reading anything twice. A candle has no position; it has its
series and its beginning; an hour of funding its market and its time; a market has its row. Bytes are BLOBs,
all else are integers, as in the records.

What an account was worth is in no ring: it is sampled, at the first block of each hour by the time of blocks.
`samples` tells when that was. Then `equity` has a row of each account that is not as its last row says; so
one that nothing has moved since has none, and what it has is what its last row says.
"""

from typing import NamedTuple

import numpy as np

from shm import constants as c
from shm import layout

FILE = "archive.sqlite"  # in the directory of an exchange
LINKS = {"sequence", "account_prior", "bucket_prior", "cloid_prior", "next"}
POSITION = ("position", "i8")


MARKET = layout.record(("name", "u1", c.MARKET_NAME_BYTES), ("size_decimals", "i8"))  # what its numbers mean
SAMPLE = layout.record(("time_ms", "i8"), ("height", "i8"))  # of the block
SAMPLE_MS = 3_600_000
EQUITY = layout.record(  # in 10**-USD_PLACES USD
    ("time_ms", "i8"),  # of the sample
    ("value", "i8"),  # if all its positions were closed at the mark
    ("deposited", "i8"),  # by ledger entries: in less out; what it is worth beyond that it has gained
    ("volume", "i8"),  # traded since ever
)


class Table(NamedTuple):
    name: str
    dtype: np.dtype  # of the records in shared memory
    ring: str  # the ring's header; empty: there is none
    time: str  # the column by which a user's rows are asked for
    keys: tuple[str, ...] = ("position",)


FILLS = Table("fills", layout.FILL, "fill_ring", "time_ms")
CLOSED = Table("closed", layout.ENDED, "closed_ring", "time_ns")
REJECTED = Table("rejected", layout.ENDED, "rejected_ring", "time_ns")
LEDGER = Table("ledger", layout.LEDGER, "ledger_ring", "time_ms")
TWAPS = Table("twaps", layout.TWAP, "twap_ring", "time_ms")
CANDLES = Table("candles", layout.CANDLE, "", "start_ms", ("series", "start_ms"))
RATES = Table("rates", layout.RATE, "", "time_ms", ("market", "time_ms"))
SAMPLES = Table("samples", SAMPLE, "", "time_ms", ("time_ms",))
EQUITIES = Table("equity", EQUITY, "", "time_ms", ("account", "time_ms"))
MARKETS = Table("markets", MARKET, "", "", ("market",))
RINGS = (FILLS, CLOSED, REJECTED, LEDGER, TWAPS)
TABLES = (*RINGS, CANDLES, RATES, SAMPLES, EQUITIES, MARKETS)


def kept(table: Table) -> list[str]:
    """The fields of a record that are columns."""
    return [name for name in table.dtype.names or () if name not in LINKS]


def columns(table: Table) -> list[str]:
    """The table's columns, in the order of its rows."""
    return [*(key for key in table.keys if key not in (table.dtype.names or ())), *kept(table)]


def is_bytes(table: Table, column: str) -> bool:
    return column in (table.dtype.names or ()) and table.dtype[column].subdtype is not None


def selected(table: Table) -> str:
    """The columns as SQL names them: some are words of its own."""
    return ", ".join(f'"{column}"' for column in columns(table))


def to_rows(table: Table, records: np.ndarray) -> list[tuple]:
    """The kept fields of records, as Python's own numbers and bytes."""
    rows: list[tuple] = records.view(_seen(table)).tolist()
    return rows


def to_records(table: Table, rows: list[tuple]) -> np.ndarray:
    """The records of rows in the form of `columns`. Their sequence is the position's; they link nothing."""
    records = np.zeros(len(rows), table.dtype)
    seen, before = records.view(_seen(table)), len(columns(table)) - len(kept(table))
    for at, row in enumerate(rows):
        seen[at] = row[before:]
        if table.ring:
            records["sequence"][at] = row[0] + 1
    return records


def _seen(table: Table) -> np.dtype:
    """The records' own memory, with its columns alone, and bytes whole."""
    dtype, names = table.dtype, kept(table)
    formats = [f"V{dtype[name].itemsize}" if is_bytes(table, name) else dtype[name] for name in names]
    offsets = [dtype.fields[name][1] for name in names]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize})
