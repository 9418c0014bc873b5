"""The world's events, taken off the ring in order, turned into messages of the streams that somebody reads.

One turn reads what is new, tells each whole block to the event channels, lets the state channels say what has
changed, and flushes. What can go wrong with the source is told, and mended by beginning again:

  lapped      the ring overran us: every stream resynchronises
  stale       a market is in doubt, or the engine is silent: its subscribers hear so (`feedStatus`)
  rebuilt     a market's book was made anew: new snapshots
  new world   a restarted engine: everything is bound anew; heights that were told are not told again

It reads no clock and knows no socket: `now_ns` is CLOCK_MONOTONIC.
"""

from dataclasses import dataclass, field

import numpy as np

from gateway import channels, errors, exchange_schema, interest, notices, rings, schema
from gateway.bound import Block, Lapped
from gateway.errors import NotNow
from gateway.fanout import Client, Cursor, Fanout, FanoutLimits, Stream
from gateway.notices import Notices
from gateway.readers import Readers
from gateway.world import World
from shm import broadcast, layout
from shm.codes import EventKind, Stale

EVENTS_PER_TURN = 16 * 1024  # 2 MiB; a block that is larger is told in parts
KEPT_ALIVE = ("l2Book", "bbo")  # clients take long silence on these for a dead feed
MARKED_PER_TICK = 100  # streams that are looked at again at each tick: some ten milliseconds


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """Times in ns."""

    gap_ns: int = 0  # between two messages of a state channel
    mids_gap_ns: int = 1_000_000_000
    keepalive_ns: int = 50_000_000_000  # then the last book is told again: some clients give up at 60 s
    heartbeat_ns: int = 1_000_000_000  # of silence, then the engine is taken to be gone
    fanout: FanoutLimits = field(default_factory=FanoutLimits)


@dataclass(slots=True)
class FeedCounts:
    events: int = 0
    blocks: int = 0
    messages: int = 0  # encoded, once for all who read them
    laps: int = 0
    slow_clients: int = 0


