"""What the follower needs to go on where it was: the books at one height, and where each stream's next lines
begin.

A file is: magic, the length of the header, the header (JSON: height, marks, the arrays that follow), the
arrays, and a digest of all of it. It is written beside, synced, renamed, and the directory synced; the last
two are kept, so that a damaged newest one is passed over.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from engine import image
from engine.follow.join import FINGERPRINT
from engine.follow.records import Kind
from engine.follow.tail import Mark
from engine.state import State
from shm import index, layout
from shm.constants import ADDRESS_BYTES
from shm.layout import EVENT, MARKET, NAME, ORDER

MAGIC = b"RINGCKP1"
DIGEST_BYTES = 32
KEPT = 2
ADDRESS = np.dtype(("u1", ADDRESS_BYTES))


class Head(msgspec.Struct, frozen=True):
    """The header of a checkpoint."""

    layout: str  # of the records within: another layout is not read
    height: int
    time_ns: int
    by_block: bool
    markets: int  # MARKET[markets]: names, decimals, epochs, doubts
    names: int  # NAME[names]
    accounts: int  # u1[accounts, 20]
    orders: int  # ORDER[orders]: images of all markets, then the untriggered orders
    recent: int  # FINGERPRINT[recent]: streaming rows that can come again
    base: int  # the height whose state came as a whole
    marks: list[list[tuple[str, int, int, str]]]  # by Kind


class Checkpoint(NamedTuple):
    head: Head
    markets: np.ndarray
    names: np.ndarray
    addresses: np.ndarray
    orders: np.ndarray
    recent: np.ndarray

    def marks(self, kind: Kind) -> list[Mark]:
        return [Mark(*mark) for mark in self.head.marks[kind]]


LAYOUT = layout.digest(
    {"market": MARKET, "name": NAME, "order": ORDER, "event": EVENT, "fingerprint": FINGERPRINT}
)
NOTHING_RECENT = np.zeros(0, FINGERPRINT)


def take(
    state: State,
    by_block: bool,
    marks: list[list[Mark]],
    base: int = 0,
    recent: np.ndarray = NOTHING_RECENT,
) -> Checkpoint:
    """Copy the state out, between two blocks. Some milliseconds for 100,000 orders.

    marks  sealed, by Kind; base and recent are those of the join (engine.follow.join.Join)
    """
    status = state.status[0]
    markets = state.markets[: status["market_count"]].copy()
    images = [image.resting(state, market) for market in range(len(markets))]
    orders = np.concatenate([*images, image.untriggered(state)])
    names = state.names[: status["name_count"]].copy()
    addresses = state.accounts["address"][: status["account_count"]].copy()
    head = Head(
        layout=LAYOUT,
        height=int(status["height"]),
        time_ns=int(status["time_ns"]),
        by_block=by_block,
        markets=len(markets),
        names=len(names),
        accounts=len(addresses),
        orders=len(orders),
        recent=len(recent),
        base=base,
        marks=[[tuple(mark) for mark in of_kind] for of_kind in marks],
    )
    return Checkpoint(head, markets, names, addresses, orders, recent)


def save(checkpoint: Checkpoint, directory: Path) -> None:
    """Write the checkpoint durably, and prune. Raises OSError; then the older ones are still whole."""
    directory.mkdir(parents=True, exist_ok=True)
    head = msgspec.json.encode(checkpoint.head)
    pieces = [MAGIC, len(head).to_bytes(8, "little"), head]
    pieces += [
        memoryview(np.ascontiguousarray(array)).cast("B") for array in _arrays(checkpoint) if len(array)
    ]
    final = directory / f"{checkpoint.head.height:020d}.checkpoint"
    beside = final.with_suffix(".writing")
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with open(beside, "wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, final)
    _sync_directory(directory)
    for old in sorted(directory.glob("*.checkpoint"))[:-KEPT]:
        old.unlink()


def _arrays(checkpoint: Checkpoint) -> list[np.ndarray]:
    return [
        checkpoint.markets, checkpoint.names, checkpoint.addresses, checkpoint.orders, checkpoint.recent,
    ]  # fmt: skip


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def newest(directory: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest whole checkpoint, if any, and what is wrong with those that were passed over."""
    complaints = []
    for path in sorted(directory.glob("*.checkpoint"), reverse=True):
        try:
            return read(path), complaints
        except (OSError, ValueError, msgspec.MsgspecError) as damage:
            complaints.append(f"{path.name}: {damage}")
    return None, complaints


def read(path: Path) -> Checkpoint:
    """Read one checkpoint. Raises ValueError with what was expected and what was found."""
    raw = path.read_bytes()
    if raw[: len(MAGIC)] != MAGIC:
        raise ValueError(f"expected magic {MAGIC!r}, found {raw[: len(MAGIC)]!r}")
    body, found = raw[:-DIGEST_BYTES], raw[-DIGEST_BYTES:]
    expected = hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()
    if expected != found:
        raise ValueError(f"expected digest {expected.hex()}, found {found.hex()}")
    start = len(MAGIC) + 8
    length = int.from_bytes(raw[len(MAGIC) : start], "little")
    head = msgspec.json.decode(raw[start : start + length], type=Head)
    if head.layout != LAYOUT:
        raise ValueError(f"expected layout {LAYOUT}, found {head.layout}")
    arrays, at = [], start + length
    for dtype, count in (
        (MARKET, head.markets),
        (NAME, head.names),
        (ADDRESS, head.accounts),
        (ORDER, head.orders),
        (FINGERPRINT, head.recent),
    ):
        arrays.append(np.frombuffer(body, dtype.base, count * (dtype.itemsize // dtype.base.itemsize), at))
        at += count * dtype.itemsize
    markets, names, addresses, orders, recent = arrays
    return Checkpoint(head, markets, names, addresses.reshape(-1, ADDRESS_BYTES), orders, recent)


def restore(checkpoint: Checkpoint, state: State) -> int:
    """Fill an empty state; return how many orders found no room. ValueError: a table is too small."""
    head, status = checkpoint.head, state.status[0]
    for table, count in (("markets", head.markets), ("names", head.names), ("accounts", head.accounts)):
        if count > len(getattr(state, table)):
            raise ValueError(f"{table}: {count} in the checkpoint, room for {len(getattr(state, table))}")
    state.markets[: head.markets] = checkpoint.markets
    for field in ("sequence", "order_count", "last_trade"):
        state.markets[field] = 0
    state.names[: head.names] = checkpoint.names
    state.accounts["address"][: head.accounts] = checkpoint.addresses
    for row in range(head.accounts):
        index.add_account(state.account_index, checkpoint.addresses[row], 0, row)
    status["market_count"], status["name_count"], status["account_count"] = (
        head.markets,
        head.names,
        head.accounts,
    )
    status["stale_count"] = np.count_nonzero(checkpoint.markets["stale"])
    refused = image.load(state, checkpoint.orders)
    status["height"], status["time_ns"] = head.height, head.time_ns
    return int(refused)
