"""Is a journal whole? All of it is read, as a recovery reads it, and the snapshots beside it are looked at.

What is compared: each record's checksums, place and chain; what the journal calls durable, with what is
there; each snapshot's checksum, and its digest with the one that the journal has written down for that
moment. What the commands lead to is not: `ringside replay` applies them.

A write that was torn when the machine stopped is no damage: nobody was told of it.
"""

from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.exchange import snapshot
from engine.exchange.snapshot import Refused, Taken
from engine.journal import reader
from engine.journal.disk import Disk, held
from engine.journal.reader import Corrupt, End, Reader, path_of
from engine.journal.record import NO_CHAIN
from shm.codes import Command

Shown = Callable[[int, int], None]  # bytes that were read, and all there are
_WORD = (1 << 64) - 1


class Absent(Exception):
    """There is no journal. The text is for the user."""


class Verdict(NamedTuple):
    """What was found. `damages`: a line each; without any, all of it is good."""

    first: int  # sequence of the earliest command
    commands: int
    blocks: int
    bytes: int  # of all segments
    end: End | None  # None: it was not reached
    snapshots: list[Taken]  # the good ones, newest first
    damages: list[str]

    @property
    def is_good(self) -> bool:
        return not self.damages


def verify(journal: Path, snapshots: Path, show: Shown) -> Verdict:
    """Look at all of it; the first damage of the journal ends that. Raises Absent, OSError."""
    if not journal.is_dir() or not (numbers := reader.segments(journal, Disk())):
        raise Absent(f"there is no journal in {journal}")
    with held(journal):
        good, damages = _examine(snapshots)
        return _read(journal, snapshots, numbers, good, damages, show)


def _examine(directory: Path) -> tuple[list[Taken], list[str]]:
    """The good snapshots, newest first, and what is wrong with the others.

    One that has gone since it was listed is neither: a replica that runs has removed it for a newer one.
    """
    good, damages = [], []
    for path in sorted(directory.glob(f"*{snapshot.SUFFIX}"), reverse=True):
        try:
            good.append(snapshot.examine(path))
        except FileNotFoundError:
            continue
        except Refused as refused:
            damages.append(f"{path}: {refused}")
    return good, damages


class Way:
    """How far a reader is, in bytes of what there was at the beginning."""

    def __init__(self, journal: Path):
        self._numbers = reader.segments(journal, Disk())
        sizes = [path_of(journal, number).stat().st_size for number in self._numbers]
        self._begins = [0, *accumulate(sizes)]
        self.total = self._begins[-1]

    def done(self, place: tuple[int, int]) -> int:
        segment, offset = place
        return min(self._begins[bisect_left(self._numbers, segment)] + offset, self.total)


def _read(
    journal: Path, snapshots: Path, numbers: list[int], good: list[Taken], damages: list[str], show: Shown
) -> Verdict:
    way, first, commands, blocks, end = Way(journal), 0, 0, 0, None
    waiting = sorted(good)  # snapshots whose moment is still to come
    reading: Reader | None = None
    try:
        first = _first(journal, numbers[0])
        reading = Reader(journal, first, only_durable=False)
        while len(piece := reading.read()):
            ends = piece[piece["kind"] == Command.END_BLOCK]
            commands, blocks = commands + len(piece), blocks + len(ends)
            waiting = _compare(waiting, ends)
            show(way.done(reading.place), way.total)
        end = reading.end()
        _join(journal, snapshots, first, end, good)
    except Corrupt as corrupt:
        damages.append(str(corrupt))
    finally:
        if reading is not None:
            reading.close()
    return Verdict(first, commands, blocks, way.total, end, good, damages)


def _first(journal: Path, segment: int) -> int:
    """The sequence that the journal begins with, in its oldest segment. Raises Corrupt."""
    head, path = reader.head_of(journal, segment, Disk()), path_of(journal, segment)
    if head is None and segment == 1 and is_empty(journal):
        return 1
    if head is None:
        raise Corrupt(f"{path}, offset 0: expected the first record of a segment, found none that is whole")
    if segment == 1 and (head.sequence, head.chain) != (1, NO_CHAIN):
        raise Corrupt(
            f"{path}, offset 0: expected sequence 1 and chain {NO_CHAIN.hex()}, "
            f"found sequence {head.sequence} and chain {head.chain.hex()}"
        )
    return head.sequence


def is_empty(journal: Path) -> bool:
    """Whether nothing was ever written: all there is is room."""
    return not any(reader.head_of(journal, number, Disk()) for number in reader.segments(journal, Disk()))


def _compare(waiting: list[Taken], ends: np.ndarray) -> list[Taken]:
    """The END_BLOCK that follows a snapshot knows its digest (0: it knows none); give those that wait on.

    Raises Corrupt.
    """
    while waiting and len(ends) and ends["sequence"][-1] > waiting[0].sequence:
        taken = waiting.pop(0)
        following = ends[np.searchsorted(ends["sequence"], taken.sequence, "right")]
        if following["amount"] not in (0, taken.digest):
            said = f"sequence {following['sequence']} says {int(following['amount']) & _WORD:016x}"
            raise Corrupt(
                f"snapshot of sequence {taken.sequence}: its digest is {taken.digest & _WORD:016x}; {said}"
            )
    return waiting


def _join(journal: Path, snapshots: Path, first: int, end: End, good: list[Taken]) -> None:
    """A recovery needs the journal's beginning or a snapshot, and no snapshot knows more than the journal.

    Raises Corrupt.
    """
    if good and good[0].sequence >= end.sequence:
        raise Corrupt(
            f"{journal}: expected sequence {good[0].sequence}, of which there is a snapshot; "
            f"found the end before sequence {end.sequence}"
        )
    if first > 1 and snapshots.is_dir() and not any(taken.sequence >= first - 1 for taken in good):
        raise Corrupt(f"{journal}: it begins with sequence {first}; found no good snapshot to begin from")


# --- what is said of it -------------------------------------------------------------------------------------


def told(journal: Path, verdict: Verdict) -> str:
    """The lines for the user."""
    lines = [f"{journal}: {'good' if verdict.is_good else 'DAMAGED'}"]
    last = verdict.first + verdict.commands - 1
    if verdict.commands:
        lines.append(
            f"  commands {verdict.first:,} to {last:,} in {verdict.blocks:,} blocks; {verdict.bytes:,} bytes"
        )
    if (end := verdict.end) is not None and end.segment > 0:
        where = f"{path_of(journal, end.segment).name} at offset {end.offset:,}, epoch {end.epoch}"
        lines.append(f"  it ends in {where}; called durable up to {end.durable:,}")
        if end.torn:
            lines.append(f"  behind that: {end.torn}, which was being written when it stopped: no damage")
    lines += [f"  snapshot of sequence {taken.sequence:,}: good" for taken in verdict.snapshots]
    lines += [f"  {damage}" for damage in verdict.damages]
    return "\n".join(lines) + "\n"
