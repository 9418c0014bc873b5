"""Order entry: a signed action, or one of a login, goes to the engine and comes back as one of three answers.

  accepted  `{"status":"ok",...}`, once the world shows what it did
  refused   `{"status":"err",...}`: it was not executed, and never will be
  unknown   the engine was lost, or is late: who asked looks it up, and nothing is sent twice

Cheap checks come first (shape, time, rate, room), the signature last: it takes longer than all of them. Who
may act for whom is the engine's to say; it is given the address that signed.

A login is an extension of ours: one signed message, and the connection's further actions need no signature
until its time is over. It may ask that all open orders are cancelled when the connection ends; that cancel is
the only command that is sent until the engine has taken it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway import actions, answers, codec, commands, errors, signing
from gateway.actions import Envelope
from gateway.answers import Asked
from gateway.door import Ack, Door
from gateway.errors import Answer, Refusal
from gateway.world import World
from shm.codes import Ack as Outcome
from shm.codes import Feed
from shm.codes import Refusal as Code

DAY_MS = 86_400_000
MINUTE_NS = 60_000_000_000
WEIGHT_COMMANDS = 40  # an action weighs one, and one more for each so many orders in it
NETWORKS_MAX = 1 << 16  # whose actions are counted in one minute
NEVER_NS = 2**63 - 1
END_NS = NEVER_NS - 1  # of time, for all who wait for an answer
_MS_NS = 1_000_000

Reply = Callable[[bytes | Answer], None]  # told once: the JSON of an answer, or what there is instead of one


@dataclass(frozen=True, slots=True)
class ExchangeLimits:
    """Of one gateway."""

    answer_ns: int = 5_000_000_000  # how long an answer may take until it is called unknown
    actions_per_minute_max: int = 60_000  # weight of what comes from one network


@dataclass(slots=True, eq=False)
class Login:
    """What a connection may do without signing it, and what becomes of its orders when it ends."""

    signer: bytes
    valid_until_ms: int
    cancels: bool
    vaults: set[bytes] = field(default_factory=set)  # the sub-accounts that it has acted for


class Exchange:
    """sources: the letters of the networks whose signatures are taken (signing.NETWORKS), first come first.

    clock_ns: CLOCK_MONOTONIC; wall_ns: since the Unix epoch.
    """

    def __init__(
        self,
        sources: str,
        limits: ExchangeLimits,
        clock_ns: Callable[[], int],
        wall_ns: Callable[[], int],
        durability: str = "memory",
    ):
        self.durability = durability  # "journaled", or "memory": of what is answered
        self._sources = sources
        self._limits = limits
        self._clock_ns = clock_ns
        self._wall_ns = wall_ns
        self._world: World | None = None
        self._door: Door | None = None
        self._size_decimals: list[int] = []
        self._has_stopped = False
        self._is_full = False  # the journal: only what takes orders away is let in
        self._farewells: deque[_Farewell] = deque()  # that the engine was not given yet
        self._minute_ns = 0  # when the minute began that is being counted
        self._weights: dict[str, int] = {}  # by network, in it

    # its engine

    def adopt(self, world: World, door: Door) -> None:
        """There is a new world, and a way to its engine."""
        self.lost_engine()
        self._world, self._door = world, door
        self._size_decimals = []
        self._say_farewells()

    def lost_engine(self) -> None:
        """Nobody takes what was sent: all who wait are told that they cannot know."""
        door, self._door = self._door, None
        if door is not None:
            door.close()

    @property
    def has_news(self) -> bool:
        return self._door is not None and self._door.has_news

    def take(self) -> None:
        """Take what the engine has said. What the world tells of it is to be told before `answer`."""
        if self._door is not None:
            self._door.take()
            self._say_farewells()

    def answer(self) -> None:
        """Answer the clients of whom the engine has spoken."""
        if self._door is not None:
            self._door.answer()

    def tick(self, now_ns: int) -> None:
        """Give up on what takes too long."""
        if self._door is not None:
            self._door.expire(now_ns)
        if self._world is not None:
            self._is_full = self._world.look().state == Feed.FULL

    @property
    def in_flight(self) -> bool:
        """Whether the engine has been given what it has not answered."""
        return self._door is not None and self._door.in_flight > 0

    def stop(self) -> None:
        """Take no more actions."""
        self._has_stopped = True

    # its clients

    def act(self, body: bytes, network: str, login: Login | None, reply: Reply) -> None:
        """Do what a POST /exchange, or a post of an action, asks. `network`: for whom it is counted.

        login  what the connection has proved, which may then leave out the signature
        """
        try:
            envelope = actions.decode(body, signed=login is None)
            action = envelope.action
            if isinstance(action, actions.Login):
                raise Refusal(errors.LOGIN_ELSEWHERE)
            if envelope.signature is not None:
                login = None
            elif isinstance(action, actions.TYPED):
                raise Refusal(errors.MUST_BE_SIGNED.format(codec.tag(action)))
            self._admit(envelope, network, login)
            _Waiting(self, envelope, login, self._sources, reply).send()
        except Refusal as refusal:
            reply(_refused(refusal))

    def log_in(self, body: bytes, network: str, begin: Callable[[Login], None], reply: Reply) -> None:
        """Verify a login. `begin` is told of it before it is answered; it is also told to `left` one day."""
        try:
            envelope = actions.decode(body)
            if not isinstance(envelope.action, actions.Login):
                raise Refusal(errors.NOT_A_LOGIN)
            if not 0 < envelope.action.valid_until_ms - self._now_ms() <= DAY_MS:
                raise Refusal(errors.LOGIN_TIME)
            self._admit(envelope, network, None)
            _LoggingIn(self, envelope, envelope.action, self._sources, begin, reply).send()
        except Refusal as refusal:
            reply(_refused(refusal))

    def left(self, login: Login) -> None:
        """A login has ended, or its connection has."""
        if login.cancels:
            self._farewells += [
                _Farewell(self._farewells, login.signer, vault) for vault in (None, *login.vaults)
            ]
            self._say_farewells()

    # what one action goes through

    def _now_ms(self) -> int:
        return self._wall_ns() // _MS_NS

    def _admit(self, envelope: Envelope, network: str, login: Login | None) -> None:
        """All that can be said without looking at the signature. Raises Refusal."""
        now_ms = self._now_ms()
        if login is None and not now_ms - 2 * DAY_MS < envelope.nonce < now_ms + DAY_MS:
            raise Refusal(errors.refused(Code.NONCE_WINDOW))
        if login is not None and now_ms >= login.valid_until_ms:
            raise Refusal(errors.LOGIN_OVER)
        if envelope.expires_ms is not None and now_ms > envelope.expires_ms:
            raise Refusal(errors.refused(Code.EXPIRED))
        size = commands.size(envelope.action)
        if self._door is None or self._has_stopped:
            raise Refusal(errors.NO_ENGINE)
        if self._is_full and not commands.is_cancel(envelope.action):
            raise Refusal(errors.JOURNAL_FULL)
        if not self._door.admits(size, commands.is_cancel(envelope.action)):
            raise Refusal(errors.OVERLOADED)
        if not self._counted(network, 1 + size // WEIGHT_COMMANDS):
            raise Refusal(errors.TOO_MANY_ACTIONS.message)

    def _counted(self, network: str, weight: int) -> bool:
        """Add to what a network has asked for in this minute; false if that is too much."""
        now_ns = self._clock_ns()
        if now_ns - self._minute_ns >= MINUTE_NS:
            self._minute_ns = now_ns
            self._weights.clear()
        total = self._weights.get(network, 0) + weight
        is_full = len(self._weights) >= NETWORKS_MAX and network not in self._weights
        if is_full or total > self._limits.actions_per_minute_max:
            return False
        self._weights[network] = total
        return True

    def submit(self, envelope: Envelope, signer: bytes, in_session: bool, waiting: "_Waiting") -> Asked:
        """Send one action; `waiting` is told what became of it. Raises Refusal."""
        action, created = envelope.action, b""
        if isinstance(action, actions.CreateSubAccount):
            created = sub_account(signer, envelope.nonce or self._now_ms())
        made, refused = commands.make(envelope, signer, in_session, self._size_decimals, created)
        if Code.ORDER_MARKET in refused.values() and self._learn_markets():
            made, refused = commands.make(envelope, signer, in_session, self._size_decimals, created)
        if self._door is None:
            raise Refusal(errors.NO_ENGINE)
        deadline_ns = self._clock_ns() + self._limits.answer_ns
        if not self._door.submit(made, waiting, deadline_ns, commands.is_cancel(action)):
            raise Refusal(errors.OVERLOADED)
        return Asked(action, signer, envelope.vault, refused, self._size_decimals, created)

    def _learn_markets(self) -> bool:
        """Learn the units of markets that were added; false if there are none."""
        assert self._world is not None, "it came with the door"
        count = self._world.look().market_count
        if count == len(self._size_decimals):
            return False
        self._size_decimals = [self._world.size_decimals(market) for market in range(count)]
        return True

    def _say_farewells(self) -> None:
        while self._farewells and self._door is not None:
            farewell = self._farewells[0]
            made = commands.cancel_all(farewell.signer, farewell.vault)
            if not self._door.submit(made, farewell, NEVER_NS, is_cancel=True):
                return
            self._farewells.popleft()


class _Waiting:
    """One action on its way: for the signer of its connection's login, or for whoever signed it.

    A signature recovers to another address on each network. Where several are taken, and the engine does not
    know the first address, it is asked about the next.
    """

    __slots__ = ("_exchange", "_envelope", "_login", "_sources", "_reply", "_asked")

    def __init__(
        self, exchange: Exchange, envelope: Envelope, login: Login | None, sources: str, reply: Reply
    ):
        self._exchange = exchange
        self._envelope = envelope
        self._login = login
        self._sources = sources  # not tried yet
        self._reply = reply
        self._asked: Asked  # from send on

    def send(self) -> None:
        """Raises Refusal, and then `reply` is not told."""
        login, envelope = self._login, self._envelope
        signer = self._signer() if login is None else login.signer
        self._asked = self._exchange.submit(envelope, signer, login is not None, self)
        if login is not None and envelope.vault is not None:
            login.vaults.add(envelope.vault)

    def acknowledged(self, acks: Sequence[Ack]) -> None:
        code = acks[0].code
        if code == Code.UNKNOWN_SIGNER and self._login is None and self._sources:
            try:
                return self.send()
            except Refusal:
                pass  # the first word stands
        if code == Code.UNKNOWN_VAULT and self._login is not None and self._envelope.vault is not None:
            self._login.vaults.discard(self._envelope.vault)
        self._done(acks)

    def unknown(self) -> None:
        self._reply(errors.UNKNOWN)

    def _done(self, acks: Sequence[Ack]) -> None:
        self._reply(answers.write(self._asked, acks))

    def _signer(self) -> bytes:
        while True:
            source, self._sources = self._sources[0], self._sources[1:]
            try:
                return signing.recover(self._envelope, source)
            except Refusal:
                if not self._sources:
                    raise


class _LoggingIn(_Waiting):
    __slots__ = ("_action", "_begin")

    def __init__(
        self,
        exchange: Exchange,
        envelope: Envelope,
        action: actions.Login,
        sources: str,
        begin: Callable[[Login], None],
        reply: Reply,
    ):
        super().__init__(exchange, envelope, None, sources, reply)
        self._action, self._begin = action, begin

    def _done(self, acks: Sequence[Ack]) -> None:
        action = self._action
        if acks[0].outcome == Outcome.DONE:
            self._begin(Login(self._asked.signer, action.valid_until_ms, action.cancel_on_disconnect))
        super()._done(acks)


class _Farewell:
    """What a login leaves: the cancel of all orders. It returns to its queue when the engine is lost."""

    __slots__ = ("signer", "vault", "_queue")

    def __init__(self, queue: "deque[_Farewell]", signer: bytes, vault: bytes | None):
        self.signer, self.vault = signer, vault
        self._queue = queue

    def acknowledged(self, acks: Sequence[Ack]) -> None:
        """It was taken, or its signer may no longer act: there is no more to be done."""

    def unknown(self) -> None:
        self._queue.append(self)


def sub_account(master: bytes, nonce: int) -> bytes:
    """The address of a new sub-account: the last 20 bytes of keccak(master, nonce as 8 bytes, "sub-account").

    Nobody holds a key to it.
    """
    return signing.keccak256(master + nonce.to_bytes(8, "big") + b"sub-account")[-20:]


def _refused(refusal: Refusal) -> bytes | Answer:
    text = str(refusal)
    return _NO_ANSWERS.get(text) or codec.refused_action(text)


_NO_ANSWERS = {it.message: it for it in (errors.BAD_BODY, errors.TOO_MANY_ACTIONS)}
