"""SIGKILL of any process at any moment: everything comes back by itself, and nothing that is told is wrong.

A recorded log is written on, torn at random places, while processes die. The book of a client is compared
with the naive follower's after every single message, and all of it at the end.
"""

import itertools
import os
import signal
import threading
import time
from decimal import Decimal
from random import Random

import pytest

from tests import recorded
from tests.e2e import node_log
from tests.e2e.client import Client
from tests.e2e.instance import Instance, until

pytestmark = pytest.mark.timeout(280)

ROUNDS, SOAK_PARTS = 10, 10  # a round kills each of them once; the soak is as many parts, each with its seed
SETTLED_SECONDS = 0.5
PIECES_MAX = 40  # parts into which the log of one stream and block is torn
L4 = {"type": "l4Book", "coin": "BTC"}
L2 = {"type": "l2Book", "coin": "BTC"}
TRADES = {"type": "trades", "coin": "BTC"}


class Witness(Client):
    """A client that compares its book with what is true of its height, whenever it hears of one."""

    def __init__(self, story, port, *subscriptions, returns=False):
        super().__init__(port, *subscriptions, hear=self.compare, returns=returns)
        self.story = story

    def compare(self, message):
        if message["channel"] == "l4Book":
            book = self.books["BTC"]
            assert (*book.best(), len(book.orders)) == in_numbers(self.story.at[book.height]), book.height

    def marks(self):
        """Counts, for `has_moved`."""
        return self.connections, self.snapshots, len(self.statuses())


def in_numbers(at):
    *best, count = at
    return (*((Decimal(price), Decimal(size), n) for price, size, n in best), count)


class Writer:
    """Writes a log on, in torn pieces, a share at a time and in the background."""

    def __init__(self, story, node_data, shares, random):
        blocks = node_log.blocks(story.logs["by_block"], "by_block").values()
        pieces = node_log.torn(list(itertools.chain(*blocks)), random, PIECES_MAX)
        each = -(-len(pieces) // shares)
        self._shares = iter([pieces[at : at + each] for at in range(0, len(pieces), each)])
        self._node_data, self._thread = node_data, None

    def write_some(self):
        """Begin to write the next share, once the last one is written."""
        self.finish()
        share = next(self._shares, [])
        self._thread = threading.Thread(target=self._write, args=(share,), daemon=True)
        self._thread.start()

    def write_all(self):
        for share in self._shares:
            self._write(share)
        self.finish()

    def finish(self):
        if self._thread is not None:
            self._thread.join()

    def _write(self, pieces):
        for piece in pieces:
            node_log.append(self._node_data, [piece])
            time.sleep(0.001)


@pytest.fixture
def ringside(story, tmp_path):
    with Instance(tmp_path, "--snapshot", str(story.snapshot)) as instance:
        yield instance


def compare_all(ringside, story, client):
    """At the end of the log: the client's book, a new snapshot, HTTP, and no market in doubt."""
    ringside.wait_for_height(recorded.LAST_HEIGHT)
    last = max(story.spoken)
    ringside.wait(lambda: client.check() or client.books["BTC"].height >= last, "the last block, told")
    late = Witness(story, ringside.port, L4)
    with late:
        until(lambda: late.snapshots, "a snapshot")
    wanted = [
        [(o["oid"], o["user"], o["side"], Decimal(o["limitPx"]), Decimal(o["sz"]), o["cloid"]) for o in side]
        for side in story.end.book("BTC")
    ]
    assert client.books["BTC"].book() == wanted
    assert late.books["BTC"].book() == wanted
    told = ringside.info(L2)["levels"]
    assert [[(level["px"], level["sz"], level["n"]) for level in side] for side in told] == story.end.levels(
        "BTC", 20
    )
    assert ringside.health()["staleMarkets"] == 0


def stale_then_live(client, said):
    """Whether the client was told so since then, for whatever reasons and however often."""
    client.check()
    told = client.statuses()[said:]
    return "stale" in told and told[-1:] == ["live"]


def is_back(client, connections, snapshots):
    client.check()
    return client.connections > connections and client.snapshots > snapshots


def survive_engine(ringside, client):
    """Kill it: a connected client stays connected, is told so, and begins again."""
    ringside.wait(lambda: client.statuses()[-1:] != ["stale"], "a feed that was live")
    connections, snapshots, said = client.marks()
    old = ringside.kill("engine")
    ringside.wait(lambda: stale_then_live(client, said), "a feed called stale, then live")
    ringside.wait(lambda: client.check() or client.snapshots > snapshots, "a snapshot of the new engine's")
    assert client.connections == connections and ringside.pid("engine") != old


def survive_gateway(ringside, client):
    """Kill it: its client comes back, and gets a snapshot."""
    connections, snapshots, _ = client.marks()
    old = ringside.kill("gateway 0")
    ringside.wait(lambda: is_back(client, connections, snapshots), "a way back")
    assert ringside.pid("gateway 0") != old


def settled(client):
    """Its marks, when nothing of what it was told before is still on its way."""

    def stand():
        client.check()
        marks = client.marks()
        time.sleep(SETTLED_SECONDS)
        client.check()
        return marks if client.marks() == marks else None

    return until(stand, "a client that is told nothing new of the feed")


def survive_supervisor(ringside, client):
    """Kill it, and start it again, as its caller would: nobody notices, and all serve on."""
    marks, height = settled(client), ringside.health()["height"]
    old = {role: ringside.pid(role) for role in ("engine", "gateway 0")}
    worlds = len(ringside.logged("the engine has a world"))
    ringside.kill_supervisor()
    ringside.start()
    ringside.wait(lambda: len(ringside.logged("the engine has a world")) > worlds, "an engine, adopted")
    client.check()
    assert {role: ringside.pid(role) for role in old} == old
    assert client.marks() == marks and ringside.health()["height"] >= height


def survive_two_at_once(ringside, client):
    connections, snapshots, _ = client.marks()
    ringside.kill("engine")
    ringside.kill("gateway 0")
    ringside.wait(lambda: is_back(client, connections, snapshots), "a way back")


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(SOAK_PARTS if metafunc.config.getoption("--soak") else 1))


