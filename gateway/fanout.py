"""From messages that are encoded once to the many clients that want them.

A stream is one channel with its parameters: its messages are framed once, into a ring. A client is a cursor
on each of its streams. A flush is one write of everything between cursor and head; nothing is done per client
and message.

Nothing is written to a client whose socket has not taken what it was given. What waits for it meanwhile is
not kept for it: it is in the ring, as long as the ring reaches. Who falls behind on a state channel jumps to
the newest message; on l4Book it is told, and begins anew with a Snapshot; on any other channel, where nothing
may be left out, it is closed with a reason.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from gateway import errors, rings, schema
from gateway.bound import First, State
from gateway.channels import Channel
from gateway.rings import Ring


@dataclass(frozen=True, slots=True)
class FanoutLimits:
    """Bytes, unless said otherwise."""

    ring_bytes: int = 16 * 1024  # of a stream at first: it grows while somebody is behind
    lag_bytes_max: int = 1024 * 1024  # on a channel where nothing may be left out
    lag_queue_bytes_max: int = 32 * 1024 * 1024  # on l4Book, where a Snapshot may take seconds to read
    flush_bytes_max: int = 256 * 1024  # in one write
    direct_bytes_max: int = 1024 * 1024  # answers that a client has not read


class Wire(Protocol):
    """What a client's connection can do (gateway.ws.Connection)."""

    @property
    def closed(self) -> bool: ...
    def write_frames(self, frames: bytes) -> bool: ...
    def close(self, code: int, reason: str = "") -> None: ...


class Cursor:
    """One client's place in one stream."""

    __slots__ = ("client", "stream", "position", "height", "waits")

    def __init__(self, client: "Client", stream: "Stream"):
        self.client = client
        self.stream = stream
        self.position = stream.ring.head
        self.height = -1  # blocks up to this one are in its first message: not told again
        self.waits = True  # for its first message


class Stream:
    """One channel, its newest messages, and who reads them."""

    def __init__(self, channel: Channel, limits: FanoutLimits):
        state = channel.is_state  # its ring grows for one large message, never for who is behind
        most = limits.lag_queue_bytes_max if channel.restarts or state else limits.lag_bytes_max
        self.channel = channel
        self.is_state = state
        self.lag_bytes_max = most
        self.ring = Ring(limits.ring_bytes, 2 * most)
        self.cursors: dict[Client, Cursor] = {}
        self.state: State | None = None  # what a state channel said last
        self.first: tuple[list[bytes], int] | None = None  # an event channel's last first message, framed
        self.published_ns = 0
        self._floor = 0  # no cursor is before it

    def publish(self, payload: bytes, height: int) -> None:
        """Add one message. Raises rings.TooLarge."""
        ring = self.ring
        if not self.is_state and ring.overruns(len(payload), self._floor):
            self._floor = min((cursor.position for cursor in self.cursors.values()), default=ring.head)
            if ring.overruns(len(payload), self._floor):
                ring.grow(len(payload), max(self._floor, ring.head - self.lag_bytes_max))
        ring.push(payload, height)

    def keep_first(self, first: First) -> None:
        """Frame a first message, for all who begin until it is too old."""
        self.first = rings.fragments(first.parts), first.height

    def reusable_first(self) -> tuple[list[bytes], int] | None:
        """The last first message, if the ring still has all that came after it, and that is less."""
        if self.first is None or self.ring.dropped_height > self.first[1]:
            return None
        since = self.ring.head - self.ring.after(self.first[1])
        return self.first if since <= sum(map(len, self.first[0])) // 2 else None


