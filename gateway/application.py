"""What stands behind the rim: each path and each WebSocket, led to the feed and to /info.

POST /info       an answer from the world as it is now; asked again for a moment while the engine is at work
POST /exchange   refused in the wire's form: this mode takes no orders
GET  /health     how the feed stands, for people and probes
GET  /ws         a session
"""

import asyncio
from collections.abc import Awaitable, Callable

from gateway import codec, errors
from gateway.errors import Answer, NotNow, Refusal
from gateway.fanout import Client
from gateway.feed import Feed
from gateway.http import TEXT, HttpAnswer, HttpRequest
from gateway.info import Info
from gateway.session import Session, SessionLimits
from gateway.world import World
from gateway.ws import Connection
from shm.codes import Feed as FeedState

RETRY_SECONDS = 0.002  # a block is applied in less, most of the time
RETRIES_MAX = 100
MS_NS = 1_000_000


class Application:
    """The front's application. clock_ns: CLOCK_MONOTONIC; wall_ns: since the Unix epoch."""

    paths = frozenset({("POST", "/info"), ("POST", "/exchange"), ("GET", "/health")})

    def __init__(
        self,
        feed: Feed,
        info: Info,
        limits: SessionLimits,
        clock_ns: Callable[[], int],
        wall_ns: Callable[[], int],
    ):
        self._feed = feed
        self._info = info
        self._limits = limits
        self._clock_ns = clock_ns
        self._wall_ns = wall_ns
        self._waiting: set[Session] = set()  # whose subscriptions wait for a world

    def answer(self, path: str, body: bytes, request: HttpRequest) -> HttpAnswer | Awaitable[HttpAnswer]:
        if path == "/health":
            return HttpAnswer(self._health())
        try:
            if path == "/exchange":
                codec.check_action(body)
                return HttpAnswer(codec.refused_action(errors.NO_EXCHANGE))
            return HttpAnswer(self._info.answer(body))
        except Refusal:
            return _refused(errors.BAD_BODY)
        except NotNow:
            return _refused(errors.NOT_READY) if self._info.world is None else self._ask_again(body)

    def open(self, connection: Connection) -> "Conversation":
        client = Client(connection, self._feed.fanout)
        return Conversation(client, Session(client, self._feed, self._info, self._limits), self)

    def adopt(self, world: World) -> None:
        """There is a new world."""
        self._info.world = world
        self._feed.adopt(world, self._clock_ns())
        self.retry()

    def retry(self) -> None:
        """Answer the subscriptions that wait, as far as that is possible now."""
        now_ns = self._clock_ns()
        for session in tuple(self._waiting):
            session.retry(now_ns)
            self.heard(session)

    def receive(self, session: Session, message: bytes) -> None:
        session.receive(message, self._clock_ns())
        self.heard(session)

    def heard(self, session: Session) -> None:
        if session.waiting:
            self._waiting.add(session)
        else:
            self._waiting.discard(session)

    async def _ask_again(self, body: bytes) -> HttpAnswer:
        for _ in range(RETRIES_MAX):
            await asyncio.sleep(RETRY_SECONDS)
            try:
                return HttpAnswer(self._info.answer(body))
            except NotNow:
                pass
        return _refused(errors.BUSY)

    def _health(self) -> bytes:
        world = self._info.world
        if world is None:
            return codec.encode({"state": "starting", "height": None, "lagMs": None, "staleMarkets": None})
        look = world.look()
        state = "stale" if self._feed.engine_gone else FeedState(look.state).name.lower()
        lag_ms = (self._wall_ns() - look.time_ns) // MS_NS if look.time_ns else None
        return codec.encode(
            {"state": state, "height": look.height, "lagMs": lag_ms, "staleMarkets": look.stale_count}
        )


class Conversation:
    """A session and its client, as the rim calls them."""

    def __init__(self, client: Client, session: Session, application: Application):
        self._client = client
        self._session = session
        self._application = application

    def receive(self, message: bytes) -> None:
        self._application.receive(self._session, message)

    def drained(self) -> None:
        self._client.drained()

    def closed(self) -> None:
        self._session.closed()
        self._application.heard(self._session)


def _refused(answer: Answer) -> HttpAnswer:
    headers = (("retry-after", "1"),) if answer.status == errors.BUSY.status else ()
    return HttpAnswer(answer.message.encode(), answer.status, TEXT, headers)
