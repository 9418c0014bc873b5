"""A front on a thread of its own with a plain application behind it, and clients that can misbehave.

The clients are blocking sockets that send any bytes in any pieces, because a proper client library would not
let a test break the rules.
"""

import asyncio
import base64
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, NamedTuple

import uvloop

from gateway import ws
from gateway.front import Front
from gateway.http import HttpAnswer, Limits

PATIENCE = 10.0  # seconds that a test waits for what must come
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x37\xfa\x21\x3d"


class Echo:
    """Answers with what it was sent. Everything it saw is in lists that only its loop writes."""

    paths = {
        ("POST", "/info"),
        ("POST", "/exchange"),
        ("POST", "/later"),
        ("POST", "/fault"),
        ("GET", "/page"),
    }

    def __init__(self):
        self.asked = []  # (path, body)
        self.waiting = []  # futures of the answers to /later, in order
        self.talks = []

    def answer(self, path, body, request):
        self.asked.append((path, body))
        if path == "/fault":
            raise RuntimeError("secret")
        if path == "/later":
            self.waiting.append(asyncio.get_running_loop().create_future())
            return self._later(body, self.waiting[-1])
        if path == "/exchange":
            return HttpAnswer(b"cannot read it", 422, "text/plain")
        return HttpAnswer(body or b'{"page":1}')

    def open(self, connection):
        self.talks.append(Talk(connection))
        return self.talks[-1]

    @staticmethod
    async def _later(body, future):
        await future
        return HttpAnswer(body)


class Talk:
    """One WebSocket conversation: echoes, and raises when it is told to."""

    def __init__(self, connection):
        self.connection = connection
        self.received = []
        self.drained_count = 0
        self.closed_count = 0

    def receive(self, message):
        self.received.append(message)
        if message == b"raise":
            raise RuntimeError("secret")
        kind = self.connection.kind
        self.connection.write_frames(ws.frame(message, kind))

    def drained(self):
        self.drained_count += 1

    def closed(self):
        self.closed_count += 1


