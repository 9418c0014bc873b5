"""What happened? The commands of a journal are applied once more, and every outcome is told.

By the same `apply` that an engine recovers with, and compared with its digests on the way: what is told is
what was, or it ends with the place where the two differ. It begins with the first command of the journal, or
with the newest snapshot before the first command that is asked for.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.exchange import recovery, snapshot, world
from engine.exchange.records import Kind
from engine.exchange.state import Capacity, State, allocate
from engine.journal import reader
from engine.journal.disk import Disk, held
from engine.journal.reader import Reader
from scripts import outcome_words
from scripts.outcome_words import Facts
from scripts.verify import Absent, Shown, Way
from shm.codes import Ack, Ask

EVER = snapshot.ALWAYS
NO_SUCH = -2  # row of an account that is not there: no outcome has it


class Asked(NamedTuple):
    """What is asked for. since, until: sequences, both included; account: an address; market: its name."""

    since: int = 0  # at which the first two accounts are made
    until: int = EVER
    account: str | None = None
    market: str | None = None


def replay(
    journal: Path, snapshots: Path, core: State, shown: world.World, asked: Asked, show: Shown
) -> Iterator[Facts]:
    """Tell what is asked for, in order. core, shown: as they were allocated.

    Raises Absent, Corrupt, recovery.Diverged, OSError.
    """
    if not journal.is_dir() or not (numbers := reader.segments(journal, Disk())):
        raise Absent(f"there is no journal in {journal}")
    with held(journal):
        heads = (reader.head_of(journal, number, Disk()) for number in numbers)
        first = next((head.sequence for head in heads if head is not None), 1)
        _begin(snapshots, core, shown, first, asked.since)
        yield from _told(journal, core, asked, show)


def _begin(snapshots: Path, core: State, shown: world.World, first: int, since: int) -> None:
    """Load the newest snapshot before command `since`; else, unless the journal has the first, the oldest.

    Raises Absent.
    """
    if since > 1 and snapshot.newest(snapshots, core, shown, since - 1)[0] is not None:
        return
    if first == 1:
        return
    complaints: list[str] = []
    for path in sorted(snapshots.glob(f"*{snapshot.SUFFIX}")):
        if path.stem.isdigit() and int(path.stem) >= first - 1:
            taken, complaints = snapshot.newest(snapshots, core, shown, int(path.stem))
            if taken is not None and taken.sequence >= first - 1:
                return
    why = "; ".join(complaints) or "there is none"
    raise Absent(f"the journal begins with sequence {first}, and no snapshot goes on from there: {why}")


def _told(journal: Path, core: State, asked: Asked, show: Shown) -> Iterator[Facts]:
    way, heap = Way(journal), core.heap[0]
    reading = Reader(journal, int(heap["sequence"]) + 1, only_durable=False)
    try:
        while heap["sequence"] < asked.until and len(commands := reading.read()):
            commands = commands[commands["sequence"] <= asked.until]
            for outcomes in recovery.applied(core, commands):
                yield from _lines(core, commands, outcomes, asked)
            show(way.done(reading.place), way.total)
        if heap["sequence"] < asked.until:
            reading.end()
    finally:
        reading.close()


def _lines(core: State, commands: np.ndarray, outcomes: np.ndarray, asked: Asked) -> Iterator[Facts]:
    """What one call of `apply` gave, as far as it is asked for."""
    wanted = (outcomes["sequence"] >= asked.since) & _is_meant(core, outcomes, asked)
    told = [outcome_words.told(core, outcome) for outcome in outcomes[wanted]]
    refused = outcomes["sequence"][outcomes["kind"] == Kind.REFUSED]
    told += _not_done(core, commands, set(refused.tolist()), asked)
    yield from sorted(told, key=lambda facts: facts["sequence"])


def _is_meant(core: State, outcomes: np.ndarray, asked: Asked) -> np.ndarray:
    meant = np.ones(len(outcomes), bool)
    if asked.account is not None:
        meant &= outcomes["account"] == _row_of(core, asked.account)
    if asked.market is not None:
        markets = range(int(core.status[0]["market_count"]))
        named = [market for market in markets if outcome_words.market_name(core, market) == asked.market]
        meant &= np.isin(outcomes["market"], named)
    return meant


def _not_done(core: State, commands: np.ndarray, refused: set[int], asked: Asked) -> Iterator[Facts]:
    """Of commands that were refused without an outcome; `refused` are those with one."""
    acks = core.acks[: int(core.heap[0]["acks"])]
    for ack in acks[(acks["outcome"] == Ack.REFUSED) & (acks["sequence"] >= asked.since)]:
        if int(ack["sequence"]) not in refused:
            command = commands[int(ack["sequence"]) - int(commands["sequence"][0])]
            facts = outcome_words.not_done(core, command, int(ack["code"]), _acts_for(core, command))
            if asked.account in (None, facts["account"]) and asked.market in (None, facts.get("market")):
                yield facts


def _acts_for(core: State, command: np.void) -> str:
    """Whose command it is: a sub-account's, an agent's account's, or the signer's own."""
    if command["flags"] & Ask.HAS_VAULT:
        return "0x" + bytes(command["vault"]).hex()
    signers = core.signers[: int(core.status[0]["signer_count"])]
    known = np.flatnonzero((signers["address"] == command["signer"]).all(axis=1))
    if len(known):
        return outcome_words.address_of(core, int(signers["account"][known[0]]))
    return "0x" + bytes(command["signer"]).hex()


def _row_of(core: State, address: str) -> int:
    """Of the account; NO_SUCH: there is none yet."""
    wanted = np.frombuffer(bytes.fromhex(address.removeprefix("0x")), np.uint8)
    accounts = core.accounts["address"][: int(core.status[0]["account_count"])]
    found = np.flatnonzero((accounts == wanted).all(axis=1))
    return int(found[0]) if len(found) else NO_SUCH


def empty(capacity: dict[str, int], rings: dict[str, int]) -> tuple[State, world.World]:
    """A core and its world before the first command, as an engine with these settings has them."""
    core = Capacity(**capacity)
    return allocate(core), world.allocate(world.capacity_for(core, **rings))
