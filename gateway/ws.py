"""WebSocket connections: RFC 6455 kept strictly above picows, which keeps it leniently.

picows parses frames and writes CLOSE; everything it lets through is refused here: RSV bits, continuations
out of place, interleaved messages, bad UTF-8, bad close codes, floods of control frames, fragments without
end.

A trap of picows that shapes this file: it parses frame N+1 before it delivers frame N. If N+1 breaks the
protocol then CLOSE has been sent before N arrives here, and no answer to N could ever leave. So a frame
that comes after our CLOSE is dropped unread: what a client said in the same segment as garbage was never
acted on.

The only file that knows picows, and the one place that uses its private `WSProtocol`.
"""

import asyncio
import codecs
import logging
import math
from collections.abc import Callable
from typing import Protocol, cast

from picows import WSAutoPingStrategy, WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from gateway import rings
from gateway.accept import Counts
from gateway.http import Limits

TEXT, BINARY = WSMsgType.TEXT, WSMsgType.BINARY
GOING_AWAY, PROTOCOL_ERROR, BAD_TEXT, POLICY, TOO_BIG, FAULT = 1001, 1002, 1007, 1008, 1009, 1011

_REASON_BYTES_MAX = 123  # a control frame carries 125, two of them the code
_READ_BUFFER_BYTES = 2048  # picows doubles it as needed and never shrinks it
_OPCODE_AND_FIN = {TEXT: 0x81, BINARY: 0x82}
_HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: -\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
)
_LOG = logging.getLogger("picows")
_LOG.setLevel(logging.CRITICAL)  # it writes a line for each connection and each thing a client does wrong


class Conversation(Protocol):
    """What the layer above does with one connection. An exception from any of these is a fault of ours."""

    def receive(self, message: bytes) -> None:
        """One whole message; a text one is valid UTF-8."""

    def drained(self) -> None:
        """The backlog is empty again, after `write_frames` said False."""

    def closed(self) -> None:
        """The connection is gone. Called once, last."""


class _Nobody:
    """The conversation of a connection that has none: not yet, no more, or its start failed."""

    def receive(self, message: bytes) -> None: ...
    def drained(self) -> None: ...
    def closed(self) -> None: ...


_NOBODY = _Nobody()


def frame(payload: bytes, kind: WSMsgType = TEXT) -> bytes:
    """One whole message as a server's frame: unmasked, so the same bytes serve every client."""
    return rings.header(len(payload), _OPCODE_AND_FIN[kind]) + payload


