"""What every channel is made of: what it is bound to, and what passes between it and the feed."""

from typing import NamedTuple

import numpy as np

from gateway import schema
from gateway.world import Array, World
from shm import broadcast, rows
from shm.codes import EventKind


class Lapped(Exception):
    """An event names an item that is gone: this process has fallen too far behind."""


class State(NamedTuple):
    """What a state channel would say now. `core` is compared with what it said last."""

    core: bytes
    height: int
    time_ms: int


class First(NamedTuple):
    """How an event channel begins: one message, in parts (none: no message), and the height it stands for."""

    parts: list[bytes]
    height: int


class Block(NamedTuple):
    """The events of one block, chained by interest.Sieve."""

    world: World
    events: Array
    market_links: Array
    account_links: Array
    height: int
    time_ms: int


class Bound:
    """What a channel is about: a coin, a user, or neither; and its row in the world that it is bound to."""

    wants = 0  # bits of interest in that row
    is_state = False
    is_marked = False  # prices or the time may change it: it is looked at every second or so
    restarts = False  # a client that missed something can begin again with a first message that says it all
    repairable = False  # what was missed can be told later

    def __init__(self, name: str, key: schema.Key, coin: str | None = None, user: str | None = None):
        self.name = name
        self.key = key
        self.coin = coin
        self.user = user
        self.row: int | None = None  # None: not in this world, or not yet

    def bind(self, world: World) -> bool:
        """Find the row; whether it is there (or none is needed)."""
        if self.coin is not None:
            self.row = world.market(self.coin)
        elif self.user is not None:
            self.row = world.account(bytes.fromhex(self.user[2:]))
        else:
            return True
        return self.row is not None


def missed(items: Array, prior: str, newest: int, after: int, until: int) -> Array:
    """Of one owner's items, newest first, those of the heights in between, oldest first.

    prior   the name of the items' link to the one before; 0 there: there was none
    newest  the owner's own link, from before they were read
    Raises Lapped: some of those may be gone.
    """
    link = int(items[prior][-1]) if len(items) else newest
    if link and not (len(items) and items["height"][-1] <= after):
        raise Lapped
    return items[(items["height"] > after) & (items["height"] <= until)][::-1]


def gather(block: Block, section: str, first: int, links: Array) -> Array:
    """The items of a ring (a section of the world) that a chain of events names. Raises Lapped."""
    ring, kind = _RINGS[section]
    arrays = block.world.arrays
    out = np.zeros(rows.chain_length(links, first), arrays[section].dtype)
    count = rows.gather(arrays[ring], arrays[section], block.events, links, first, int(kind), out)
    if count == broadcast.LAPPED:
        raise Lapped
    return out[:count]


_RINGS = {
    "trades": ("trade_ring", EventKind.TRADE),
    "fills": ("fill_ring", EventKind.FILL),
    "ledger": ("ledger_ring", EventKind.LEDGER),
    "twaps": ("twap_ring", EventKind.TWAP),
}
