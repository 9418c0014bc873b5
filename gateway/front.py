"""One port for HTTP and WebSocket: a connection begins as HTTP; `GET /ws` may turn it into a WebSocket.

The front knows paths and not what they mean: it reads requests, asks the application, and answers in order,
one request of a connection at a time. It owns everything it starts: its acceptor, its timer, the answers
that are awaited, the connections; `drain` lets them finish and `close` ends them.

A client is never told what went wrong inside: an exception of the application goes to `on_fault`, and the
client reads 500 `null`.
"""

import asyncio
import base64
import binascii
import math
import socket
from collections.abc import Awaitable, Callable, Collection, Set
from functools import partial
from typing import Protocol, cast

from gateway import http, ws
from gateway.accept import Acceptor, Counts, Seat, Sweeper
from gateway.http import HttpAnswer, HttpRefusal, HttpRequest, Limits, Phase, RequestReader

WS_PATH = "/ws"

_ARRIVALS_BYTES = 64 * 1024

_NULL = b"null"  # the one JSON body of an error that every client survives without keys of its own
_FAULT = HttpAnswer(_NULL, 500)
_CLOSING = HttpAnswer(_NULL, 503, headers=(("retry-after", "1"),))
_NOT_FOUND = HttpAnswer(b"not found", 404, http.TEXT)
_TOO_SLOW = HttpRefusal(408, "the request took too long")


class Application(Protocol):
    """What stands behind the front."""

    @property
    def paths(self) -> Set[tuple[str, str]]:
        """(method, path) of all that `answer` takes. GET implies HEAD; OPTIONS is answered by the front."""

    def answer(self, path: str, body: bytes, request: HttpRequest) -> HttpAnswer | Awaitable[HttpAnswer]:
        """Answer one request. What is awaited is cancelled when the client goes away; the front waits as long
        as it takes, so whoever gives an awaitable bounds it."""

    def open(self, connection: ws.Connection) -> ws.Conversation:
        """Begin a conversation with a new WebSocket client."""


class Front:
    """The rim of one gateway process. Must be made inside the running loop, which must be the only one."""

    def __init__(
        self,
        application: Application,
        on_fault: Callable[[Exception], None],
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        origins: Collection[str] | None = None,
    ):
        """`origins`: whose pages may open a WebSocket; None for all. A client that names none always may."""
        self.application = application
        self.limits = limits
        self.counts = Counts()
        self.draining = False
        self.arrivals = memoryview(bytearray(_ARRIVALS_BYTES))  # what one read brought; taken before the next
        self.loop = asyncio.get_running_loop()
        self.origins = None if origins is None else frozenset(origin.lower() for origin in origins)
        self._on_fault = on_fault
        self._methods: dict[str, set[str]] = {WS_PATH: {"GET"}}
        for method, path in application.paths:
            self._methods.setdefault(path, set()).add(method)
        self._acceptors: list[Acceptor] = []
        self._connections: set[HttpConnection | ws.Connection] = set()
        self._answers: set[asyncio.Future[HttpAnswer]] = set()  # awaited by their connections
        self._empty = asyncio.Event()
        self._empty.set()
        self._sweeper = Sweeper(self.loop, limits.sweep_seconds, self.fault)

    def serve(self, listener: socket.socket) -> Acceptor:
        """Take connections from a listening socket, which is the front's from now on."""
        acceptor = Acceptor(self.loop, listener, self._open, self.limits, self.counts, self.fault)
        self._acceptors.append(acceptor)
        return acceptor

    async def drain(self, seconds: float) -> None:
        """Take no one new, answer what is in flight, say goodbye; after `seconds` end what is left."""
        self.draining = True
        for acceptor in self._acceptors:
            await acceptor.close()
        for connection in tuple(self._connections):
            if isinstance(connection, ws.Connection):
                connection.close(ws.GOING_AWAY, "going away")
            else:
                connection.finish()
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            pass
        await self.close()

    async def close(self) -> None:
        """End everything now."""
        self.draining = True
        for acceptor in self._acceptors:
            await acceptor.close()
        for connection in tuple(self._connections):
            connection.abort()
        await self._empty.wait()
        await asyncio.gather(*self._answers, return_exceptions=True)
        self._sweeper.stop()

    def fault(self, fault: Exception) -> None:
        self.counts.faults += 1
        self._on_fault(fault)

    def answer(self, request: HttpRequest) -> "HttpAnswer | asyncio.Future[HttpAnswer]":
        """Route a request. Never raises."""
        methods = self._methods.get(request.path)
        if request.method == "OPTIONS" and (methods or request.path == "*"):
            return _preflight(methods or set())
        if methods is None:
            return _NOT_FOUND
        if ("GET" if request.method == "HEAD" else request.method) not in methods:
            allowed = ", ".join(sorted(_offered(methods)))
            return HttpAnswer(b"method not allowed", 405, http.TEXT, (("allow", allowed),))
        if request.path == WS_PATH:
            return _upgrade_required()
        try:
            answer = self.application.answer(request.path, request.body, request)
            return answer if isinstance(answer, HttpAnswer) else self._own(answer)
        except Exception as fault:
            self.fault(fault)
            return _FAULT

    def joined(self, connection: "HttpConnection | ws.Connection") -> None:
        self._connections.add(connection)
        self._empty.clear()
        self._sweeper.add(connection)

    def left(self, connection: "HttpConnection | ws.Connection") -> None:
        self._sweeper.discard(connection)
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _own(self, awaitable: Awaitable[HttpAnswer]) -> "asyncio.Future[HttpAnswer]":
        answer = asyncio.ensure_future(awaitable, loop=self.loop)
        self._answers.add(answer)
        answer.add_done_callback(self._answers.discard)
        return answer

    def _open(self, seat: Seat) -> "HttpConnection":
        return HttpConnection(self, seat)