class Connection(WSListener):
    """One WebSocket client: send, write, close; what it says goes to its conversation."""

    def __init__(
        self,
        open_conversation: Callable[["Connection"], Conversation],
        limits: Limits,
        counts: Counts,
        on_fault: Callable[[Exception], None],
        on_gone: Callable[["Connection"], None],
        peer: str,
    ):
        self.peer = peer  # the client's address, without its port
        self.kind = TEXT  # how the message that is being received came
        self._limits = limits
        self._counts = counts
        self._on_fault = on_fault
        self._on_gone = on_gone
        self._open_conversation = open_conversation
        self._conversation: Conversation = _NOBODY
        self._ws: WSTransport  # from on_ws_connected on, before which nobody sees the connection
        self._tcp: asyncio.Transport  # from take on
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []  # of the message that is not whole yet; never empty while there is one
        self._parts_bytes = 0
        self._decoder: codecs.IncrementalDecoder | None = None
        self._parts_deadline = math.inf
        self._heard = True  # since the last sweep
        self._heard_at = 0.0
        self._pinged = False
        self._controls = 0  # control frames in the second that began at _controls_from
        self._controls_from = 0.0
        self._abort_at = math.inf

    # what the layer above may use

    @property
    def closed(self) -> bool:
        """No frame will leave any more: we have closed, or the client is gone."""
        return self._ws.is_close_frame_sent or self._ws.is_disconnected

    @property
    def backlog_bytes(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._tcp.get_write_buffer_size()

    def send(self, payload: bytes) -> None:
        """Send one text message. A client too far behind to take it is closed; a closed one is ignored."""
        self.write_frames(frame(payload))

    def write_frames(self, frames: bytes | memoryview) -> bool:
        """Write whole frames, already encoded. False: write no more until `drained` (or it is closed).

        What the socket does not take at once is copied (unless it is bytes): the caller may reuse its memory.
        A backlog may not grow beyond `send_backlog_bytes_max`; one write onto an empty one may be larger.
        """
        if self.closed or self._is_behind(len(frames)):
            return False
        self._tcp.write(frames)
        return self._tcp.get_write_buffer_size() == 0

    def close(self, code: int, reason: str = "") -> None:
        """Send CLOSE and take no more messages; abort when the client does not close in time. Idempotent.

        The reason is cut to what a control frame holds.
        """
        if self.closed:
            return
        text = reason.encode()[:_REASON_BYTES_MAX].decode(errors="ignore")
        self._abort_at = self._loop.time() + self._limits.close_seconds
        self._parts.clear()
        self._ws.send_close(cast(WSCloseCode, code), text.encode())  # picows takes any code

    def abort(self) -> None:
        """End the connection now; what was not sent is lost."""
        self._tcp.abort()

    # what the front calls

    def take(self, transport: asyncio.Transport, key: str, rest: bytes) -> None:
        """Make `transport` this WebSocket; that the client may have one has been checked by the caller.

        picows must read a handshake, so it is given one of ours: the client's own might say `Connection:
        keep-alive, Upgrade`, as Firefox does, which picows refuses. `rest` is what came after the client's.
        Raises RuntimeError if picows did not take it.
        """
        self._tcp = transport
        protocol = _speak(self, self._limits.message_bytes_max)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        handshake = _HANDSHAKE.format(key=key).encode("ascii")
        _feed(protocol, handshake + rest)
        if protocol.listener is not self:
            raise RuntimeError("picows did not take the handshake it was given")

    # what picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._ws = transport
        self._tcp.set_write_buffer_limits(high=0, low=0)  # told as soon as it backs up, and when it is empty
        self._heard_at = self._loop.time()
        self._counts.websockets += 1
        try:
            self._conversation = self._open_conversation(self)
        except Exception as fault:
            self._fault(fault)

    def on_ws_frame(self, transport: WSTransport, incoming: WSFrame) -> None:
        self._heard = True
        kind = incoming.msg_type
        if transport.is_close_frame_sent:
            if kind == WSMsgType.CLOSE:
                transport.disconnect()
            return
        if incoming.rsv1 or incoming.rsv2 or incoming.rsv3:
            self._violation(PROTOCOL_ERROR, "reserved bits are set")
        elif kind == TEXT and incoming.fin and not self._parts:
            self._whole_text(incoming.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self._answer_close(transport, incoming.get_payload_as_bytes())
        elif kind in (WSMsgType.PING, WSMsgType.PONG):
            self._control(transport, kind, incoming)
        else:
            self._part(kind, bool(incoming.fin), incoming.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._counts.websockets -= 1
        conversation, self._conversation = self._conversation, _NOBODY
        self._on_gone(self)
        try:
            conversation.closed()
        except Exception as fault:
            self._on_fault(fault)

    def pause_writing(self) -> None:
        """Said by the return of `write_frames` already."""

    def resume_writing(self) -> None:
        if not self.closed:
            try:
                self._conversation.drained()
            except Exception as fault:
                self._fault(fault)

    # what the sweeper calls

    def sweep(self, now: float) -> None:
        """Abort what is overdue, ask the silent, give up on the gone."""
        if self.closed or self._tcp.is_closing():
            # picows may have closed it, without a deadline
            self._abort_at = min(self._abort_at, now + self._limits.close_seconds)
            if now >= self._abort_at:
                self.abort()
            return
        if self._heard:
            self._heard, self._heard_at, self._pinged = False, now, False
        silence = now - self._heard_at
        if silence >= self._limits.silence_seconds:
            self.close(GOING_AWAY, "silent for too long")
        elif silence >= self._limits.ping_seconds and not self._pinged:
            self._pinged = True
            self._ws.send_ping()
        if now >= self._parts_deadline:
            self._violation(POLICY, "a message took too long")

    # the rules

    def _whole_text(self, payload: bytes) -> None:
        if not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError:
                return self._violation(BAD_TEXT, "not UTF-8")
        self._deliver(TEXT, payload)

    def _part(self, kind: WSMsgType, final: bool, payload: bytes) -> None:
        """Take a fragment, or a whole binary message, which is its own only fragment."""
        if (kind == WSMsgType.CONTINUATION) != bool(self._parts):
            return self._violation(PROTOCOL_ERROR, "a continuation out of place")
        if not self._parts:
            self._begin(kind)
        self._parts.append(payload)
        self._parts_bytes += len(payload)
        if self._parts_bytes > self._limits.message_bytes_max:
            return self._violation(TOO_BIG, "the message is too big")
        if len(self._parts) > self._limits.fragments_max:
            return self._violation(POLICY, "too many fragments")
        if self._decoder is not None:
            try:
                self._decoder.decode(payload, final)
            except UnicodeDecodeError:
                return self._violation(BAD_TEXT, "not UTF-8")
        if final:
            message = b"".join(self._parts)
            self._parts.clear()
            self._parts_deadline = math.inf
            self._deliver(self.kind, message)

    def _begin(self, kind: WSMsgType) -> None:
        self.kind = kind
        self._parts_bytes = 0
        self._parts_deadline = self._loop.time() + self._limits.message_seconds
        self._decoder = codecs.getincrementaldecoder("utf-8")() if kind == TEXT else None

    def _deliver(self, kind: WSMsgType, message: bytes) -> None:
        self.kind = kind
        self._counts.messages += 1
        try:
            self._conversation.receive(message)
        except Exception as fault:
            self._fault(fault)

    def _control(self, transport: WSTransport, kind: WSMsgType, incoming: WSFrame) -> None:
        now = self._loop.time()
        if now - self._controls_from >= 1.0:
            self._controls_from, self._controls = now, 0
        self._controls += 1
        if self._controls > self._limits.control_frames_per_second_max:
            self._violation(POLICY, "too many control frames")
        elif kind == WSMsgType.PING and not self._is_behind(incoming.payload_size):
            transport.send_pong(incoming.get_payload_as_bytes())

    def _answer_close(self, transport: WSTransport, payload: bytes) -> None:
        """Echo the code and end. picows has refused half a code, bad UTF-8, and codes of its own list."""
        code = int.from_bytes(payload[:2], "big") if payload else 1000
        if not _may_be_received(code):
            return self._violation(PROTOCOL_ERROR, "an invalid close code")
        self.close(code)
        transport.disconnect()

    def _is_behind(self, more: int) -> bool:
        """Close a client that has not read enough to take `more` bytes. True: it was, and is closed."""
        backlog = self.backlog_bytes
        if backlog == 0 or backlog + more <= self._limits.send_backlog_bytes_max:
            return False
        self._counts.slow_clients += 1
        self.close(POLICY, "too slow")
        return True

    def _violation(self, code: int, reason: str) -> None:
        self._counts.violations += 1
        self.close(code, reason)

    def _fault(self, fault: Exception) -> None:
        self._on_fault(fault)
        self.close(FAULT)


def _may_be_received(code: int) -> bool:
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def _speak(listener: Connection, message_bytes_max: int) -> WSProtocol:
    """The protocol of picows, whose constructor is private and positional."""
    return WSProtocol(
        None,  # host_port: a client's
        None,  # ws_path: a client's
        False,  # is_client_side
        lambda _request: listener,
        _LOG,
        True,  # disconnect_on_exception
        None,  # websocket_handshake_timeout: the handshake is here already
        False,  # enable_auto_ping: the sweeper pings
        math.inf,  # auto_ping_idle_timeout
        math.inf,  # auto_ping_reply_timeout
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # enable_auto_pong: pings are counted, and their RSV bits are checked
        message_bytes_max,
        None,  # extra_headers: a client's
        _READ_BUFFER_BYTES,
    )


def _feed(protocol: WSProtocol, received: bytes) -> None:
    """Give bytes to a buffered protocol as its transport would."""
    left = memoryview(received)
    while left:
        room = protocol.get_buffer(-1)
        size = min(len(room), len(left))
        room[:size] = left[:size]
        protocol.buffer_updated(size)
        left = left[size:]
