"""HTTP/1.1 as this gateway speaks it, without a socket: bytes to requests, answers to bytes.

The reader cuts a head out of the stream by itself and gives httptools one whole head at a time, so that the
size of a head is bounded (httptools bounds nothing), a request never depends on how TCP cut it, and a body
can only have the length that was read from that head. What two servers might read differently is refused,
not repaired: bare LF, folded lines, two lengths, a length and a transfer coding. A chunked body is refused
(411): no client of this wire sends one, and a second way to say a length is a second way to be wrong about
it.

`Limits` is every bound that the rim holds a client to, of HTTP and of WebSocket.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import httptools

JSON = "application/json"
TEXT = "text/plain"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_ON_EVERY_ANSWER = (  # what the public API sends on every reply, whatever it says
    b"access-control-allow-origin: *\r\naccess-control-expose-headers: *\r\n"
    b"vary: origin, access-control-request-method, access-control-request-headers\r\n"
)
_FIRST_LINE_ENDS = (b" HTTP/1.1\r\n", b" HTTP/1.0\r\n")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may use. Seconds are floats and are kept to within `sweep_seconds`."""

    connections_max: int = 10_000
    connections_per_address_max: int = 100  # per IPv4 address, per IPv6 /64
    accept_retry_seconds: float = 0.25  # the pause when the process is out of file descriptors
    unacknowledged_seconds: float = 30.0  # sent bytes the peer's kernel never confirms (TCP_USER_TIMEOUT)
    sweep_seconds: float = 0.5

    head_bytes_max: int = 16 * 1024
    header_count_max: int = 100
    body_bytes_max: int = 64 * 1024
    head_seconds: float = 5.0  # from the first byte of a head; on a new connection, from the connection
    body_seconds: float = 10.0  # from the end of the head
    idle_seconds: float = 60.0  # between two requests, and for a client that does not read its answer
    linger_seconds: float = 2.0  # after our last byte, until the client closes too
    answer_backlog_bytes_max: int = 64 * 1024  # unread answers, beyond which no request is taken

    message_bytes_max: int = 64 * 1024
    fragments_max: int = 64  # frames of one message
    message_seconds: float = 10.0  # from the first fragment to the last
    control_frames_per_second_max: int = 10
    ping_seconds: float = 25.0  # of silence, then we ask
    silence_seconds: float = 60.0  # then the client is gone
    close_seconds: float = 2.0  # from our CLOSE to the client's, then the connection is aborted
    send_backlog_bytes_max: int = 1024 * 1024


class HttpRefusal(Exception):
    """The bytes are no request that we take. After it the stream cannot be read on: answer and close."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status
        self.reason = reason  # ours, never the client's words


@dataclass(slots=True)
class HttpRequest:
    """One whole request. Header names are lower case; equal names are joined by `, ` in order."""

    method: str
    path: str  # without the query, not unquoted
    query: str  # without the question mark
    headers: Mapping[bytes, bytes]
    keep_alive: bool
    modern: bool  # HTTP/1.1, not 1.0
    peer: str  # the client's address, without its port
    body: bytes = b""

    def tokens(self, name: bytes) -> set[bytes]:
        """The lower-case tokens of a header that is a comma-separated list; empty where it is absent."""
        return {token.strip().lower() for token in self.headers.get(name, b"").split(b",")}


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What to send back. `headers` come besides those on every answer; names in lower case, no CR or LF."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


def encode(answer: HttpAnswer, *, keep_alive: bool, modern: bool = True, with_body: bool = True) -> bytes:
    """The bytes of `answer`. Without its body (HEAD) it still says the body's length."""
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
        f"content-type: {answer.content_type}",
        f"content-length: {len(answer.body)}",
    ]
    if not keep_alive:
        lines.append("connection: close")
    elif not modern:
        lines.append("connection: keep-alive")
    lines.extend(f"{name}: {text}" for name, text in answer.headers)
    head = "\r\n".join(lines).encode("ascii")
    return b"%b\r\n%b\r\n%b" % (head, _ON_EVERY_ANSWER, answer.body if with_body else b"")


class Phase(enum.Enum):
    IDLE = enum.auto()  # between requests, not a byte of the next
    HEAD = enum.auto()
    BODY = enum.auto()


