"""Lines of a node's stream become records: a compiled reading of nearly all, a general one of what it
declines.

A chunk is one or more whole lines of one stream, in the by-block or in the streaming form, which share their
envelope: `{"local_time":…,"block_time":…,"block_number":…,"events":[…]}`. One call of the kernel reads as
many lines as it recognises; a line it does not goes to `decode`, and only what that refuses too is bad. Lines
of one block that follow each other become one segment.
"""

import numpy as np

from engine.follow import decode, events, intern
from engine.follow.records import CURSOR, SEGMENT, BadLine, Batch, Corrupt, Kind, Stop, Why
from engine.follow.scan import FAR, kernel, moment, newline, peek, quote, same, skip, whole
from engine.follow.snapshot import parse_snapshot as parse_snapshot
from shm.layout import ACCOUNT, EVENT, FILL, MARKET, NAME, WORD, WORLD_STATUS

LINE_BYTES_MAX = 64 << 20  # a block of the busiest day is some MB
EVENT_BYTES_MIN = 128  # of the shortest diff, about: sizes the room for records at first
_ROOM_MIN = 256
WARM_ROWS = 128
_NEWLINE, _COMMA, _CLOSE = ord("\n"), ord(","), ord("]")
_STATUSES, _DIFFS = int(Kind.STATUSES), int(Kind.DIFFS)
_END, _FULL, _UNRECOGNISED = int(Stop.END), int(Stop.FULL), int(Stop.UNRECOGNISED)


@kernel
def envelope(text, at, last):
    """Read a line's head: (its block, the position of its first event). `last` is the block of the line
    before.
    """
    at = quote(text, skip(text, at, '{"local_time":"'))
    start = skip(text, at, '","block_time":"')
    length = last.time_end + 1 - last.time_at
    if length > 1 and same(text, start, last.time_at, length):
        time_ns, at = last.time_ns, start + length
    else:
        time_ns, at = moment(text, start)
    end = at - 1
    height, at = whole(text, skip(text, at, ',"block_number":'))
    return events.Block(height, time_ns, start, end), skip(text, at, ',"events":[')


@kernel
def line(kind, text, at, block, tables, event_rows, fill_rows, count):
    """Read a line's events into the rows from `count`: (how many there are then, the position behind the
    newline).

    The count is the number of rows that there are if one more would be needed.
    """
    capacity = len(event_rows) if kind <= _DIFFS else len(fill_rows)
    if peek(text, at) == _CLOSE:
        return count, skip(text, at, "]}\n")
    while count < capacity:
        if kind == _STATUSES:
            at = events.status(text, at, block, tables, event_rows, count)
        elif kind == _DIFFS:
            at = events.diff(text, at, block, tables, event_rows, count)
        else:
            at = events.fill(text, at, block, tables, fill_rows, count)
        if at == events.CROWDED:  # the general decode will say so
            return count, FAR
        count += 1
        if peek(text, at) != _COMMA:
            return count, skip(text, at, "]}\n")
        at += 1
    return capacity + 1, FAR


@kernel
def lines(kind, text, tables, event_rows, fill_rows, segments, cursor):
    """Read the lines text[cursor.at:] until one is not recognised or finds no room. Return a Stop.

    cursor  CURSOR[1]: where to go on, and how many records and segments there are
    """
    place = cursor[0]
    capacity = len(event_rows) if kind <= _DIFFS else len(fill_rows)
    block = events.Block(0, 0, 0, 0)
    while place.at < len(text):
        start = place.at
        if text[start] == _NEWLINE:
            place.at = start + 1
            continue
        block, at = envelope(text, start, block)
        if at == FAR:
            return _UNRECOGNISED
        count, at = line(kind, text, at, block, tables, event_rows, fill_rows, place.records)
        if count > capacity:
            return _FULL
        if at == FAR:
            return _UNRECOGNISED
        if not note(segments, cursor, block, start, at, count):
            return _FULL
    return _END


@kernel
def note(segments, cursor, block, start, end, records):
    """Enter the line text[start:end], with which there are `records` records. Tell whether it found room."""
    place = cursor[0]
    if place.segments == 0 or segments[place.segments - 1].height != block.height:
        if place.segments == len(segments):
            return False
        segment = segments[place.segments]
        segment.height, segment.time_ns = block.height, block.time_ns
        segment.start, segment.first = start, place.records
        segment.count, segment.lines = 0, 0
        place.segments += 1
    segment = segments[place.segments - 1]
    segment.end = end
    segment.count += records - place.records
    segment.lines += 1
    place.records, place.at = records, end
    return True