def test_killed_again_and_again(ringside, story, seed):
    """Every third round kills the engine and the gateway in one moment; the others one after the other."""
    random = Random(seed)
    writer = Writer(story, ringside.node_data, 3 * ROUNDS + 1, random)
    with Witness(story, ringside.port, L4, L2, returns=True) as client:
        ringside.wait(lambda: client.snapshots, "a first snapshot")
        for number in range(ROUNDS):
            both = [survive_two_at_once] if number % 3 == 2 else [survive_gateway, survive_engine]
            for survive in [*both, survive_supervisor]:
                writer.write_some()
                time.sleep(random.uniform(0, 0.3))
                client.check()
                survive(ringside, client)
        writer.write_all()
        compare_all(ringside, story, client)
    epochs = [line["epoch"] for line in ringside.logged("the engine has a world")]
    assert len({*epochs}) > ROUNDS and epochs == sorted(epochs), "an adopted one tells of its world again"


def test_a_killed_or_stopped_engine_costs_a_connected_client_no_trade_and_tells_none_twice(ringside, story):
    writer = Writer(story, ringside.node_data, 5, Random(5))
    with Witness(story, ringside.port, TRADES, L4) as client:
        ringside.wait(lambda: client.snapshots, "a first snapshot")
        for survive in (survive_engine, survive_stop, survive_engine, survive_engine):
            writer.write_some()
            time.sleep(0.1)
            survive(ringside, client)
        writer.write_all()
        compare_all(ringside, story, client)
        assert [trade for batch in client.of("trades") for trade in batch] == story.end.trades


def survive_stop(ringside, client):
    """Stop the engine: it is called stale when it does not beat, and live once it goes on."""
    said = len(client.statuses())
    pid = ringside.pid("engine")
    os.kill(pid, signal.SIGSTOP)
    ringside.wait(lambda: "stale" in client.statuses()[said:], "a stopped engine called stale")
    ringside.wait(lambda: ringside.health()["state"] == "stale", "by whoever is asked")
    os.kill(pid, signal.SIGCONT)
    ringside.wait(lambda: stale_then_live(client, said), "an engine that goes on called live")
    assert ringside.pid("engine") == pid


def test_sigterm_drains_and_what_was_known_is_known_again(ringside, story, tmp_path):
    """Exit code 0, clients told to go, and the next start goes on from the checkpoint without a snapshot."""
    Writer(story, ringside.node_data, 1, Random(1)).write_all()
    with Witness(story, ringside.port, L4) as client:
        ringside.wait(lambda: client.books["BTC"].height >= max(story.spoken), "the last block")
        ringside.wait_for_height(recorded.LAST_HEIGHT)
        assert ringside.end() == 0
        until(lambda: not client.is_alive(), "the end of the connection")
        assert client.closed_with in (1001, 1012)
    assert not ringside.left_behind()
    ringside.start()
    ringside.wait_until_serving()
    assert ringside.health()["height"] == recorded.LAST_HEIGHT
    assert len(ringside.logged("resumed")) == 1
    with Witness(story, ringside.port, L4) as client:
        ringside.wait(lambda: client.snapshots, "a snapshot")
        compare_all(ringside, story, client)


def test_a_second_signal_ends_it_at_once(ringside):
    """Also while the first one waits for an engine that does nothing any more."""
    os.kill(ringside.pid("engine"), signal.SIGSTOP)
    ringside.supervisor.send_signal(signal.SIGTERM)
    until(lambda: "ending" in ringside.printed(), "the first signal, heard")
    assert ringside.end() == 128 + signal.SIGTERM
    until(lambda: not ringside.left_behind(), "the end of all its processes")


def test_nothing_is_denied_while_an_engine_has_no_state_yet(ringside, story):
    """Before its first checkpoint an engine begins with empty tables: they are nobody's answer."""
    with Witness(story, ringside.port, L4) as client:
        ringside.wait(lambda: client.snapshots, "a first snapshot")
        said = len(client.statuses())
        ringside.kill("engine")

        def answered_and_live():
            assert ringside.info(L2)["levels"][0]
            assert [asset["name"] for asset in ringside.info({"type": "meta"})["universe"]] == ["BTC"]
            return stale_then_live(client, said)

        ringside.wait(answered_and_live, "a feed called stale, then live")
        assert not ringside.logged("resumed") and len(ringside.logged("bootstrapped")) == 2
