"""What goes into an exchange and what comes out, as plain tuples: the terms in which two are compared.

A `Command` has the fields of COMMAND as ints and bytes; `encode` makes the array of them. An outcome is
(kind, sequence, time_ns, *fields): of the fields of OUTCOME, those that have a meaning for its kind.
"""

from operator import itemgetter
from typing import NamedTuple

import numpy as np

from engine.exchange.records import OUTCOME, Kind
from shm.layout import ACK, COMMAND

HEAD = 3  # every outcome begins with its kind, sequence and time_ns
NOBODY = bytes(20)
NO_TEXT = bytes(16)


class Command(NamedTuple):
    """One COMMAND, all of its fields in their order."""

    sequence: int = 0
    time_ns: int = 0
    request: int = 0
    nonce: int = 0
    expires_ms: int = 0
    price: int = 0
    quantity: int = 0
    trigger_price: int = 0
    order: int = 0
    amount: int = 0
    signer: bytes = NOBODY
    vault: bytes = NOBODY
    other: bytes = NOBODY
    text: bytes = NO_TEXT
    of: bytes = NO_TEXT
    market: int = 0
    signer_row: int = 0
    gateway: int = 0
    kind: int = 0
    side: int = 0
    tif: int = 0
    flags: int = 0
    place: int = 0
    count: int = 1
    builder: bytes = NOBODY
    condition: int = 0
    grouping: int = 0
    reserved: int = 0


assert Command._fields == COMMAND.names

PLACED, TERMS = (
    "order price quantity original placed_ms text account market",
    "side flags tif start done amount",
)
FIELDS = {  # of an outcome, by its kind: what it means by them stands in engine/exchange/records.py
    Kind.OPENED: f"{PLACED} {TERMS}",
    Kind.WAITING: f"{PLACED} {TERMS} code",
    Kind.TRIGGERED: f"{PLACED} {TERMS}",
    Kind.FILLED: "order price quantity original placed_ms trade amount start fee text account market other "
    "side flags done code",
    Kind.TWAP: "order quantity original amount placed_ms trade code account market side flags done",
    Kind.SLICE: f"{PLACED} side flags tif trade".replace("text ", ""),
    Kind.ENDED: f"{PLACED} status {TERMS}",
    Kind.REFUSED: "order price text account market status side flags tif code start done amount",
    Kind.MONEY: "order amount account other code",
    Kind.MARKET: "order price quantity original placed_ms trade amount start fee text other code done market",
    Kind.PRICES: "order price quantity original placed_ms trade amount start fee market",
    Kind.TIER: "order price trade amount market",
    Kind.ACCOUNT: "address account other",
    Kind.AGENT: "order placed_ms text address account done",
    Kind.FUNDS: "order price quantity original placed_ms trade amount start fee text other done account",
    Kind.POSITION: "order price quantity original placed_ms trade amount start fee account market",
    Kind.BLOCK: "order price",
    Kind.RATE: "price trade amount order placed_ms market",
    Kind.FUNDING: "price quantity trade amount order placed_ms account market",
    Kind.LIQUIDATED: "price quantity amount account market code",
}
MARKED = {Kind.FUNDS: 2, Kind.POSITION: 3}  # which of the fields changes with the mark, untold
ACK_FIELDS = "request sequence order quantity notional gateway place count code outcome time_ms"


def with_bytes(dtype: np.dtype) -> np.dtype:
    """The same record, its fields of bytes as one value each."""
    formats = [f"V{each.itemsize}" if each.shape else each for each, *_ in map(dtype.fields.get, dtype.names)]
    offsets = [dtype.fields[name][1] for name in dtype.names]
    return np.dtype(
        {"names": dtype.names, "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize}
    )


def core(kind: int, fields: tuple | None) -> tuple | None:
    """An absolute row's fields without the one that changes with the mark."""
    at = MARKED.get(kind)
    return fields if at is None or fields is None else (*fields[:at], *fields[at + 1 :])


_COMMAND, _OUTCOME = with_bytes(COMMAND), with_bytes(OUTCOME)
_KIND = OUTCOME.names.index("kind")
_MEANT = {
    int(kind): itemgetter(
        *(OUTCOME.names.index(name) for name in ("kind", "sequence", "time_ns", *names.split()))
    )
    for kind, names in FIELDS.items()
}
_ACK = itemgetter(*(ACK.names.index(name) for name in ACK_FIELDS.split()))


def encode(commands: list[Command]) -> np.ndarray:
    """The commands as COMMAND[]."""
    return np.array(commands, _COMMAND).view(COMMAND)


def read_outcomes(outcomes: np.ndarray) -> list[tuple]:
    """OUTCOME[] as tuples of what each of them means."""
    return [_MEANT[row[_KIND]](row) for row in outcomes.view(_OUTCOME).tolist()]


def read_acks(acks: np.ndarray) -> list[tuple]:
    """ACK[] as tuples."""
    return [_ACK(row) for row in acks.tolist()]
