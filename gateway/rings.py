"""The bytes of one stream: its newest messages, framed once, in a ring that clients are cursors on.

A position is a count of bytes since the stream began, so it never wraps. Server frames are not masked: the
same bytes go to every client. Every message has the height of the block that it tells of, which rises, so
that a client who began with a snapshot can be sent only what came after it.
"""

import struct
from bisect import bisect_right

TEXT, CONTINUATION, FINAL = 0x01, 0x00, 0x80  # of a WebSocket frame's first byte
FRAGMENT_BYTES_MAX = 256 * 1024  # of a message too long to be handed to a socket at once
HEADER_BYTES_MAX = 10
INDEX_SLACK = 512  # dropped entries that the index keeps before it is cut

_SHORT, _MEDIUM, _LONG = struct.Struct("!BB"), struct.Struct("!BBH"), struct.Struct("!BBQ")
_SHORT_MAX, _MEDIUM_MAX = 125, 65_535
_MEDIUM_MARK, _LONG_MARK = 126, 127


class TooLarge(Exception):
    """One message that the ring could not hold at its largest."""


def header(length: int, first: int = TEXT | FINAL) -> bytes:
    """The header of a server's frame with `length` bytes of payload."""
    if length <= _SHORT_MAX:
        return _SHORT.pack(first, length)
    if length <= _MEDIUM_MAX:
        return _MEDIUM.pack(first, _MEDIUM_MARK, length)
    return _LONG.pack(first, _LONG_MARK, length)


def frame(payload: bytes) -> bytes:
    """One whole text message."""
    return header(len(payload)) + payload


def fragments(parts: list[bytes]) -> list[bytes]:
    """One text message whose payload is the parts together, as frames: between two of them a pong may go out.

    A part longer than a fragment is cut.
    """
    pieces = [
        part[at : at + FRAGMENT_BYTES_MAX] for part in parts for at in range(0, len(part), FRAGMENT_BYTES_MAX)
    ]
    last = len(pieces) - 1
    return [
        header(len(piece), (TEXT if i == 0 else CONTINUATION) | (FINAL if i == last else 0)) + piece
        for i, piece in enumerate(pieces)
    ]


class Ring:
    """The newest frames of a stream. One writer; readers ask for bytes between two positions.

    head            bytes ever written
    dropped_height  of the newest message that is no longer here; -1: none was dropped
    """

    def __init__(self, capacity: int, capacity_max: int):
        self.head = 0
        self.dropped_height = -1
        self._bytes = bytearray(capacity)
        self._capacity_max = max(capacity, capacity_max)
        self._starts: list[int] = []
        self._heights: list[int] = []
        self._first = 0  # of the lists: those before are dropped
        self._taken = (0, 0, b"")  # what was asked for last: clients that keep up all ask for the same

    @property
    def capacity(self) -> int:
        return len(self._bytes)

    @property
    def oldest(self) -> int:
        """The position of the oldest message; `head` when there is none."""
        return self._starts[self._first] if self._first < len(self._starts) else self.head

    @property
    def newest(self) -> int:
        """The position of the newest message; `head` when there is none."""
        return self._starts[-1] if self._first < len(self._starts) else self.head

    def overruns(self, payload_bytes: int, floor: int) -> bool:
        """Whether a message of this size would drop bytes from `floor` on."""
        return self.head + payload_bytes + HEADER_BYTES_MAX - self.capacity > floor

    def grow(self, payload_bytes: int, floor: int) -> None:
        """Make room for a message without dropping what comes after `floor`, as far as the ring may grow."""
        wanted, capacity = self.head + payload_bytes + HEADER_BYTES_MAX - floor, self.capacity
        while capacity < wanted and capacity < self._capacity_max:
            capacity = min(2 * capacity, self._capacity_max)
        if capacity != self.capacity:
            start = max(self.oldest, self.head - self.capacity)
            kept = self._copy(start, self.head)
            self._bytes = bytearray(capacity)
            self._write(start, kept)

    def push(self, payload: bytes, height: int) -> None:
        """Add one message. Raises TooLarge, and changes nothing, when it is larger than the ring."""
        framed = header(len(payload)) + payload
        if len(framed) > self.capacity:
            self.grow(len(payload), self.head)
            if len(framed) > self.capacity:
                raise TooLarge(f"{len(framed)} bytes")
        self._drop_before(self.head + len(framed) - self.capacity)
        self._starts.append(self.head)
        self._heights.append(height)
        self._write(self.head, framed)
        self.head += len(framed)

    def clear(self) -> None:
        """Drop every message: what comes may have lower heights."""
        self._first = len(self._starts)
        self._drop_before(self.head)
        self.dropped_height = -1

    def after(self, height: int) -> int:
        """The position of the first message of a later block; `head` when there is none."""
        i = bisect_right(self._heights, height, self._first)
        return self._starts[i] if i < len(self._starts) else self.head

    def until(self, start: int, size: int) -> int:
        """The end of the last message within `size` bytes from `start`; of the first one, at least."""
        if self.head - start <= size:
            return self.head
        i = bisect_right(self._starts, start + size, self._first) - 1
        if self._starts[i] > start:
            return self._starts[i]
        return self._starts[i + 1] if i + 1 < len(self._starts) else self.head

    def take(self, start: int, end: int) -> bytes:
        """The bytes between two positions, both in the ring."""
        taken = self._taken
        if taken[0] != start or taken[1] != end:
            taken = self._taken = (start, end, self._copy(start, end))
        return taken[2]

    def _drop_before(self, position: int) -> None:
        first = self._first
        while first < len(self._starts) and self._starts[first] < position:
            self.dropped_height = self._heights[first]
            first += 1
        self._first = first
        if first > INDEX_SLACK:
            del self._starts[:first], self._heights[:first]
            self._first = 0

    def _write(self, position: int, framed: bytes) -> None:
        at = position % self.capacity
        room = self.capacity - at
        if len(framed) <= room:
            self._bytes[at : at + len(framed)] = framed
        else:
            self._bytes[at:] = framed[:room]
            self._bytes[: len(framed) - room] = framed[room:]

    def _copy(self, start: int, end: int) -> bytes:
        at, stop = start % self.capacity, end % self.capacity
        if start == end:
            return b""
        if at < stop:
            return bytes(self._bytes[at:stop])
        return bytes(self._bytes[at:]) + bytes(self._bytes[:stop])
