"""The captured log through the public WebSocket and HTTP: what clients rebuild is what the node had.

The log is written block by block into an empty directory while clients listen, in both of its forms.
"""

from decimal import Decimal

import pytest

from tests import recorded
from tests.e2e import node_log
from tests.e2e.client import Client
from tests.e2e.instance import Instance, until

pytestmark = pytest.mark.timeout(280)  # the first test may have to wait for the compiler

FORMS = ("by_block", "streaming")
LAG_BLOCKS = {"by_block": 0, "streaming": 1}  # a streamed block ends when the next one begins
SUBSCRIPTIONS = [{"type": kind, "coin": "BTC"} for kind in ("l4Book", "l2Book", "bbo", "trades")]


class Ends:
    """What a client has known of the best prices at each block's end, from three channels."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.l4: dict[int, tuple] = {}  # height -> best bid, best ask
        self.frames: list[tuple[str, int, tuple]] = []  # channel, its time, best bid and ask
        self.now: dict[str, tuple] = {}  # channel -> the last of these

    def hear(self, message) -> None:
        channel, data = message["channel"], message["data"]
        if channel == "l4Book":
            book = self.client.books["BTC"]
            self.l4[book.height] = book.best()
        elif channel in ("l2Book", "bbo"):
            sides = [side[0] for side in data["levels"]] if channel == "l2Book" else data["bbo"]
            best = tuple((Decimal(level["px"]), Decimal(level["sz"]), level["n"]) for level in sides)
            self.frames.append((channel, data["time"], best))
            self.now[channel] = best


def expected():
    """Block time in ms -> best bid, best ask at its end, of the blocks that can be matched."""
    return {
        time_ms: ((Decimal(bid), Decimal(size), n), (Decimal(ask), Decimal(ask_size), ask_n))
        for time_ms, (bid, size, n, ask, ask_size, ask_n) in recorded.quotes().items()
    }


@pytest.fixture(scope="module", params=FORMS)
def followed(request, story, tmp_path_factory):
    """Feed one form to an instance with a listening client; give (instance, client, what it knew)."""
    form, ends = request.param, Ends()
    with Instance(tmp_path_factory.mktemp(form), "--snapshot", str(story.snapshot)) as ringside:
        with Client(ringside.port, *SUBSCRIPTIONS, hear=ends.hear) as client:
            ends.client = client
            feed(ringside, client, ends, story, form)
            yield ringside, client, ends


def feed(ringside, client, ends, story, form):
    """Write block after block, each when the one before it has come out at the client's end."""
    book, quotes = client.books["BTC"], expected()
    ringside.wait(lambda: book.height == recorded.FIRST_HEIGHT - 1 and len(ends.now) == 2, "first messages")

    def known(height):
        client.check()
        best = quotes.get(story.time_ms[height])
        said = max(ends.l4, default=0) >= height or height not in story.spoken
        return said and (best is None or set(ends.now.values()) == {best})

    for height, pieces in node_log.blocks(story.logs[form], form).items():
        node_log.append(ringside.node_data, pieces)
        told = height - LAG_BLOCKS[form]
        if told >= recorded.FIRST_HEIGHT:
            ringside.wait(lambda told=told: known(told), f"block {told}, and its best prices on all channels")
    ringside.wait(lambda: known(recorded.LAST_HEIGHT), "the last block")


@pytest.fixture
def ringside(followed):
    return followed[0]


@pytest.fixture
def client(followed):
    return followed[1]


@pytest.fixture
def ends(followed):
    return followed[2]


def test_a_book_rebuilt_from_l4_has_the_best_prices_of_every_block_end(ends, story):
    quotes, told, matched = expected(), None, 0
    for height, time_ms in story.time_ms.items():
        assert (height in ends.l4) == (height in story.spoken)
        told = ends.l4.get(height, told)  # nothing is sent of a quiet block
        if time_ms in quotes:
            assert told == quotes[time_ms], height
            matched += 1
    assert matched == 49


def test_a_book_rebuilt_from_l4_ends_with_every_order_in_its_place(client, story):
    book = client.books["BTC"]
    assert book.height == recorded.LAST_HEIGHT and len(book.orders) == recorded.ORDERS_AT_END
    assert book.book() == [
        [(o["oid"], o["user"], o["side"], Decimal(o["limitPx"]), Decimal(o["sz"]), o["cloid"]) for o in side]
        for side in story.end.book("BTC")
    ]
    assert client.snapshots == 1 and client.of("feedStatus") == []


@pytest.mark.parametrize("channel", ["l2Book", "bbo"])
def test_no_message_tells_other_best_prices_than_its_block_had(ends, channel):
    """A message says which block it is of. (That the last word on each block is right, `feed` waits for.)"""
    quotes = expected()
    told = [(time_ms, best) for name, time_ms, best in ends.frames if name == channel and time_ms in quotes]
    assert told == [(time_ms, quotes[time_ms]) for time_ms, _ in told]
    assert len(told) >= 10


def test_bbo_speaks_only_when_it_has_changed(ends):
    told = [best for name, _, best in ends.frames if name == "bbo"]
    assert all(one != other for one, other in zip(told, told[1:], strict=False))


def test_trades_are_those_that_the_fills_tell(client, story):
    told = [trade for batch in client.of("trades") for trade in batch]
    assert told == story.end.trades and len(told) == 11
    assert [] not in client.of("trades")


@pytest.mark.parametrize(
    "rounding", [{}, {"nSigFigs": 5}, {"nSigFigs": 5, "mantissa": 2}, {"nSigFigs": 3}], ids=str
)
def test_http_tells_the_same_book(ringside, story, rounding):
    told = ringside.info({"type": "l2Book", "coin": "BTC", **rounding})
    levels = story.end.levels("BTC", 20, rounding.get("nSigFigs"), rounding.get("mantissa", 1))
    assert told["time"] == story.time_ms[recorded.LAST_HEIGHT] and told["coin"] == "BTC"
    for side, wanted in zip(told["levels"], levels, strict=True):
        assert [(level["px"], level["sz"], level["n"]) for level in side] == wanted


def test_a_snapshot_at_the_end_tells_all_of_every_order(ringside, story):
    """To one who comes late: each order with all the keys of this wire."""
    found = []
    late = Client(ringside.port, SUBSCRIPTIONS[0], hear=found.append)
    with late:
        until(lambda: late.snapshots, "a snapshot")
    levels = next(m["data"]["Snapshot"]["levels"] for m in found if m["channel"] == "l4Book")
    assert [[numbers_in(order) for order in side] for side in levels] == [
        [numbers_in(order) for order in side] for side in story.end.book("BTC")
    ]


def numbers_in(order):
    """An order with numbers for texts of numbers, and without what this wire leaves out."""
    numbers = {key: Decimal(order[key]) for key in ("limitPx", "sz", "triggerPx")}
    return {key: order[key] for key in order if key not in ("children", "origSz")} | numbers