class RequestReader:
    """Feed it bytes, ask it for the next request. It holds at most what it was fed and not yet asked for."""

    __slots__ = ("_limits", "_buffer", "_peer", "_request", "_body_bytes", "_scanned")

    def __init__(self, limits: Limits, peer: str):
        self._limits = limits
        self._peer = peer
        self._buffer = bytearray()
        self._request: HttpRequest | None = None  # its head is read, its body is not
        self._body_bytes = 0
        self._scanned = 0  # no head ends before this place

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer)

    @property
    def phase(self) -> Phase:
        if self._request is not None:
            return Phase.BODY
        return Phase.HEAD if self._buffer else Phase.IDLE

    @property
    def head(self) -> HttpRequest | None:
        """The request whose body has not arrived yet."""
        return self._request

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take a copy of bytes that have arrived."""
        self._buffer += chunk

    def rest(self) -> bytes:
        """Give away what follows the last request: after an upgrade it is not HTTP."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def next(self) -> HttpRequest | None:
        """The next whole request, or None until more bytes have come. Raises HttpRefusal."""
        if self._request is None:
            self._read_head()
        request, length = self._request, self._body_bytes
        if request is None or len(self._buffer) < length:
            return None
        if length:
            request.body = bytes(self._buffer[:length])
            del self._buffer[:length]
        self._request = None
        return request

    def _read_head(self) -> None:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # some clients end a body with one line end too many
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", self._scanned)
        size = end + 4 if end >= 0 else len(buffer)
        if size > self._limits.head_bytes_max:
            raise HttpRefusal(431, "the request head is too large")
        if end < 0:
            self._check_first_line()
            self._scanned = max(0, len(buffer) - 3)
            return
        self._scanned = 0
        self._request, self._body_bytes = _parse(bytes(buffer[:size]), self._limits, self._peer)
        del buffer[:size]

    def _check_first_line(self) -> None:
        """Refuse early what can never become a head, as HTTP/0.9 cannot."""
        line_end = self._buffer.find(b"\n")
        if line_end >= 0 and not self._buffer.endswith(_FIRST_LINE_ENDS, 0, line_end + 1):
            raise HttpRefusal(400, "not an HTTP/1.1 request")


class _Head:
    """What httptools tells about one head."""

    __slots__ = ("target", "pairs", "complete")

    def __init__(self) -> None:
        self.target = b""
        self.pairs: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, text: bytes) -> None:
        self.pairs.append((name.lower(), text.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def _parse(raw: bytes, limits: Limits, peer: str) -> tuple[HttpRequest, int]:
    """Return the request of the head `raw` and the bytes of its body. Raises HttpRefusal."""
    lines = raw.count(b"\r\n")
    if raw.count(b"\n") != lines or raw.count(b"\r") != lines:  # llhttp skips them before the first line
        raise HttpRefusal(400, "a line must end with CR LF")
    head = _Head()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # whether we upgrade is decided by the path; any other offer is ignored, as HTTP allows
    except httptools.HttpParserError:
        raise HttpRefusal(400, "malformed request") from None
    version = parser.get_http_version()
    if not head.complete or version not in ("1.1", "1.0"):
        raise HttpRefusal(400, "not an HTTP/1.1 request")  # llhttp lets HTTP/0.9 and 2.0 through
    if len(head.pairs) > limits.header_count_max:
        raise HttpRefusal(431, "too many headers")
    modern = version == "1.1"
    headers = _joined(head.pairs, modern)
    path, query = _split(head.target)
    request = HttpRequest(parser.get_method().decode("ascii"), path, query, headers, False, modern, peer)
    connection = request.tokens(b"connection")
    request.keep_alive = b"close" not in connection and (modern or b"keep-alive" in connection)
    return request, _body_bytes(headers, limits.body_bytes_max)


def _joined(pairs: list[tuple[bytes, bytes]], modern: bool) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for name, text in pairs:
        if name not in headers:
            headers[name] = text
        elif name in (b"host", b"content-length", b"transfer-encoding"):
            raise HttpRefusal(400, "a header that must stand alone is repeated")
        else:
            headers[name] += b", " + text
    if modern and b"host" not in headers:
        raise HttpRefusal(400, "the Host header is missing")
    return headers


def _split(target: bytes) -> tuple[str, str]:
    """Path and query of a request target, which may name the authority as well (what a proxy is sent)."""
    if target[:7].lower() == b"http://":
        _, slash, rest = target[7:].partition(b"/")
        target = b"/" + rest
    if not (target.startswith(b"/") or target == b"*"):
        raise HttpRefusal(400, "malformed request target")
    path, _, query = target.decode("latin-1").partition("?")
    return path, query


def _body_bytes(headers: dict[bytes, bytes], most: int) -> int:
    length = headers.get(b"content-length")
    if b"transfer-encoding" in headers:
        if length is not None:
            raise HttpRefusal(400, "two lengths for one body")
        raise HttpRefusal(411, "send the body with a Content-Length")
    if length is None:
        return 0
    if not length.isdigit():
        raise HttpRefusal(400, "malformed Content-Length")
    if len(length) > 19 or int(length) > most:
        raise HttpRefusal(413, "the request body is too large")
    return int(length)