class Client:
    """One connection: what is said to it alone, in order, and then its streams."""

    def __init__(self, wire: Wire, fanout: "Fanout"):
        self.cursors: dict[schema.Key, Cursor] = {}
        self._wire = wire
        self._fanout = fanout
        self._direct: deque[bytes] = deque()
        self._direct_bytes = 0
        self.blocked = False  # the socket has not taken all it was given: nothing until `drained`

    def say(self, payload: bytes) -> None:
        """Send one message to this client alone. One that does not read its answers is closed."""
        if not self.blocked and not self._direct:
            self._write(rings.frame(payload))
            return
        self._direct_bytes += len(payload)
        if self._direct_bytes > self._fanout.limits.direct_bytes_max:
            self.close(errors.CLOSE_POLICY, errors.CLOSE_TOO_SLOW.format(self._direct_bytes, "answers"))
            return
        self._direct.append(rings.frame(payload))

    def say_frames(self, frames: Iterable[bytes]) -> None:
        """Send frames that are shared between clients: they are not this one's memory."""
        self._direct.extend(frames)
        if not self.blocked:
            self.pump()

    def close(self, code: int, reason: str) -> None:
        self._direct.clear()
        self.blocked = True
        self._wire.close(code, reason)

    def drained(self) -> None:
        """The socket has taken everything."""
        self.blocked = False
        self.pump()

    def pump(self) -> None:
        """Write what waits, until the socket takes no more."""
        while self._direct and not self.blocked:
            self._write(self._direct.popleft())
        if not self._direct:
            self._direct_bytes = 0
            for cursor in tuple(self.cursors.values()):
                if self.blocked:
                    break
                self.advance(cursor)

    def advance(self, cursor: Cursor) -> None:
        """Write what is new in one stream, or see how far behind this client is."""
        ring = cursor.stream.ring
        if cursor.waits or cursor.position == ring.head:
            return
        if self.blocked or self._direct:
            if not cursor.stream.is_state and ring.head - cursor.position > cursor.stream.lag_bytes_max:
                self._fall_behind(cursor)
            return
        if cursor.height >= 0:
            self._skip(cursor)
        if cursor.stream.is_state:
            cursor.position = max(cursor.position, ring.newest)
        elif cursor.position < ring.oldest:
            self._fall_behind(cursor)
            return
        most = self._fanout.limits.flush_bytes_max
        while cursor.position < ring.head and not self.blocked:
            end = ring.until(cursor.position, most)
            frames = ring.take(cursor.position, end)
            cursor.position = end
            self._write(frames)

    def _skip(self, cursor: Cursor) -> None:
        """Pass over what the first message has told."""
        ring = cursor.stream.ring
        cursor.position = max(cursor.position, ring.after(cursor.height))
        if cursor.position < ring.head:
            cursor.height = -1  # heights rise: there will be no such message any more

    def _fall_behind(self, cursor: Cursor) -> None:
        channel = cursor.stream.channel
        if channel.restarts:
            cursor.waits = True
            self._fanout.on_lapped(cursor)
            return
        lag = cursor.stream.ring.head - cursor.position
        self.close(errors.CLOSE_POLICY, errors.CLOSE_TOO_SLOW.format(lag, channel.name))

    def _write(self, frames: bytes) -> None:
        self._fanout.writes += 1
        if not self._wire.write_frames(frames):
            self.blocked = True


class Fanout:
    """All streams that somebody reads. on_lapped: begin a cursor anew, after telling its client why."""

    def __init__(self, limits: FanoutLimits, on_lapped: Callable[[Cursor], None]):
        self.limits = limits
        self.on_lapped = on_lapped
        self.writes = 0
        self.streams: dict[schema.Key, Stream] = {}
        self._dirty: dict[Stream, None] = {}  # in the order in which they had something to say

    def attach(self, client: Client, channel: Channel) -> Cursor:
        """Let a client read a channel; the stream is made when it is the first."""
        stream = self.streams.get(channel.key)
        if stream is None:
            stream = self.streams[channel.key] = Stream(channel, self.limits)
        cursor = Cursor(client, stream)
        stream.cursors[client] = client.cursors[channel.key] = cursor
        return cursor

    def detach(self, client: Client, key: schema.Key) -> Stream | None:
        """End it; return the stream if nobody reads it any more: it is dropped, and its encoding stops."""
        stream = self.streams[key]
        del stream.cursors[client], client.cursors[key]
        if stream.cursors:
            return None
        self._dirty.pop(stream, None)
        return self.streams.pop(key)

    def publish(self, stream: Stream, payload: bytes, height: int) -> None:
        """Add one message to a stream; `flush` sends it. Raises rings.TooLarge."""
        stream.publish(payload, height)
        self._dirty[stream] = None

    def flush(self) -> None:
        """Bring every client of what was published up to date, as far as its socket takes it."""
        dirty, self._dirty = self._dirty, {}
        for stream in dirty:
            for cursor in tuple(stream.cursors.values()):
                cursor.client.advance(cursor)
