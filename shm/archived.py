"""The archive's tables: what a ring of the world forgets, kept by the position that it had in its ring.

Each table is named as the section that it goes on from. Of a ring it has **runs**: a row is what one account
got in one transaction, one item or thousands, as records that are packed one after the other. A record has
its position, and all of its fields but those that only link a ring: so who reads a chain to its end in shared
memory goes on here, at the position that the chain names, without a gap and without reading anything twice.
A full exchange gets hundreds of thousands of items a second, and a row for each would cost more than to make
them; its runs are long. How a record is packed is its **form**: `forms` has each that ever was, so that a
field which is new is zero in the runs of before.

Of what has no ring a row is one item. A candle has its series and its beginning; an hour of funding its
market and its time; a market its row. Bytes are BLOBs, all else are integers, as in the records.

What an account was worth is in no ring: it is sampled, at the first block of each hour by the time of blocks.
`samples` tells when that was. Then `equity` has a row of each account that is not as its last row says; so
one that nothing has moved since has none, and what it has is what its last row says.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from shm import constants as c
from shm import layout

FILE = "archive.sqlite"  # in the directory of an exchange
LINKS = {"sequence", "account_prior", "bucket_prior", "cloid_prior", "next"}
RUN = {  # columns: since, first: the time and the position of its oldest item; settled: its transaction
    name: f"{name} {kind} NOT NULL"
    for name, kind in {
        "account": "INTEGER", "since": "INTEGER", "first": "INTEGER", "settled": "INTEGER",
        "form": "INTEGER", "records": "BLOB",
    }.items()
}  # fmt: skip
FORMS = "forms"  # id, and the fields as JSON
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
    """The fields of a record that are kept as they are."""
    return [name for name in table.dtype.names or () if name not in LINKS]


def columns(table: Table) -> list[str]:
    """What is told of an item, in the order of `to_rows`."""
    return [*(key for key in table.keys if key not in (table.dtype.names or ())), *kept(table)]


def is_bytes(table: Table, column: str) -> bool:
    return column in (table.dtype.names or ()) and table.dtype[column].subdtype is not None


# --- items of a ring ----------------------------------------------------------------------------------------


def form(table: Table) -> np.dtype:
    """How its records are packed today: the position, and what is kept."""
    return np.dtype([POSITION, *((name, table.dtype[name]) for name in kept(table))])


def written(form: np.dtype) -> str:
    """A form as `forms` has it."""
    return json.dumps(form.descr)


def read(text: str) -> np.dtype:
    """A form, of what `forms` has."""
    fields = ((name, kind, *(tuple(shape) for shape in shapes)) for name, kind, *shapes in json.loads(text))
    return np.dtype([*fields])


def forms(found: Iterable[tuple[int, str]]) -> dict[int, np.dtype]:
    """All forms by their ids, of the rows of `forms`."""
    return {id: read(text) for id, text in found}


def packed(table: Table, records: np.ndarray, first: int) -> np.ndarray:
    """Records of a ring, the first of them at position `first`, in the form of today."""
    items = np.empty(len(records), form(table))
    items["position"] = np.arange(first, first + len(records))
    for name in kept(table):
        items[name] = records[name]
    return items


def unpacked(table: Table, items: np.ndarray) -> np.ndarray:
    """The records of items in any form. Their sequence is the position's; they link nothing."""
    records = np.zeros(len(items), table.dtype)
    records["sequence"] = items["position"] + 1
    for name in kept(table):
        if name in (items.dtype.names or ()):
            records[name] = items[name]
    return records


# --- items of anything else ---------------------------------------------------------------------------------


def selected(table: Table) -> str:
    """The columns as SQL names them: some are words of its own."""
    return ", ".join(f'"{column}"' for column in columns(table))


def to_rows(table: Table, records: np.ndarray) -> list[tuple]:
    """The kept fields of records, as Python's own numbers and bytes."""
    rows: list[tuple] = records.view(_seen(table)).tolist()
    return rows


def to_records(table: Table, rows: list[tuple]) -> np.ndarray:
    """The records of rows in the form of `columns`."""
    records = np.zeros(len(rows), table.dtype)
    seen, before = records.view(_seen(table)), len(columns(table)) - len(kept(table))
    for at, row in enumerate(rows):
        seen[at] = row[before:]
    return records


def _seen(table: Table) -> np.dtype:
    """The records' own memory, with its columns alone, and bytes whole."""
    dtype, names = table.dtype, kept(table)
    formats = [f"V{dtype[name].itemsize}" if is_bytes(table, name) else dtype[name] for name in names]
    offsets = [dtype.fields[name][1] for name in names]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize})