class Feed:
    def __init__(self, limits: FeedLimits = FeedLimits()):  # noqa: B008 (frozen)
        self.world: World | None = None
        self.counts = FeedCounts()
        self.height = -1  # of the last block that was told
        self.fanout = Fanout(limits.fanout, self._on_client_lapped)
        self._readers = Readers()
        self._notices = Notices(self._readers)
        self._limits = limits
        self._events = np.zeros(EVENTS_PER_TURN, layout.EVENT)
        self._held = 0  # events of a block whose end has not come
        self._cursor = 0
        self._told = -1  # heights up to this one were told from another world, or are repaired
        self._restarted = False  # no block of this world was seen yet
        self._engine_ended = False  # the engine of this world: its last heartbeat may be young
        self._changed: dict[Stream, None] = {}  # state channels that may have something new to say
        self._starting: list[Cursor] = []  # wait for their first message

    # subscriptions

    def admits(self, subscription: schema.Subscription) -> bool | None:
        """Whether a subscription can be served; None: not known yet, ask again when something has changed."""
        if isinstance(subscription, schema.Book) and not subscription.valid:
            return False
        if self.world is None:
            return None
        if isinstance(subscription, exchange_schema.SUBSCRIPTIONS) and not self.world.is_exchange:
            return False
        if not isinstance(subscription, schema.OF_A_COIN):
            return True
        if self.world.market(subscription.coin) is not None:
            return True
        return False if self.world.ready() else None

    def subscribe(self, client: Client, subscription: schema.Subscription, now_ns: int) -> None:
        """Begin: the first message goes out, or follows as soon as the world can be read."""
        cursor = self.fanout.attach(client, channels.make(subscription))
        stream = cursor.stream
        if len(stream.cursors) == 1:
            self._readers.open(stream, self.world)
        if not self._begin(cursor, now_ns):
            self._starting.append(cursor)
        if stream.channel.coin is not None:
            self._notices.greet(client, stream.channel.coin)

    def unsubscribe(self, client: Client, key: schema.Key) -> None:
        stream = self.fanout.detach(client, key)
        if stream is not None:
            self._changed.pop(stream, None)
            self._readers.close(stream)

    def leave(self, client: Client) -> None:
        """The client is gone."""
        for key in tuple(client.cursors):
            self.unsubscribe(client, key)

    # first messages

    def _begin(self, cursor: Cursor, now_ns: int) -> bool:
        """Give a cursor its first message; false while that is not possible."""
        stream, world = cursor.stream, self.world
        if world is None or (stream in self._readers.unbound and stream.channel.coin is not None):
            return False
        try:
            if stream.is_state:
                self._begin_state(cursor, world, now_ns)
            else:
                self._begin_events(cursor, world)
        except NotNow:
            return False
        cursor.waits = False
        cursor.client.advance(cursor)
        return True

    def _begin_state(self, cursor: Cursor, world: World, now_ns: int) -> None:
        stream = cursor.stream
        if stream.state is None:
            self._say_state(stream, world, now_ns)
        cursor.position = stream.ring.newest

    def _begin_events(self, cursor: Cursor, world: World) -> None:
        stream = cursor.stream
        first = stream.reusable_first()
        if first is None:
            stream.keep_first(stream.channel.first(world))  # type: ignore[union-attr]
            first = stream.first
            assert first is not None
        cursor.height = first[1]
        cursor.position = stream.ring.after(first[1])
        if not stream.channel.restarts:
            stream.first = None  # cheap, and better fresh
        cursor.client.say_frames(first[0])

    def _begin_waiting(self, now_ns: int) -> None:
        waiting, self._starting = self._starting, []
        for cursor in waiting:
            if cursor.stream.cursors.get(cursor.client) is not cursor:
                continue  # it has gone
            if cursor.client.blocked or not self._begin(cursor, now_ns):
                self._starting.append(cursor)

    def _begin_again(self, stream: Stream) -> None:
        """Let all who read a stream begin with a new first message."""
        stream.first = None
        stream.ring.clear()
        for cursor in stream.cursors.values():
            if not cursor.waits:
                cursor.waits = True
                self._starting.append(cursor)

    def _on_client_lapped(self, cursor: Cursor) -> None:
        self.counts.slow_clients += 1
        coin = cursor.stream.channel.coin or ""
        cursor.client.say(self._notices.message(coin, notices.LAPPED, errors.CLIENT_LAPPED))
        self._starting.append(cursor)

    # turns

    @property
    def engine_gone(self) -> bool:
        return self._notices.engine_gone

    @property
    def pending(self) -> bool:
        """Whether something waits for a moment at which the world can be read."""
        return bool(self._starting or self._changed)

    @property
    def has_news(self) -> bool:
        """Whether the ring holds what was not read: asked before sleeping."""
        world = self.world
        return world is not None and broadcast.tail(world.arrays["event_ring"]) > self._cursor

    def turn(self, now_ns: int) -> int:
        """Take what is new, tell it, send it; return how many events there were."""
        world = self.world
        if world is None:
            return 0
        arrays = world.arrays
        count = int(
            broadcast.read(arrays["event_ring"], arrays["events"], self._cursor, self._events[self._held :])
        )
        if count == broadcast.LAPPED:
            self._resynchronise(world)
        elif count > 0:
            self._cursor += count
            self._held += count
            self.counts.events += count
            self._bind_what_came(world)
            try:
                self._tell_blocks(world)
            except Lapped:
                self._resynchronise(world)
        if self._starting:
            self._begin_waiting(now_ns)
        if self._changed:
            self._say_changes(world, now_ns)
        self.fanout.flush()
        return max(count, 0)

    def _bind_what_came(self, world: World) -> None:
        came = self._readers.bind_what_came(world)
        self._changed.update({stream: None for stream in came if stream.is_state})

    def _tell_blocks(self, world: World) -> None:
        events, held, start = self._events, self._held, 0
        self._held = 0
        while start < held:
            end = int(interest.next_block(events, start, held))
            if end == start:
                if start > 0 or held < len(events):
                    break
                end = held  # larger than what we hold: told in parts
            self._tell(world, start, end)
            start = end
        if start < held:
            events[: held - start] = events[start:held].copy()
        self._held = held - start

    def _tell(self, world: World, start: int, end: int) -> None:
        last = self._events[end - 1]
        kind, height = int(last["kind"]), int(last["height"])
        if kind == EventKind.STALE or kind == EventKind.RESET:
            self._tell_change(world, last)
            return
        if self._restarted and height > self._told:
            self._restarted = False
            if height > self._told + 1:
                self._repair(world, height - 1)
        readers, sieve = self._readers, self._readers.sieve
        markets, accounts = sieve.sift(self._events, start, end)
        block = Block(
            world,
            self._events,
            sieve.markets.links,
            sieve.accounts.links,
            height,
            int(last["time_ns"]) // 1_000_000,
        )
        try:
            for table, half, touched in (
                (readers.of_market, sieve.markets, markets),
                (readers.of_account, sieve.accounts, accounts),
            ):
                for row in touched:
                    self._tell_row(table[row], int(half.marks[row]), block, int(half.first[row]))
        finally:
            sieve.clear()
        if kind == EventKind.BLOCK:
            self.height = max(self.height, height)
            self.counts.blocks += 1
            self._changed.update(dict.fromkeys(readers.mids))

    def _tell_row(self, streams: list[Stream], marks: int, block: Block, first: int) -> None:
        """Tell one market's or account's part of a block to who wants it."""
        for stream in tuple(streams):
            channel = stream.channel
            if not channel.wants & marks:
                continue
            if stream.is_state:
                self._changed[stream] = None
            elif block.height > self._told or channel.restarts:
                for payload in channel.tell(block, first):  # type: ignore[union-attr]
                    self._publish(stream, payload, block.height)

    def _publish(self, stream: Stream, payload: bytes, height: int) -> None:
        try:
            self.fanout.publish(stream, payload, height)
            self.counts.messages += 1
        except rings.TooLarge:
            self._lose(stream)

    def _lose(self, stream: Stream) -> None:
        """A stream could not be told everything: who reads it begins again, or is closed and told so."""
        if stream.channel.restarts:
            self._begin_again(stream)
            return
        for client in tuple(stream.cursors):
            client.close(errors.CLOSE_POLICY, errors.CLOSE_EVENTS_LOST)

    # state channels

    def _say_changes(self, world: World, now_ns: int) -> None:
        for stream in tuple(self._changed):
            gap = self._limits.mids_gap_ns if stream in self._readers.mids else self._limits.gap_ns
            if now_ns - stream.published_ns >= gap or stream.state is None:
                try:
                    self._say_state(stream, world, now_ns)
                    self._changed.pop(stream, None)
                except NotNow:
                    pass  # the next turn will

    def _say_state(self, stream: Stream, world: World, now_ns: int, again: bool = False) -> None:
        """Publish what a state channel says now, if it is new. again: also if it is not."""
        channel = stream.channel
        assert isinstance(channel, channels.StateChannel)
        if stream in self._readers.unbound and channel.coin is not None:
            return  # not in this world: its clients were told that it is stale
        state = channel.read(world)
        if again or stream.state is None or state.core != stream.state.core:
            self._publish(stream, channel.message(state), state.height)
            stream.published_ns = now_ns
        stream.state = state

    # what goes wrong

    def adopt(self, world: World, now_ns: int) -> None:
        """Take over a new world: the first, or a restarted engine's."""
        renewed = self.world is not None
        self.world = world
        self._held = 0
        streams = tuple(self.fanout.streams.values())
        self._readers.renew(world, streams, EVENTS_PER_TURN)
        self._notices.world, self._notices.engine_gone = world, False
        self._engine_ended = False
        if not renewed:
            self._cursor = int(broadcast.tail(world.arrays["event_ring"]))
            self.height = self._told = world.look().height
            return
        self._told, self._restarted = self.height, True
        self._cursor = int(broadcast.oldest(world.arrays["event_ring"], world.arrays["events"]))
        for stream in streams:
            self._refresh(stream)
        if self._cursor > 0:  # what came before is overwritten: its first block will not show what we missed
            self._resynchronise(world)
        self._notices.check_all(errors.RESTARTED)
        self.turn(now_ns)

    def _refresh(self, stream: Stream) -> None:
        """Let a stream say all that there is, if it can."""
        if stream.is_state:
            stream.state = None
            self._changed[stream] = None
        elif stream.channel.restarts:
            self._begin_again(stream)

    def _resynchronise(self, world: World) -> None:
        """We were lapped: begin again at the ring's tail, mend what can be mended, say so."""
        self.counts.laps += 1
        self._held = 0
        self._cursor = int(broadcast.tail(world.arrays["event_ring"]))
        self._bind_what_came(world)
        height = world.look().height  # after the tail: what the tail was behind is not later than this
        for coin in tuple(self._readers.of_coin):
            self._notices.tell(coin, notices.LAPPED, errors.LAPPED)
        for stream in self.fanout.streams.values():
            self._refresh(stream)
        self._repair(world, height)
        self._restarted = False
        self._notices.check_all(errors.LAPPED)

    def _repair(self, world: World, until: int) -> None:
        """Tell the event channels what they missed since the last height, or end their clients."""
        after, self._told = self.height, max(until, self._told)
        self.height = max(self.height, until)
        for stream in tuple(self.fanout.streams.values()):
            channel = stream.channel
            if stream.is_state or channel.restarts:
                continue
            if not channel.repairable:
                self._lose(stream)
                continue
            try:
                later = channel.since(world, after, until)  # type: ignore[union-attr]
            except Lapped:
                self._lose(stream)
                continue
            for payload in later:
                self._publish(stream, payload, until)

    # what is said about it

    def tick(self, now_ns: int) -> None:
        """Every second or so: the engine's heartbeat, and silence that must not last."""
        world = self.world
        if world is None:
            return
        gone = self._engine_ended or world.region.heartbeat_age_ns(now_ns) > self._limits.heartbeat_ns
        why_live = errors.ENGINE_BACK if self._notices.engine_gone else errors.REBUILT
        self._notices.engine_gone = gone
        self._notices.check_all(why_live)
        self._changed.update(dict.fromkeys(self._readers.next_marked(MARKED_PER_TICK)))
        for stream in () if gone else tuple(self.fanout.streams.values()):
            silent = now_ns - stream.published_ns >= self._limits.keepalive_ns
            if silent and stream.channel.name in KEPT_ALIVE:
                try:
                    self._say_state(stream, world, now_ns, again=True)
                except NotNow:
                    self._changed[stream] = None
        self.fanout.flush()

    def lost_engine(self) -> None:
        """The engine has ended: known at once, not by its silence."""
        self._engine_ended = self._notices.engine_gone = True
        self._notices.check_all(errors.ENGINE_GONE)

    def _tell_change(self, world: World, event: np.void) -> None:
        """A market is in doubt, or was made anew; NO_MARKET: all of them."""
        world.learn()
        market = int(event["market"])
        for coin in (world.coins[market],) if market != layout.NO_MARKET else tuple(self._readers.of_coin):
            if event["kind"] == EventKind.STALE:
                self._notices.doubt(coin, Stale(int(event["status"])))
                continue
            for stream in self._readers.of_coin.get(coin, ()):
                self._refresh(stream)
            self._notices.check(coin, errors.REBUILT)
