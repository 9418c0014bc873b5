"""What shared memory has forgotten, as a question to the archive, and how an answer goes on with it.

An answer is made from the rings. Where a chain of them breaks off at an item that has been overwritten, its
last link names the item that comes next: the archive goes on exactly there, with nothing between and nothing
twice. It must have that very item; if it has not, because it is behind or began later, then it adds nothing,
and the answer is what the rings hold. Candles and hours of funding are joined at the oldest that memory still
has. What an account was worth has no joint: each sample is true by itself, and all are of before now.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from gateway.world import Array, World
from shm import archived
from shm.archived import CLOSED, EQUITIES, FILLS, LEDGER, REJECTED, SAMPLES, TWAPS, Table, columns

EVER = (1 << 63) - 1


def everything(items: Array) -> Array:
    return items


HEADS = {  # where the chain of an account begins: section and field
    FILLS.name: ("accounts", "last_fill"),
    CLOSED.name: ("accounts", "last_closed"),
    REJECTED.name: ("accounts", "last_rejected"),
    LEDGER.name: ("funds", "last_ledger"),
    TWAPS.name: ("funds", "last_twap"),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rows of one account (series of candles, market), as far as they are before the joint."""

    table: Table
    key: int  # row of the account; of the series; of the market
    joint: int  # position of the item with which to go on; when the oldest candle began, or hour was over
    most: int
    since: int = 0  # of the table's time, both included
    until: int = EVER
    newest_first: bool = True
    of: Callable[[Array], Array] = everything  # which of them


@dataclass(frozen=True, slots=True)
class Sampled:
    """What an account was worth at the first sample of each stretch of a time; both ends included."""

    account: int
    since: int
    until: int
    stretch: int
    table: ClassVar[Table] = EQUITIES


class Elsewhere(Exception):
    """The answer needs rows of the archive: `finish` makes it of them, one array for each of `wanted`."""

    def __init__(self, wanted: "Questions", finish: Callable[[list[Array]], bytes]):
        super().__init__()
        self.wanted, self.finish = wanted, finish

    def without(self) -> bytes:
        """The answer without the archive."""
        return self.finish([np.zeros(0, each.table.dtype) for each in self.wanted])


Questions = tuple[Wanted | Sampled, ...]


class Older(Protocol):
    """Who reads the archive (gateway.archive.Archive)."""

    def ask(self, question: Elsewhere, reply: Callable[[bytes | None], None]) -> None:
        """Call `reply` later with the answer; None: ask again. Raises NotNow."""


def finished(wanted: Questions, finish: Callable[[list[Array]], bytes]) -> bytes:
    """The answer, if it wants nothing more. Raises Elsewhere."""
    if wanted:
        raise Elsewhere(wanted, finish)
    return finish([])


def chain(
    world: World, table: Table, row: int, read: Callable[[int, int], Array], most: int
) -> tuple[Array, int]:
    """An account's newest items, newest first, and the position at which their chain goes on; -1: nowhere.

    read(row, most) reads the items.
    """
    section, field = HEADS[table.name]
    link = int(world.arrays[section][field][row])  # before the items: what comes meanwhile is among them
    items = read(row, most)
    return items, (int(items["account_prior"][-1]) if len(items) else link) - 1


def sampled(wanted: Sampled) -> tuple[str, tuple[int, ...]]:
    """As SQL: the rows, each with the time of its sample; and its values.

    An account that nothing has moved since has no row of that time, and is what its last row before it says.
    O(samples within the time), which are 9,000 a year, and a look-up for each row of the answer.
    """
    told = ", ".join(f"{'sample' if name == 'time_ms' else 'row'}.{name}" for name in columns(EQUITIES))
    of = f"{EQUITIES.name} WHERE account = ? AND time_ms <= sample.time_ms"
    rows = (
        f"SELECT {told} FROM (SELECT min(time_ms) AS time_ms FROM {SAMPLES.name} "
        f"WHERE time_ms BETWEEN ? AND ? GROUP BY time_ms / ?) AS sample JOIN {EQUITIES.name} AS row "
        f"ON row.account = ? AND row.time_ms = (SELECT max(time_ms) FROM {of}) ORDER BY sample.time_ms"
    )
    return rows, (wanted.since, wanted.until, wanted.stretch, wanted.account, wanted.account)


def statement(wanted: Wanted) -> tuple[str, str, tuple[int, ...], tuple[int, ...]]:
    """As SQL: where the joint would be, and the rows or the runs of a ring; and the values of each."""
    table, order = wanted.table, "DESC" if wanted.newest_first else "ASC"
    if table.ring:
        mine = f"FROM {table.name} WHERE account = ? AND first <= ?"
        before = f"SELECT max(since) FROM {table.name} WHERE account = ? AND since < ?"
        runs = (
            f"SELECT form, records {mine} AND since BETWEEN coalesce(({before}), ?) AND ? "
            f"ORDER BY since {order}, first {order}"
        )
        place = (wanted.key, wanted.joint)
        within = (wanted.key, wanted.since, wanted.since, wanted.until)
        joint = f"SELECT form, records {mine} ORDER BY since DESC, first DESC LIMIT 1"
        return joint, runs, place, (*place, *within)
    owner, time = table.keys
    joint = f"SELECT 1 FROM {table.name} WHERE {owner} = ? AND {time} = ?"
    rows = (
        f"SELECT {archived.selected(table)} FROM {table.name} WHERE {owner} = ? AND {time} < ? "
        f"AND {time} BETWEEN ? AND ? ORDER BY {time} {order} LIMIT ?"
    )
    place = (wanted.key, wanted.joint)
    return joint, rows, place, (*place, wanted.since, wanted.until, wanted.most)


def cut(wanted: Wanted, run: Array) -> Array:
    """What is wanted of a run, which is oldest first, in the order that is wanted."""
    times = run[wanted.table.time]
    is_wanted = (run["sequence"] <= wanted.joint + 1) & (times >= wanted.since) & (times <= wanted.until)
    items = wanted.of(run[is_wanted])
    return items[::-1] if wanted.newest_first else items
