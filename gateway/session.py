"""One client's conversation, without its connection.

Whole messages come in through `receive`; what the session decides goes out through the client it was given
and those it asks. It never waits and knows no socket and no clock, so a test is three lines. Whatever a
message holds, there is one answer, and the session lives on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway import codec, errors, schema
from gateway.errors import Answer, Refusal
from gateway.exchange import Login, Reply
from gateway.fanout import Client

MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Of one connection."""

    subscriptions_max: int = 1000
    users_max: int = 15
    messages_per_minute_max: int = 2000  # without the actions that reach the engine (ExchangeLimits)
    posts_max: int = 100  # in flight


class Desk(Protocol):
    """What a session asks for: streams (gateway.feed.Feed) and answers (gateway.info.Info)."""

    def admits(self, subscription: schema.Subscription) -> bool | None: ...
    def subscribe(self, client: Client, subscription: schema.Subscription, now_ns: int) -> None: ...
    def unsubscribe(self, client: Client, key: schema.Key) -> None: ...
    def leave(self, client: Client) -> None: ...


class Answers(Protocol):
    def post(self, body: bytes, reply: Callable[[str, bytes], None]) -> None:
        """Answer an info request over WebSocket, now or later: the kind (info, error) and the payload."""


class Orders(Protocol):
    """Order entry (gateway.exchange.Exchange). `network`: for whom an action is counted."""

    def act(self, body: bytes, network: str, login: Login | None, reply: Reply) -> None: ...
    def log_in(self, body: bytes, network: str, begin: Callable[[Login], None], reply: Reply) -> None: ...
    def left(self, login: Login) -> None: ...


