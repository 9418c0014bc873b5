"""Who may be connected, how many at once, and how long a silence may last.

The acceptor takes connections from a listening socket by itself, because neither library does it safely:
aiofastnet's own accept loop spins when the process runs out of file descriptors, and uvloop's transports
corrupt long WebSocket frames. A connection beyond a cap is told so in HTTP and closed. The sweeper is the
one timer of the process: it asks every connection, in turn, whether it is late.
"""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import aiofastnet

from gateway import http
from gateway.http import HttpAnswer, Limits

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_ACCEPTS_PER_TURN_MAX = 64  # then the connections that are open get their turn
_SWEEPS_PER_ROUND = 16  # so that a sweep of ten thousand connections is sixteen short pauses, not a long one
_FULL = http.encode(HttpAnswer(b"null", 503, headers=(("retry-after", "1"),)), keep_alive=False)


@dataclass(slots=True)
class Counts:
    """What the rim has seen since it started. Only the loop's thread writes; anyone may read."""

    open: int = 0  # connections now
    accepted: int = 0
    accept_failures: int = 0
    refused_full: int = 0
    refused_address: int = 0
    requests: int = 0
    requests_refused: int = 0  # malformed, too large, too slow
    websockets: int = 0  # open now
    messages: int = 0
    violations: int = 0  # WebSocket rules broken by clients
    slow_clients: int = 0  # closed because they did not read
    faults: int = 0  # ours


class Watched(Protocol):
    def sweep(self, now: float) -> None:
        """Act if something is overdue at loop time `now`."""


class Sweeper:
    """Ask everything watched, once in `seconds`, whether it is late: one timer, whatever their number."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, on_fault: Callable[[Exception], None]
    ):
        self._loop = loop
        self._pause = seconds / _SWEEPS_PER_ROUND
        self._on_fault = on_fault
        self._watched: set[Watched] = set()
        self._round: list[Watched] = []  # who is still to be asked in this round
        self._share = 0  # how many to ask at a time
        self._timer: asyncio.TimerHandle | None = loop.call_later(self._pause, self._sweep)

    def add(self, watched: Watched) -> None:
        self._watched.add(watched)

    def discard(self, watched: Watched) -> None:
        self._watched.discard(watched)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        self._timer = self._loop.call_later(self._pause, self._sweep)
        if not self._round:
            self._round = list(self._watched)
            self._share = -(-len(self._round) // _SWEEPS_PER_ROUND)
        now = self._loop.time()
        for _ in range(min(self._share, len(self._round))):
            watched = self._round.pop()
            if watched not in self._watched:
                continue  # it ended since the round began
            try:
                watched.sweep(now)
            except Exception as fault:  # one bad connection must not stop the clock of the others
                self._on_fault(fault)


class Seat:
    """The place of one connection under the caps. Whoever owns the connection leaves it at the end."""

    __slots__ = ("peer", "_network", "_acceptor")

    def __init__(self, acceptor: "Acceptor", peer: str, network: str):
        self.peer = peer  # the address without the port
        self._network = network
        self._acceptor: Acceptor | None = acceptor

    def leave(self) -> None:
        """Give the place back. Further calls do nothing."""
        if self._acceptor is not None:
            self._acceptor.vacate(self._network)
            self._acceptor = None


def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, an IPv6 /64, anything else as it is written."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))


class Acceptor:
    """Take connections from `listener`, a TCP socket, until closed. `open_protocol(seat)` makes the protocol
    of each.

    The listener is non-blocking from here on and closed by `close`. Must be made inside its running loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        open_protocol: Callable[[Seat], asyncio.BaseProtocol],
        limits: Limits,
        counts: Counts,
        on_fault: Callable[[Exception], None],
    ):
        self._loop = loop
        self._listener = listener
        self._open_protocol = open_protocol
        self._limits = limits
        self._counts = counts
        self._on_fault = on_fault
        self._seats: dict[str, int] = {}  # connections by network
        self._greetings: set[asyncio.Task[None]] = set()  # sockets that do not have their transport yet
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False
        listener.setblocking(False)
        self.resume()

    def pause(self) -> None:
        """Take no connection until `resume`; the kernel queues them meanwhile."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if not self._closed:
            self._loop.remove_reader(self._listener.fileno())

    def resume(self) -> None:
        self._retry = None
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._accept_some)

    async def close(self) -> None:
        """Take no more connections, close the listener, end the half-made ones. Open ones stay open."""
        if self._closed:
            return
        self.pause()
        self._closed = True
        self._listener.close()
        for greeting in self._greetings:
            greeting.cancel()
        await asyncio.gather(*self._greetings, return_exceptions=True)

    def vacate(self, network: str) -> None:
        self._counts.open -= 1
        left = self._seats[network] - 1
        if left:
            self._seats[network] = left
        else:
            del self._seats[network]

    def _accept_some(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN_MAX):
            try:
                accepted, address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._counts.accept_failures += 1
                if error.errno in _OUT_OF_RESOURCES:
                    self._rest()
                    return
                continue  # this one connection is broken (aborted, unreachable): the next may be whole
            accepted.setblocking(False)
            self._admit(accepted, address[0])

    def _rest(self) -> None:
        """Do not look at the listener for a while: it stays readable, and every look would fail again."""
        self.pause()
        self._retry = self._loop.call_later(self._limits.accept_retry_seconds, self.resume)

    def _admit(self, accepted: socket.socket, peer: str) -> None:
        network, counts, limits = network_of(peer), self._counts, self._limits
        if counts.open >= limits.connections_max:
            counts.refused_full += 1
            return _turn_away(accepted)
        if self._seats.get(network, 0) >= limits.connections_per_address_max:
            counts.refused_address += 1
            return _turn_away(accepted)
        counts.open += 1
        counts.accepted += 1
        self._seats[network] = self._seats.get(network, 0) + 1
        greeting = self._loop.create_task(self._greet(accepted, Seat(self, peer, network)))
        self._greetings.add(greeting)  # the loop itself holds its tasks only weakly
        greeting.add_done_callback(self._greetings.discard)

    async def _greet(self, accepted: socket.socket, seat: Seat) -> None:
        try:
            milliseconds = int(self._limits.unacknowledged_seconds * 1000)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
            await aiofastnet.connect_accepted_socket(self._loop, lambda: self._open_protocol(seat), accepted)
        except BaseException as error:
            seat.leave()
            accepted.close()
            if isinstance(error, Exception) and not isinstance(error, OSError):
                self._on_fault(error)
            elif not isinstance(error, Exception):
                raise


def _turn_away(accepted: socket.socket) -> None:
    """Say 503 as well as one send can, without waiting for the request that may be on its way."""
    with accepted:
        try:
            accepted.send(_FULL)
            accepted.shutdown(socket.SHUT_WR)
            accepted.recv(64 * 1024)  # what is unread at close turns into a reset, which may overtake the 503
        except OSError:
            pass  # gone already, or nothing to read yet