class Served(NamedTuple):
    """A running front, and how to reach it from the test's thread."""

    port: int
    front: Front
    application: Echo
    faults: list[Exception]
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[[], Any]) -> Any:
        """Run `function` on the front's loop; return what it returns (awaited, if it is a coroutine)."""
        done: Future[Any] = Future()

        async def run():
            try:
                result = function()
                done.set_result(await result if asyncio.iscoroutine(result) else result)
            except BaseException as error:
                done.set_exception(error)

        asyncio.run_coroutine_threadsafe(run(), self.loop)
        return done.result(PATIENCE)

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds()`, asked on the front's loop, is true; fail when it does not become so."""

        async def poll():
            for _ in range(int(PATIENCE / 0.005)):
                if holds():
                    return True
                await asyncio.sleep(0.005)
            return False

        assert self.call(poll), "waited in vain"


@contextmanager
def serving(application=None, origins=None, **limits: Any) -> Iterator[Served]:
    """A front with `limits` other than the defaults; time is looked at every 10 ms."""
    application = application or Echo()
    faults: list[Exception] = []
    ready: Future[Served] = Future()
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    bounds = Limits(**{"sweep_seconds": 0.01, **limits})

    async def main():
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        front = Front(application, faults.append, bounds, origins)
        front.serve(listener)
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        ready.set_result(Served(listener.getsockname()[1], front, application, faults, loop))
        await stop.wait()
        await front.close()

    stops: list[Callable[[], object]] = []
    # A daemon, because a front that does not close must fail its test, not hang the suite.
    thread = threading.Thread(target=uvloop.run, args=(main(),), daemon=True)
    thread.start()
    served = ready.result(PATIENCE)
    try:
        yield served
    finally:
        stops[0]()
        thread.join(PATIENCE)
    assert not thread.is_alive()
    assert served.front.counts.open == 0, "a seat was not left"
    assert served.front._acceptors[0]._seats == {}, "an address is still counted"


class Client:
    """A blocking socket with a reader for HTTP answers and WebSocket frames."""

    def __init__(self, port: int, receive_bytes: int | None = None):
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self.unread = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def more(self) -> bool:
        """Read some bytes; False at the end of the stream. A reset is an error: it may cost an answer."""
        chunk = self.socket.recv(1 << 20)
        self.unread += chunk
        return bool(chunk)

    def exactly(self, count: int) -> bytes:
        while len(self.unread) < count:
            assert self.more(), f"the stream ended within {count} bytes: {self.unread!r}"
        taken, self.unread = self.unread[:count], self.unread[count:]
        return taken

    def to_the_end(self) -> bytes:
        while self.more():
            pass
        taken, self.unread = self.unread, b""
        return taken

    # HTTP

    def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers of the next answer."""
        while b"\r\n\r\n" not in self.unread:
            assert self.more(), f"no answer: {self.unread!r}"
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        assert first.startswith("HTTP/1.1 "), f"bytes before an answer: {first}"
        return int(first.split(" ")[1]), dict(line.lower().split(": ", 1) for line in lines)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = self.head()
        return status, headers, self.exactly(int(headers["content-length"]))

    def post(self, body: bytes = b"{}", path: str = "/info", **headers: str) -> tuple[int, bytes]:
        self.send(request("POST", path, body, **headers))
        status, _, answered = self.answer()
        return status, answered

    # WebSocket

    def upgrade(self, **headers: str) -> tuple[int, dict[str, str]]:
        self.send(handshake(**headers))
        return self.head()

    def websocket(self) -> "Client":
        status, headers = self.upgrade()
        assert status == 101
        key = KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        assert (
            headers["sec-websocket-accept"] == base64.b64encode(hashlib.sha1(key).digest()).decode().lower()
        )
        return self

    def frame(self) -> tuple[int, bytes]:
        """The opcode and the payload of the next frame, which must be whole and unmasked."""
        first, second = self.exactly(2)
        assert first & 0x70 == 0 and second & 0x80 == 0
        assert first & 0x80, "a server's message is one frame"
        length = second
        if second == 126:
            (length,) = struct.unpack("!H", self.exactly(2))
        elif second == 127:
            (length,) = struct.unpack("!Q", self.exactly(8))
        return first & 0x0F, self.exactly(length)

    def said_close(self) -> tuple[int, bytes]:
        """Read to the CLOSE, answer it, and see the stream end. Return its code and reason."""
        opcode, payload = self.frame()
        while opcode != CLOSE:
            opcode, payload = self.frame()
        try:
            self.send(client_frame(CLOSE, payload[:2]))
            assert self.to_the_end() == b""
        except (BrokenPipeError, ConnectionResetError):
            pass  # it did not wait for our answer
        return int.from_bytes(payload[:2], "big"), payload[2:]


KEY = base64.b64encode(os.urandom(16))


def request(method: str, path: str, body: bytes = b"", version: str = "HTTP/1.1", **headers: str) -> bytes:
    lines = {"host": "test", "content-length": str(len(body))}
    lines |= {name.replace("_", "-"): text for name, text in headers.items()}
    head = "".join(f"{name}: {text}\r\n" for name, text in lines.items())
    return f"{method} {path} {version}\r\n{head}\r\n".encode() + body


def handshake(**headers: str) -> bytes:
    lines = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec_websocket_version": "13",
        "sec_websocket_key": KEY.decode(),
    }
    return request("GET", "/ws", **(lines | headers))


def client_frame(
    opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    """A frame as a client must send it, or as it must not."""
    first, mask_bit = (0x80 if fin else 0) | rsv << 4 | opcode, 0x80 if masked else 0
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", first, mask_bit | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    if not masked:
        return head + payload
    masks = MASK * (length // 4 + 1)
    return head + MASK + bytes(byte ^ mask for byte, mask in zip(payload, masks, strict=False))