class Parser:
    """Reads one stream. Its room for records is kept between calls; what it hands out is the caller's own."""

    def __init__(self, kind: Kind, tables: intern.Tables):
        self.kind, self.tables = kind, tables
        self.recognised = 0  # lines that the kernel read, blank ones not counted
        self.decoded = 0  # lines that only the general decode could read
        self._events, self._fills = np.zeros(1, EVENT), np.zeros(1, FILL)
        self._segments, self._cursor = np.zeros(_ROOM_MIN, SEGMENT), np.zeros(1, CURSOR)

    def parse(self, chunk: bytes | bytearray | memoryview | np.ndarray) -> Batch:
        """Read a chunk of whole lines; a rest without a newline counts as a line."""
        text = np.frombuffer(chunk, np.uint8) if len(chunk) else np.zeros(0, np.uint8)
        text.flags.writeable = False  # of the view: whatever is given, the kernel is compiled once
        self._make_room(len(text) // EVENT_BYTES_MIN + 1)
        self._cursor[0] = 0
        bad: list[BadLine] = []
        decoded = self.decoded
        while stop := self._advance(text):
            if stop == Stop.FULL:
                self._make_room(2 * len(self._records))
                self._segments = np.resize(self._segments, 2 * len(self._segments))
            else:
                self._read_generally(text, bad)
        place = self._cursor[0]
        segments = self._segments[: place["segments"]].copy()
        used = self._records[: place["records"]].view(np.uint8)  # a copy of bytes takes a third of the time
        self.recognised += int(segments["lines"].sum()) - (self.decoded - decoded)
        return Batch(segments, used.copy().view(self._records.dtype), bad)

    @property
    def _records(self) -> np.ndarray:
        return self._fills if self.kind == Kind.FILLS else self._events

    def _advance(self, text: np.ndarray) -> int:
        rows = (self._events, self._fills, self._segments, self._cursor)
        return int(lines(int(self.kind), text, self.tables, *rows))

    def _make_room(self, count: int) -> None:
        """See to it that `count` records have room; those there are stay."""
        records = self._records
        if len(records) >= count:
            return
        room = np.zeros(max(count, _ROOM_MIN), records.dtype)
        room[: len(records)] = records
        if self.kind == Kind.FILLS:
            self._fills = room
        else:
            self._events = room

    def _read_generally(self, text: np.ndarray, bad: list[BadLine]) -> None:
        """Read the one line at the cursor by the general decode, or enter it as bad."""
        place = self._cursor[0]
        start = int(place["at"])
        end = int(newline(text, start))
        after = min(end + 1, len(text))
        place["at"] = after
        if end - start > LINE_BYTES_MAX:
            bad.append(BadLine(start, end - start, Why.TOO_LONG, "longer than a line can be", None))
            return
        raw = text[start:end].tobytes()
        if not raw.strip():
            return
        try:
            height, time_ns, records = decode.line(self.kind, raw, self.tables)
        except Corrupt as error:
            market = decode.only_market(raw, self.tables)
            bad.append(BadLine(start, end - start, error.why, error.reason, market))
            return
        self._enter(height, time_ns, start, after, records)

    def _enter(self, height: int, time_ns: int, start: int, end: int, records: np.ndarray) -> None:
        first = int(self._cursor[0]["records"])
        self._make_room(first + len(records))
        self._records[first : first + len(records)] = records
        if self._cursor[0]["segments"] == len(self._segments):
            self._segments = np.resize(self._segments, 2 * len(self._segments))
        block = events.Block(height, time_ns, 0, 0)
        note(self._segments, self._cursor, block, start, end, first + len(records))
        self.decoded += 1


def warm() -> None:
    """Compile the kernels."""
    shared = [np.zeros(WARM_ROWS, dtype) for dtype in (MARKET, NAME, ACCOUNT, WORD, WORLD_STATUS)]
    tables = intern.tables(*shared)
    for kind in Kind:
        Parser(kind, tables).parse(b"\n")
    parse_snapshot(b"[0,[]]", tables)
