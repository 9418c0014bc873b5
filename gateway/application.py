"""What stands behind the rim: each path and each WebSocket, led to the feed, to /info and to /exchange.

POST /info       an answer from the world as it is now; asked again for a moment while the engine is at work
POST /exchange   an action, answered when the world shows what it did; refused where a node is followed
GET  /health     how the feed stands, for people and probes
GET  /ws         a session
"""

import asyncio
from collections.abc import Awaitable, Callable

from gateway import codec, errors
from gateway.accept import network_of
from gateway.door import Door
from gateway.errors import Answer, NotNow, Refusal
from gateway.exchange import END_NS, Exchange
from gateway.fanout import Client
from gateway.feed import Feed
from gateway.http import TEXT, HttpAnswer, HttpRequest
from gateway.info import Info
from gateway.older import Elsewhere
from gateway.session import Session, SessionLimits
from gateway.world import World
from gateway.ws import Connection
from shm.codes import Feed as FeedState
from shm.codes import Mode

RETRY_SECONDS = 0.002  # a block is applied in less, most of the time
RETRIES_MAX = 100
MS_NS = 1_000_000
_LATER = (errors.BUSY.status, errors.TOO_MANY_ACTIONS.status)


class Application:
    """The front's application. clock_ns: CLOCK_MONOTONIC; wall_ns: since the Unix epoch.

    exchange: None where a node is followed.
    """

    paths = frozenset({("POST", "/info"), ("POST", "/exchange"), ("GET", "/health")})

    def __init__(
        self,
        feed: Feed,
        info: Info,
        limits: SessionLimits,
        clock_ns: Callable[[], int],
        wall_ns: Callable[[], int],
        exchange: Exchange | None = None,
    ):
        self._feed = feed
        self._exchange = exchange
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
                return self._act(body, request)
            return HttpAnswer(self._info.answer(body))
        except Refusal:
            return _refused(errors.BAD_BODY)
        except NotNow:
            return _refused(errors.NOT_READY) if self._info.world is None else self._ask_again(body)
        except Elsewhere as question:
            return self._ask_archive(question)

    def open(self, connection: Connection) -> "Conversation":
        client = Client(connection, self._feed.fanout)
        session = Session(
            client, self._feed, self._info, self._limits, self._exchange, network_of(connection.peer)
        )
        return Conversation(client, session, self)

    def adopt(self, world: World, door: Door | None = None) -> None:
        """There is a new world, and, if it is an exchange's, a way to its engine."""
        self._info.world = world
        self._feed.adopt(world, self._clock_ns())
        if self._exchange is not None and door is not None:
            self._exchange.adopt(world, door)
        self.retry()

    def lost_engine(self) -> None:
        """What the engine was told and has not answered is unknown; what it showed is old."""
        self._feed.lost_engine()
        if self._exchange is not None:
            self._exchange.lost_engine()

    @property
    def has_news(self) -> bool:
        """Whether the engine has said something that was not taken: asked before sleeping."""
        return self._feed.has_news or (self._exchange is not None and self._exchange.has_news)

    @property
    def pending(self) -> bool:
        """Whether something waits for a moment at which the world can be read."""
        return self._feed.pending

    def turn(self, now_ns: int) -> int:
        """Take what the engine has said and tell it; return how many events there were.

        An order's answer leaves after the streams that show it: the engine shows first and answers then, and
        its answers are taken before what it has shown.
        """
        if self._exchange is not None:
            self._exchange.take()
        events = self._feed.turn(now_ns)
        if events:
            self.retry()
        if self._exchange is not None:
            self._exchange.answer()
        return events

    @property
    def in_flight(self) -> bool:
        """Whether actions wait for the engine's word."""
        return self._exchange is not None and self._exchange.in_flight

    def stop(self) -> None:
        """Take no more actions."""
        if self._exchange is not None:
            self._exchange.stop()

    def give_up(self) -> None:
        """Tell all who wait for the engine that they cannot know."""
        if self._exchange is not None:
            self._exchange.tick(END_NS)

    def tick(self, now_ns: int) -> None:
        """What happens by the clock."""
        self._feed.tick(now_ns)
        self.retry()
        if self._exchange is not None:
            self._exchange.tick(now_ns)

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

    def _act(self, body: bytes, request: HttpRequest) -> HttpAnswer | Awaitable[HttpAnswer]:
        if self._exchange is None:
            codec.check_action(body)
            return HttpAnswer(codec.refused_action(errors.NO_EXCHANGE))
        answered: asyncio.Future[HttpAnswer] = asyncio.get_running_loop().create_future()

        def reply(given: bytes | Answer) -> None:
            if not answered.done():  # the client may have gone
                answered.set_result(HttpAnswer(given) if isinstance(given, bytes) else _refused(given))

        self._exchange.act(body, network_of(request.peer), None, reply)
        return answered.result() if answered.done() else answered

    def _ask_archive(self, question: Elsewhere) -> HttpAnswer | Awaitable[HttpAnswer]:
        """The rest of an answer comes from a disk."""
        answered: asyncio.Future[HttpAnswer] = asyncio.get_running_loop().create_future()

        def reply(given: bytes | None) -> None:
            if not answered.done():  # the client may have gone
                answered.set_result(_refused(errors.BUSY) if given is None else HttpAnswer(given))

        assert self._info.older is not None
        try:
            self._info.older.ask(question, reply)
        except NotNow:
            return _refused(errors.BUSY)
        return answered

    async def _ask_again(self, body: bytes) -> HttpAnswer:
        for _ in range(RETRIES_MAX):
            await asyncio.sleep(RETRY_SECONDS)
            try:
                return HttpAnswer(self._info.answer(body))
            except NotNow:
                pass
            except Elsewhere as question:
                later = self._ask_archive(question)
                return later if isinstance(later, HttpAnswer) else await later
        return _refused(errors.BUSY)

    def _health(self) -> bytes:
        world = self._info.world
        if world is None:
            return codec.encode({"state": "starting", "height": None, "lagMs": None, "staleMarkets": None})
        look = world.look()
        state = "stale" if self._feed.engine_gone else FeedState(look.state).name.lower()
        # An exchange makes no block while nobody asks for anything: it is not late then.
        seen_ns = look.applied_ns if look.mode == Mode.EXCHANGE else self._wall_ns()
        lag_ms = (seen_ns - look.time_ns) // MS_NS if look.time_ns else None
        told = {"state": state, "height": look.height, "lagMs": lag_ms, "staleMarkets": look.stale_count}
        if self._exchange is not None:
            told["durability"] = self._exchange.durability
        return codec.encode(told)


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
    headers = (("retry-after", "1"),) if answer.status in _LATER else ()
    return HttpAnswer(answer.message.encode(), answer.status, TEXT, headers)
