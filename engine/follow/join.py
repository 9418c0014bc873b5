"""Put the three streams of a node back together, block by block.

Streams are independent: one can be seconds ahead, its blocks out of order, its lines repeated. Parts wait
here under their block number until the next block is whole. By-block files hold a line for every block, so a
block is whole when every stream has shown its line; streaming files hold none for a quiet block, so there it
is whole when every stream has gone past it, or has had time to. A block that a stream has gone far past
without showing is missing: it is handed out all the same and says so.

Streaming lines of one block stand alone, so a line that was written twice, or read again because its file
was replaced or shrank, cannot be told by its block: each row leaves a fingerprint for as long as it can come
again. Rows of a block already applied that leave a new one came too late; a fill among them must find that a
diff of its block has changed the order that rested, or that diff is lost.

Books do not wait for fills for ever, and no fill is dropped for it: those of a by-block line that comes after
its block was handed out without it go out with the next block.
"""

from typing import NamedTuple

import numpy as np

from engine.follow.records import Kind
from engine.follow.tail import Mark
from engine.state import power_of_two
from shm.codes import EventKind, Flag
from shm.kernel import entry
from shm.layout import EVENT, FILL, record

REORDER_BLOCKS = 64  # a stream that is so far past a block will not show it any more
REORDER_NS = 2_000_000_000  # nor one that has been past it for so long
LEAD_BLOCKS = 256  # how far a stream may be ahead of the next block before it is not read any further
LEAD_RECORDS = 1 << 20
JUMP_BLOCKS = 4096  # a line so far ahead is believed when the next one agrees
PASS_NS = 500_000_000  # streaming: how long a block waits for a stream that has shown nothing after it
FILLS_PASS_NS = 50_000_000  # fills are late or absent more often, and can follow in the next block
IDLE_NS = 1_000_000_000  # streaming: no news from any stream for so long ends the newest block
STALL_NS = 5_000_000_000  # a fills stream that is silent for so long while the others go on is not waited for
OWED_BLOCKS = 4096  # by-block: so many blocks that were handed out without their fills are remembered

_EMPTY = {Kind.STATUSES: np.zeros(0, EVENT), Kind.DIFFS: np.zeros(0, EVENT), Kind.FILLS: np.zeros(0, FILL)}
_NEEDED = (Kind.STATUSES, Kind.DIFFS)
# beside the streams' fingerprints:
_CHANGED = len(Kind)  # the oids that a block's diffs have changed
_OWED = _CHANGED + 1  # by-block: one row for a block whose fills are still to come

