"""Which streams read which row of the world, and what the sieve must therefore let through.

A stream is about a coin or a user, by name; the world knows rows. The two meet in `bind`, when the stream is
opened, when its user is first seen, and again for every new world.
"""

from collections.abc import Iterable
from itertools import islice

from gateway import channels
from gateway.fanout import Client, Stream
from gateway.interest import Sieve
from gateway.world import World


class Readers:
    """The open streams, by what they are about."""

    def __init__(self) -> None:
        self.sieve = Sieve(0, 0, 0)
        self.of_market: dict[int, list[Stream]] = {}
        self.of_account: dict[int, list[Stream]] = {}
        self.of_coin: dict[str, set[Stream]] = {}
        self.mids: set[Stream] = set()  # those that any block may change
        self.marked: dict[Stream, None] = {}  # those that prices or the time may change; next in turn first
        self.unbound: set[Stream] = set()  # their coin or user is not in the world, or there is none

    def renew(self, world: World, streams: Iterable[Stream], events: int) -> None:
        """Bind everything to another world. events: the most that are sifted at once."""
        self.sieve = Sieve(len(world.arrays["markets"]), len(world.arrays["accounts"]), events)
        self.of_market, self.of_account = {}, {}
        for stream in streams:
            stream.channel.row = None
            self.bind(stream, world)

    def open(self, stream: Stream, world: World | None) -> None:
        channel = stream.channel
        if channel.coin is not None:
            self.of_coin.setdefault(channel.coin, set()).add(stream)
        if isinstance(channel, channels.MidsChannel):
            self.mids.add(stream)
        if channel.is_marked:
            self.marked[stream] = None
        self.bind(stream, world)

    def close(self, stream: Stream) -> None:
        channel = stream.channel
        table = self._table(stream)
        if channel.row is not None and stream in table.get(channel.row, ()):
            table[channel.row].remove(stream)
            self._want(stream, channel.row)
            if not table[channel.row]:
                del table[channel.row]
        self.mids.discard(stream)
        self.marked.pop(stream, None)
        self.unbound.discard(stream)
        if channel.coin is not None:
            self.of_coin[channel.coin].discard(stream)
            if not self.of_coin[channel.coin]:
                del self.of_coin[channel.coin]

    def bind(self, stream: Stream, world: World | None) -> None:
        """Find what the stream is about, and let its events through from now on."""
        channel = stream.channel
        if world is None or not channel.bind(world):
            self.unbound.add(stream)
            return
        self.unbound.discard(stream)
        if channel.row is not None:
            self._table(stream).setdefault(channel.row, []).append(stream)
            self._want(stream, channel.row)

    def bind_what_came(self, world: World) -> list[Stream]:
        """Look again for those that were not there; return those that are now."""
        looked = tuple(self.unbound)
        for stream in looked:
            self.bind(stream, world)
        return [stream for stream in looked if stream not in self.unbound]

    def next_marked(self, most: int) -> list[Stream]:
        """So many of those that prices or the time may change, in turn."""
        streams = list(islice(self.marked, most))
        for stream in streams:
            self.marked[stream] = self.marked.pop(stream)
        return streams

    def clients_of(self, coin: str) -> list[Client]:
        """Everybody who reads anything of a coin, once."""
        return list({client: None for stream in self.of_coin.get(coin, ()) for client in stream.cursors})

    def _table(self, stream: Stream) -> dict[int, list[Stream]]:
        return self.of_account if stream.channel.user is not None else self.of_market

    def _want(self, stream: Stream, row: int) -> None:
        half = self.sieve.accounts if stream.channel.user is not None else self.sieve.markets
        bits = 0
        for reader in self._table(stream)[row]:
            bits |= reader.channel.wants
        half.wanted[row] = bits