class Session:
    """orders: None where there are none to be taken."""

    def __init__(
        self,
        client: Client,
        desk: Desk,
        answers: Answers,
        limits: SessionLimits,
        orders: Orders | None = None,
        network: str = "",
    ):
        self._client = client
        self._desk = desk
        self._answers = answers
        self._limits = limits
        self._orders = orders
        self._network = network
        self._login: Login | None = None
        self._posts = 0  # in flight
        self._has_ended = False
        self._users: dict[str, int] = {}  # distinct users -> subscriptions that name them
        self._waiting: dict[schema.Key, tuple[schema.Subscription, bytes]] = {}  # until there is a world
        self._minute_ns = 0  # when the minute began that is being counted
        self._messages = 0  # in it

    @property
    def waiting(self) -> bool:
        """Whether a subscription could not be answered yet."""
        return bool(self._waiting)

    def receive(self, message: bytes, now_ns: int) -> None:
        """Act on one message."""
        if self._too_many(now_ns):
            text = errors.TOO_MANY_MESSAGES.format(self._limits.messages_per_minute_max)
            self._client.say(codec.error(text))
            self._client.close(errors.CLOSE_POLICY, text)
            return
        try:
            self._act(codec.decode(message), message, now_ns)
        except Refusal as refusal:
            self._client.say(codec.error(str(refusal)))

    def retry(self, now_ns: int) -> None:
        """Something has changed: answer what waits, if it can be answered."""
        for key, (subscription, echoed) in tuple(self._waiting.items()):
            del self._waiting[key]
            try:
                self._begin(subscription, echoed, now_ns)
            except Refusal as refusal:
                self._forget_user(key)
                self._client.say(codec.error(str(refusal)))

    def closed(self) -> None:
        """The client is gone."""
        self._has_ended = True
        self._waiting.clear()
        self._desk.leave(self._client)
        if self._login is not None and self._orders is not None:
            self._orders.left(self._login)

    def _too_many(self, now_ns: int) -> bool:
        if now_ns - self._minute_ns >= MINUTE_NS:
            self._minute_ns, self._messages = now_ns, 0
        self._messages += 1
        return self._messages > self._limits.messages_per_minute_max

    def _act(self, request: schema.Request, message: bytes, now_ns: int) -> None:
        if isinstance(request, schema.Ping):
            self._client.say(codec.PONG)
        elif isinstance(request, schema.Post):
            self._post(request)
        elif isinstance(request, schema.LoginRequest):
            self._log_in(request)
        else:
            raw = bytes(request.subscription)
            subscription = codec.decode_subscription(message, raw)
            if isinstance(request, schema.Subscribe):
                self._subscribe(subscription, codec.echo(subscription, raw), now_ns)
            else:
                self._unsubscribe(subscription.key, codec.echo(subscription, raw))

    def _post(self, post: schema.Post) -> None:
        payload = bytes(post.request.payload)
        if isinstance(post.request, schema.PostInfo):
            self._posts += 1  # until it is answered, which is at once, unless a disk is asked
            self._answers.post(payload, partial(self._informed, post.id))
        elif self._orders is None:
            refused = codec.refused_action(errors.NO_EXCHANGE)
            self._client.say(codec.post_answer(post.id, "action", refused))
        else:
            posts = self._posts
            self._count_post(post.id)
            self._orders.act(payload, self._network, self._login, partial(self._posted, post.id))
            if self._posts > posts:  # the engine has it: it counts among the actions of its network
                self._messages -= 1

    def _log_in(self, request: schema.LoginRequest) -> None:
        if self._orders is None:
            self._client.say(codec.login_answer(request.id, codec.refused_action(errors.NO_EXCHANGE)))
        else:
            self._count_post(request.id)
            answered = partial(self._logged_in, request.id)
            self._orders.log_in(bytes(request.request), self._network, self._begin_login, answered)

    def _count_post(self, id: int) -> None:
        if self._posts >= self._limits.posts_max:
            raise Refusal(errors.TOO_MANY_POSTS.format(id))
        self._posts += 1

    def _informed(self, id: int, kind: str, payload: bytes) -> None:
        self._posts -= 1
        if not self._has_ended:
            self._client.say(codec.post_answer(id, kind, payload))

    def _posted(self, id: int, given: bytes | Answer) -> None:
        self._posts -= 1
        if not self._has_ended:
            if isinstance(given, bytes):
                self._client.say(codec.post_answer(id, "action", given))
            else:
                self._client.say(codec.post_answer(id, "error", codec.encode(codec.http_text(given))))

    def _logged_in(self, id: int, given: bytes | Answer) -> None:
        self._posts -= 1
        if not self._has_ended:
            payload = given if isinstance(given, bytes) else codec.refused_action(codec.http_text(given))
            self._client.say(codec.login_answer(id, payload))

    def _begin_login(self, login: Login) -> None:
        """From now on, unless the connection has ended meanwhile: then nothing was done in it."""
        if self._has_ended or self._orders is None:
            return
        held, self._login = self._login, login
        if held is not None and held.signer == login.signer:
            login.vaults |= held.vaults
        elif held is not None:
            self._orders.left(held)

    def _subscribe(self, subscription: schema.Subscription, echoed: bytes, now_ns: int) -> None:
        key = subscription.key
        held = len(self._client.cursors) + len(self._waiting)
        if key in self._client.cursors or key in self._waiting:
            raise Refusal(errors.already_subscribed(echoed))
        if held >= self._limits.subscriptions_max:
            raise Refusal(errors.TOO_MANY_SUBSCRIPTIONS.format(self._limits.subscriptions_max))
        user = _user(key)
        if user and user not in self._users and len(self._users) >= self._limits.users_max:
            raise Refusal(errors.TOO_MANY_USERS.format(self._limits.users_max))
        self._begin(subscription, echoed, now_ns)
        if user:
            self._users[user] = self._users.get(user, 0) + 1

    def _begin(self, subscription: schema.Subscription, echoed: bytes, now_ns: int) -> None:
        """Acknowledge and begin, refuse, or let it wait for a world."""
        admitted = self._desk.admits(subscription)
        if admitted is None:
            self._waiting[subscription.key] = subscription, echoed
        elif admitted:
            self._client.say(codec.acknowledgement("subscribe", echoed))
            self._desk.subscribe(self._client, subscription, now_ns)
        else:
            raise Refusal(errors.invalid_subscription(echoed))

    def _unsubscribe(self, key: schema.Key, echoed: bytes) -> None:
        if key in self._client.cursors:
            self._desk.unsubscribe(self._client, key)
        elif self._waiting.pop(key, None) is None:
            raise Refusal(errors.already_unsubscribed(echoed))
        self._forget_user(key)
        self._client.say(codec.acknowledgement("unsubscribe", echoed))

    def _forget_user(self, key: schema.Key) -> None:
        user = _user(key)
        if user in self._users:
            self._users[user] -= 1
            if self._users[user] == 0:
                del self._users[user]


def _user(key: schema.Key) -> str:
    """The user that a subscription names; "" if it names none."""
    return str(key[1]) if key[0] in _OF_A_USER else ""


_OF_A_USER = {codec.tag(kind) for kind in schema.OF_A_USER}