FINGERPRINT = record(("height", "i8"), ("kind", "i8"), ("row", "u8"))
_NONE, _NO_ROW = np.zeros(0, np.uint64), np.zeros(1, np.uint64)
_SHIFT = np.uint64(29)
_HIGH_HALF = np.uint64(32)  # of a fingerprint, where every bit of the row has come through
_MIX = 0x9E3779B97F4A7C15
# a row is named by the sum of its words, each times a factor of its own
_FACTORS = np.array([pow(_MIX, place + 1, 1 << 64) for place in range(FILL.itemsize // 8)], np.uint64)
_FACTORS_OF_DIFFS = _FACTORS.copy()
_FACTORS_OF_DIFFS[EVENT.fields["time_ns"][1] // 8] = 0
assert EVENT.itemsize % 8 == FILL.itemsize % 8 == 0 and EVENT.itemsize <= FILL.itemsize


class Part(NamedTuple):
    """What one stream said of one block."""

    height: int
    time_ns: int
    records: list[np.ndarray]
    mark: Mark  # where its first line begins


class Block(NamedTuple):
    """One block of all streams."""

    height: int
    time_ns: int
    statuses: np.ndarray
    diffs: np.ndarray
    fills: np.ndarray
    missing: tuple[Kind, ...]  # streams that never showed it
    skipped: int  # blocks before it that no stream has shown


class _Stream:
    def __init__(self) -> None:
        self.parts: dict[int, Part] = {}
        self.record_count = 0
        self.seen = 0  # highest block believed
        self.seen_ns = 0  # when the last line came, or else the first of any stream
        self.passed_ns = 0  # when it first went past the block that is next
        self.suspect: Part | None = None  # a jump that nobody has confirmed yet
        self.held = False  # the end of an earlier line is still to come


class Join:
    """The parts that wait, and which block is next.

    height    last block already applied
    by_block  whether every stream has a line for every block
    base      the height whose state came as a whole: lines of blocks up to it are in there already
    recent    FINGERPRINT[]: of an earlier join, to go on from
    """

    def __init__(self, height: int, by_block: bool, base: int = 0, recent: np.ndarray | None = None):
        self.height = height
        self.by_block = by_block
        self.base = base
        self.repeats = 0  # lines of blocks already applied or already here
        self.refused = 0  # lines whose block number nobody else confirmed
        self.late_diffs: list[np.ndarray] = []  # streaming: of blocks already applied, for the caller to take
        self.unmatched: list[np.ndarray] = []  # likewise, fills of resting orders whose diff never came
        self._late: dict[Kind, list[np.ndarray]] = {kind: [] for kind in Kind}  # go out with the next block
        self._streams = {kind: _Stream() for kind in Kind}
        self._recent: dict[tuple[int, int], np.ndarray] = {}  # (height, kind) -> fingerprints of its rows
        for row in recent if recent is not None else ():
            self._note(int(row["height"]), int(row["kind"]), row["row"].reshape(1))

    @property
    def seen_height(self) -> int:
        return max(stream.seen for stream in self._streams.values())

    def wants(self, kind: Kind) -> bool:
        """Whether the stream may be read further: what waits here is bounded."""
        stream = self._streams[kind]
        return len(stream.parts) < LEAD_BLOCKS and stream.record_count < LEAD_RECORDS

    def add(self, kind: Kind, part: Part, now_ns: int) -> None:
        """Take one stream's part of a block; a wild block number waits for a second opinion."""
        stream = self._streams[kind]
        for other in self._streams.values():
            other.seen_ns = other.seen_ns or now_ns
        stream.seen_ns = now_ns
        if stream.suspect is not None:
            suspect, stream.suspect = stream.suspect, None
            if 0 <= part.height - suspect.height <= JUMP_BLOCKS:
                self._enter(kind, suspect, now_ns)
            else:
                self.refused += 1
        base = stream.seen or self.height
        if base and part.height > base + JUMP_BLOCKS:
            stream.suspect = part
        else:
            self._enter(kind, part, now_ns)

    def hold(self, kind: Kind, held: bool) -> None:
        """Say whether the end of a line is still to come behind which the stream has been read already."""
        self._streams[kind].held = held

    def _enter(self, kind: Kind, part: Part, now_ns: int) -> None:
        stream = self._streams[kind]
        if part.height > stream.seen:
            stream.seen = part.height
            if stream.passed_ns == 0 and stream.seen > self.height + 1:
                stream.passed_ns = now_ns
        if part.height <= self.height:
            self._on_late(kind, part)
        elif part.height not in stream.parts:
            stream.parts[part.height] = part
            stream.record_count += sum(map(len, part.records))
        elif self.by_block:
            self.repeats += 1
        else:
            stream.parts[part.height].records.extend(part.records)
            stream.record_count += sum(map(len, part.records))

    def _on_late(self, kind: Kind, part: Part) -> None:
        """Rows of a block already applied are repeats, or they came too late."""
        if self.by_block and kind == Kind.FILLS and self._recent.pop((part.height, _OWED), None) is not None:
            self._late[kind] += part.records
            return
        if self.by_block or part.height <= self.base or self.height - part.height >= REORDER_BLOCKS:
            self.repeats += 1
            return
        rows = np.concatenate(part.records)
        fresh = rows[~np.isin(fingerprints(rows), self._recent.get((part.height, kind), _NONE))]
        self.repeats += len(fresh) < len(rows)
        if len(fresh):
            self._note(part.height, kind, fingerprints(fresh))
            (self.late_diffs if kind == Kind.DIFFS else self._late[kind]).append(fresh)
            if kind == Kind.FILLS:
                makers = fresh[fresh["flags"] & Flag.CROSSED == 0]
                changed = self._recent.get((part.height, _CHANGED), _NONE)
                self.unmatched.append(
                    makers[~np.isin(np.ascontiguousarray(makers["order"]).view(np.uint64), changed)]
                )

    def _note(self, height: int, kind: int, rows: np.ndarray) -> None:
        held = self._recent.get((height, kind), _NONE)
        self._recent[height, kind] = np.concatenate([held, rows])

    def recent(self) -> np.ndarray:
        """FINGERPRINT[] of the blocks whose lines can still come, or come again."""
        rows = sum(map(len, self._recent.values()))
        out, at = np.zeros(rows, FINGERPRINT), 0
        for (height, kind), held in self._recent.items():
            out[at : at + len(held)]["height"], out[at : at + len(held)]["kind"] = height, kind
            out[at : at + len(held)]["row"] = held
            at += len(held)
        return out

    @property
    def owes(self) -> bool:
        """Whether rows that came too late still wait for a block to go out with."""
        return bool(self.late_diffs) or any(len(rows) for late in self._late.values() for rows in late)

    def next(self, now_ns: int) -> Block | None:
        """Hand out the next block if it is whole, or if the rest of it will not come."""
        height, skipped = self.height + 1, 0
        if not any(height in stream.parts for stream in self._streams.values()):
            waiting = [min(stream.parts) for stream in self._streams.values() if stream.parts]
            if not waiting:
                return None
            if self.by_block:
                if not all(self._gave_up(kind, height, now_ns) for kind in _NEEDED):
                    return None
                skipped = min(waiting) - height
            height = min(waiting)
        missing = []
        for kind in Kind:
            verdict = self._whole(kind, height, now_ns)
            if verdict is None:
                return None
            if not verdict:
                missing.append(kind)
        quiet = height - self.height - 1
        if not self.by_block and quiet > REORDER_BLOCKS:
            skipped = quiet  # a quiet block has no line, but so many in a row are missing
        return self._hand_out(height, tuple(missing), skipped)

    def _whole(self, kind: Kind, height: int, now_ns: int) -> bool | None:
        """True: all of it is here. False: it will not come. None: wait."""
        if not self.by_block:
            return True if self._passed(kind, height, now_ns) else None
        if height in self._streams[kind].parts:
            return True
        return False if self._gave_up(kind, height, now_ns) else None

    def _gave_up(self, kind: Kind, height: int, now_ns: int) -> bool:
        """By-block: whether the stream has gone past `height` for good without showing it."""
        stream = self._streams[kind]
        if stream.seen >= height + REORDER_BLOCKS:
            return True
        if stream.seen > height and stream.passed_ns and now_ns - stream.passed_ns > REORDER_NS:
            return True
        if kind not in _NEEDED:
            others = min(self._streams[needed].seen for needed in _NEEDED)
            return others >= height and now_ns - stream.seen_ns > STALL_NS
        return False

    def _passed(self, kind: Kind, height: int, now_ns: int) -> bool:
        """Streaming: whether the stream has shown all it has of `height`."""
        stream = self._streams[kind]
        if stream.seen > height:
            return not stream.held or now_ns - stream.passed_ns > REORDER_NS
        if now_ns - max(s.seen_ns for s in self._streams.values()) > IDLE_NS:
            return True
        past = [s.passed_ns for s in self._streams.values() if s.seen > height and s.passed_ns]
        if not past:
            return False
        if kind == Kind.FILLS:
            ready = all(self._streams[needed].seen > height for needed in _NEEDED)
            return ready and now_ns - max(past) > FILLS_PASS_NS
        return now_ns - min(past) > PASS_NS

    def _hand_out(self, height: int, missing: tuple[Kind, ...], skipped: int) -> Block:
        self.height = height
        records, times = {}, []
        for kind, stream in self._streams.items():
            part = stream.parts.pop(height, None)
            stream.passed_ns = stream.seen_ns if stream.seen > height + 1 else 0
            found = part.records if part is not None else []
            if part is not None:
                times.append(part.time_ns)
                stream.record_count -= sum(map(len, found))
            rows = _joined(found, _EMPTY[kind])
            if len(rows) and not self.by_block:
                rows = self._first_of_each(height, kind, rows)
            records[kind] = _joined([*self._late[kind], rows], rows)
            self._late[kind] = []
        if self.by_block and Kind.FILLS in missing:
            self._owe_fills(height)
        time_ns = max(times)
        return Block(
            height,
            time_ns,
            records[Kind.STATUSES],
            records[Kind.DIFFS],
            records[Kind.FILLS],
            missing,
            skipped,
        )

    def _owe_fills(self, height: int) -> None:
        self._note(height, _OWED, _NO_ROW)
        if len(self._recent) > OWED_BLOCKS:
            del self._recent[next(iter(self._recent))]

    def _first_of_each(self, height: int, kind: Kind, rows: np.ndarray) -> np.ndarray:
        """The rows without those that repeat an earlier one. Their fingerprints are kept for a while."""
        for old in [key for key in self._recent if key[0] <= height - REORDER_BLOCKS]:
            del self._recent[old]
        names, is_first = fingerprints(rows), np.zeros(len(rows), np.bool_)
        count = mark_first(names, np.zeros(power_of_two(2 * len(rows)), np.int64), is_first)
        self._note(height, kind, names[is_first])
        if kind == Kind.DIFFS:
            self._note(height, _CHANGED, np.ascontiguousarray(rows["order"]).view(np.uint64))
        if count == len(rows):
            return rows
        self.repeats += 1
        return rows[is_first]

    def marks(self, kind: Kind) -> list[Mark]:
        """Where the lines begin that wait here: the first one of each file."""
        first: dict[str, Mark] = {}
        stream = self._streams[kind]
        for part in [*stream.parts.values(), *([stream.suspect] if stream.suspect else [])]:
            held = first.get(part.mark.name)
            if held is None or part.mark.offset < held.offset:
                first[part.mark.name] = part.mark
        return list(first.values())


def fingerprints(rows: np.ndarray) -> np.ndarray:
    """Name each row of one stream by its bytes: u8[len(rows)]. Two rows share a name by a chance of 2**-64.

    A diff has no time but its block's, which a source may tell twice and differently: it does not count.
    """
    timeless = rows.dtype == EVENT and len(rows) > 0 and rows["kind"][0] != EventKind.STATUS
    words = np.ascontiguousarray(rows).view(np.uint64).reshape(len(rows), rows.dtype.itemsize // 8)
    out = np.zeros(len(rows), np.uint64)
    name_rows(words, _FACTORS_OF_DIFFS if timeless else _FACTORS, out)
    return out


@entry
def name_rows(words, factors, out):
    """Write the fingerprint of each row of words (u8[n, w]) into out (u8[n])."""
    for row in range(len(words)):
        total = np.uint64(0)
        for place in range(words.shape[1]):
            word = words[row, place]
            word ^= word >> _SHIFT  # or the top bit of any word would weigh the same
            total += word * factors[place]
        out[row] = total


@entry
def mark_first(names, seen, out):
    """Mark in out (bool[n]) the names (u8[n]) that stand for the first time; return how many those are.

    seen  i8[], zeros, a power of two, twice the names at least: room to work in
    """
    mask, count = len(seen) - 1, 0
    for i in range(len(names)):
        at = np.int64(names[i] >> _HIGH_HALF) & mask
        while seen[at] != 0 and names[seen[at] - 1] != names[i]:
            at = (at + 1) & mask
        if seen[at] == 0:
            seen[at] = i + 1
            out[i] = True
            count += 1
    return count


def warm() -> None:
    """Compile the entry points."""
    mark_first(fingerprints(np.zeros(1, EVENT)), np.zeros(2, np.int64), np.zeros(1, np.bool_))


def _joined(found: list[np.ndarray], empty: np.ndarray) -> np.ndarray:
    if not found:
        return empty
    return found[0] if len(found) == 1 else np.concatenate(found)