class HttpConnection(asyncio.BufferedProtocol):
    """One client while it speaks HTTP. It reads into memory that all share: a protocol that is given bytes
    costs an allocation of 256 KiB for each read."""

    __slots__ = (
        "_front", "_seat", "_reader", "_transport", "_request", "_pending", "_waiting_for", "_deadline",
        "_ending", "_blocked", "_handed_over",
    )  # fmt: skip

    def __init__(self, front: Front, seat: Seat):
        self._front = front
        self._seat = seat
        self._reader = RequestReader(front.limits, seat.peer)
        self._transport: asyncio.Transport  # from connection_made on
        self._pending: asyncio.Future[HttpAnswer] | None = None  # the answer that is awaited
        self._waiting_for: Phase | None = Phase.HEAD  # what `_deadline` is about; None: not for the client
        self._deadline = math.inf
        self._ending = False  # our last byte is written
        self._blocked = False  # the client does not read its answers
        self._handed_over = False  # it is a WebSocket now

    # what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._front.limits.answer_backlog_bytes_max)
        self._deadline = self._front.loop.time() + self._front.limits.head_seconds
        self._front.joined(self)

    def get_buffer(self, hint: int) -> memoryview:
        return self._front.arrivals

    def buffer_updated(self, count: int) -> None:
        if self._ending:
            return  # we linger only so that the client can read our last answer
        self._reader.feed(self._front.arrivals[:count])
        self._advance()

    def eof_received(self) -> bool:
        """A client that has said its last is taken to be gone: an answer it still waits for is cancelled."""
        self._linger()
        return False

    def pause_writing(self) -> None:
        self._blocked = True
        self._deadline = self._front.loop.time() + self._front.limits.idle_seconds

    def resume_writing(self) -> None:
        self._blocked = False
        if self._ending:
            self._linger()
        else:
            self._waiting_for, self._deadline = None, math.inf
            self._front.loop.call_soon(self._advance)  # not from inside the transport's write

    def connection_lost(self, error: Exception | None) -> None:
        self._ending = True
        if self._pending is not None:
            self._pending.cancel()
        self._front.left(self)
        self._seat.leave()

    # what the front calls

    def sweep(self, now: float) -> None:
        """End what is overdue at loop time `now`: told so if it had begun to ask, else in silence."""
        if now < self._deadline:
            return
        if self._ending or self._blocked:
            self.abort()
        elif self._reader.phase is Phase.IDLE:
            self._end()
        else:
            self._refuse(_TOO_SLOW)

    def finish(self) -> None:
        """End now if nothing is in flight; else the answer in flight will be the last."""
        if self._pending is None and self._reader.phase is Phase.IDLE and not self._ending:
            self._end()

    def abort(self) -> None:
        self._transport.abort()

    # reading

    def _advance(self) -> None:
        """Answer what is complete, in order; stop where an answer, the client or more bytes are awaited."""
        while self._pending is None and not (self._ending or self._blocked or self._handed_over):
            try:
                request = self._reader.next()
            except HttpRefusal as refusal:
                return self._refuse(refusal)
            if request is None:
                self._wait()
                break
            self._take(request)
        if not self._handed_over:
            self._bound_what_waits()

    def _wait(self) -> None:
        """Set the deadline for what is missing, once for each thing that is."""
        phase, limits = self._reader.phase, self._front.limits
        if phase is self._waiting_for:
            return
        self._waiting_for = phase
        seconds = limits.head_seconds if phase is Phase.HEAD else limits.body_seconds
        if phase is Phase.IDLE:
            seconds = limits.idle_seconds
        self._deadline = self._front.loop.time() + seconds
        head = self._reader.head
        if head is not None and head.modern and b"100-continue" in head.tokens(b"expect"):
            self._transport.write(http.CONTINUE)  # it holds its body back until it hears this

    def _bound_what_waits(self) -> None:
        """Hold what a client sends ahead of its answers to about one request."""
        limits = self._front.limits
        if self._reader.buffered_bytes > limits.head_bytes_max + limits.body_bytes_max:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # answering

    def _take(self, request: HttpRequest) -> None:
        self._waiting_for, self._deadline = None, math.inf
        self._front.counts.requests += 1
        if request.path == WS_PATH and request.method == "GET" and _asks_for_websocket(request):
            return self._upgrade(request)
        answer = self._front.answer(request)
        if isinstance(answer, HttpAnswer):
            return self._answer(request, answer)
        self._pending = answer
        answer.add_done_callback(partial(self._awaited, request))

    def _awaited(self, request: HttpRequest, pending: "asyncio.Future[HttpAnswer]") -> None:
        self._pending = None
        answer = _FAULT
        if not pending.cancelled():
            fault = pending.exception()
            if isinstance(fault, Exception):
                self._front.fault(fault)
            elif fault is None:
                answer = pending.result()
        if not self._ending:
            self._answer(request, answer)
            self._advance()

    def _answer(self, request: HttpRequest, answer: HttpAnswer) -> None:
        keep_alive = request.keep_alive and not self._front.draining and answer is not _FAULT
        with_body = request.method != "HEAD"
        try:
            encoded = http.encode(answer, keep_alive=keep_alive, modern=request.modern, with_body=with_body)
        except Exception as fault:  # the application gave something that is no answer
            self._front.fault(fault)
            encoded, keep_alive = http.encode(_FAULT, keep_alive=False), False
        self._transport.write(encoded)
        if not keep_alive:
            self._end()

    def _refuse(self, refusal: HttpRefusal) -> None:
        self._front.counts.requests_refused += 1
        answer = HttpAnswer(refusal.reason.encode(), refusal.status, http.TEXT)
        self._transport.write(http.encode(answer, keep_alive=False))
        self._end()

    def _end(self) -> None:
        """Say that this was all, and read on for a while: to close with bytes unread would reset the
        connection, and the reset may overtake our last answer."""
        self._linger()
        self._transport.write_eof()
        self._transport.resume_reading()

    def _linger(self) -> None:
        """Take nothing more; give the client time to read the rest, and then to close."""
        limits = self._front.limits
        self._ending = True
        seconds = limits.idle_seconds if self._transport.get_write_buffer_size() else limits.linger_seconds
        self._deadline = self._front.loop.time() + seconds

    # upgrading

    def _upgrade(self, request: HttpRequest) -> None:
        refusal = _upgrade_refusal(request, self._front)
        if refusal is not None:
            return self._answer(request, refusal)
        front, self._handed_over = self._front, True
        connection = ws.Connection(
            open_conversation=front.application.open,
            limits=front.limits,
            counts=front.counts,
            on_fault=front.fault,
            on_gone=self._websocket_gone,
            peer=request.peer,
        )
        front.joined(connection)
        front.left(self)
        self._transport.resume_reading()
        try:
            key = request.headers[b"sec-websocket-key"].decode()
            connection.take(self._transport, key, self._reader.rest())
        except Exception as fault:
            front.fault(fault)
            self._transport.abort()
            self._websocket_gone(connection)

    def _websocket_gone(self, connection: ws.Connection) -> None:
        self._front.left(connection)
        self._seat.leave()


