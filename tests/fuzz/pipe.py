"""One client of a front, without a socket: what it sends is fed by the piece, what it is sent is kept.

A front needs a loop, which here never runs but to start it: all that it does for one piece is done when the
piece was fed. Its application echoes.
"""

import asyncio
import socket

from gateway.front import Front
from tests.gateway import rim


class Echo(rim.Echo):
    """Echoes; what would be answered later is answered at once."""

    paths = {("POST", "/info"), ("POST", "/exchange"), ("GET", "/page")}


class Seat:
    """A place that is taken once and left once."""

    def __init__(self):
        self.peer = "127.0.0.1"
        self.is_left = False

    def leave(self):
        self.is_left = True


class Socket:
    """What picows asks of one."""

    def setsockopt(self, *option): ...

    def getsockopt(self, *option):
        return 0

    def fileno(self):
        return -1


class Transport(asyncio.Transport):
    """Takes everything at once, and remembers it."""

    def __init__(self):
        super().__init__({"socket": Socket(), "peername": ("127.0.0.1", socket.AF_INET)})
        self.protocol = None
        self.sent = bytearray()
        self.has_ended = False  # it sends no more
        self.is_paused = False

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def set_write_buffer_limits(self, high=None, low=None): ...

    def get_write_buffer_size(self):
        return 0

    def write(self, piece):
        assert not self.has_ended, "something was said after the last word"
        self.sent += piece

    def writelines(self, pieces):
        self.write(b"".join(pieces))

    def write_eof(self):
        self.has_ended = True

    def is_closing(self):
        return self.has_ended

    def close(self):
        self.has_ended = True

    abort = close

    def pause_reading(self):
        self.is_paused = True

    def resume_reading(self):
        self.is_paused = False


class Rim:
    """A front, and its loop."""

    def __init__(self):
        self.faults: list[Exception] = []
        self.application = Echo()
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._begin())

    async def _begin(self):
        self.front = Front(self.application, self.faults.append)

    def talk(self, pieces: list[bytes]) -> bytes:
        """Connect, say the pieces, go; return all that was answered."""
        return self._loop.run_until_complete(self._talk(pieces))

    async def _talk(self, pieces: list[bytes]) -> bytes:
        transport, seat = Transport(), Seat()
        transport.protocol = self.front._open(seat)
        transport.protocol.connection_made(transport)
        limits = self.front.limits
        for piece in pieces:
            left = memoryview(piece)
            while left and not transport.has_ended:
                room = transport.protocol.get_buffer(-1)
                size = min(len(room), len(left))
                room[:size] = left[:size]
                transport.protocol.buffer_updated(size)
                left = left[size:]
                reader = getattr(transport.protocol, "_reader", None)
                waits = reader.buffered_bytes if reader is not None else 0
                assert waits <= limits.head_bytes_max + limits.body_bytes_max + len(self.front.arrivals)
        transport.protocol.connection_lost(None)
        assert seat.is_left, "its place is still taken"
        assert not self.front._connections, "it is still counted"
        self.application.asked.clear()
        self.application.talks.clear()
        return bytes(transport.sent)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]