def _asks_for_websocket(request: HttpRequest) -> bool:
    return b"upgrade" in request.tokens(b"connection") and b"websocket" in request.tokens(b"upgrade")


def _upgrade_refusal(request: HttpRequest, front: Front) -> HttpAnswer | None:
    """Why this client may not have its WebSocket, or None if it may."""
    if front.draining:
        return _CLOSING
    if request.headers.get(b"sec-websocket-version") != b"13":
        return _upgrade_required()
    if not request.modern or request.body or not _is_key(request.headers.get(b"sec-websocket-key", b"")):
        return HttpAnswer(b"malformed WebSocket handshake", 400, http.TEXT)
    origin = request.headers.get(b"origin")
    if origin is not None and front.origins is not None:
        if origin.decode("latin-1").lower() not in front.origins:
            return HttpAnswer(b"this origin is not allowed", 403, http.TEXT)
    return None


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


def _upgrade_required() -> HttpAnswer:
    headers = (("upgrade", "websocket"), ("sec-websocket-version", "13"))
    return HttpAnswer(b"open a WebSocket here", 426, http.TEXT, headers)


def _offered(methods: set[str]) -> set[str]:
    return methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())


def _preflight(methods: set[str]) -> HttpAnswer:
    allowed = ", ".join(sorted(_offered(methods)))
    headers = (
        ("allow", allowed),
        ("access-control-allow-methods", "*"),
        ("access-control-allow-headers", "*"),
        ("access-control-max-age", "86400"),
    )
    return HttpAnswer(b"", 200, http.TEXT, headers)
