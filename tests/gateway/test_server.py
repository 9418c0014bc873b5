"""The gateway as a process, from its control socket to a client's: what a supervisor and an SDK would see."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from gateway import server
from shm import codes, layout, region, stats
from tests.world import ALICE, BOB, World

ROOT = Path(__file__).parents[2]
SECONDS = 60  # to start, on a bad day


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """The processes find in numba's cache what is compiled here, where no deadline runs."""
    for module in server.WARM:
        module.warm()


class Gateway:
    """A process, and the supervisor's end of its control socket."""

    def __init__(self, path=None, **settings):
        """path: where it is to look for another supervisor."""
        self.control, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(SECONDS)
        arguments = ["--control-fd", str(child.fileno()), "--settings", json.dumps({"port": 0, **settings})]
        if path is not None:
            arguments += ["--control-path", str(path), "--alone-ms", "60000"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *arguments], pass_fds=[child.fileno()], cwd=ROOT
        )
        child.close()
        message, fds = region.receive(self.control)
        assert message == {"kind": "gateway", "pid": self.process.pid}
        self.stats, self.bell_fd = stats.attach(fds[0]), fds[1]
        message, _ = region.receive(self.control)
        assert message["kind"] == "ready"
        self.port = message["port"]

    def send(self, *fds, **message):
        region.send(self.control, message, fds)

    def tell(self, world):
        self.send(world.region.fd, kind="world", epoch=world.region.epoch)

    def ring(self):
        os.eventfd_write(self.bell_fd, 1)

    def post(self, path="/info", **body):
        """Status and body of a POST."""
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def until(self, wanted, **body):
        """Ask until the answer is the wanted one, or the test's time is over."""
        while (answer := self.post(**body)) != wanted:
            time.sleep(0.01)
        return answer

    def health(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=SECONDS) as answer:
            return json.loads(answer.read())

    def connect(self):
        return connect(f"ws://127.0.0.1:{self.port}/ws", open_timeout=SECONDS)

    def end(self):
        self.control.close()
        code = self.process.wait(SECONDS)
        os.close(self.bell_fd)
        self.stats.close()
        return code


def a_world(epoch=1, height=0):
    world = World(epoch, height)
    with world.block() as block:
        block.open("BTC", ALICE, "B", "100", "1", 1)
        block.open("BTC", BOB, "A", "101", "2", 2)
    return world


@contextlib.contextmanager
def running(path=None, **settings):
    gateway = Gateway(path, **settings)
    try:
        yield gateway
    finally:
        gateway.process.kill()
        gateway.process.wait()


@contextlib.contextmanager
def beating(world):
    """An engine's heartbeat."""
    done = threading.Event()

    def beat():
        while not done.wait(0.1):
            world.region.beat(time.monotonic_ns())

    world.region.beat(time.monotonic_ns())
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def subscribe(client, **subscription):
    client.send(json.dumps({"method": "subscribe", "subscription": subscription}))


def receive(client, channel):
    """The data of the next message on a channel."""
    while True:
        message = json.loads(client.recv(timeout=SECONDS))
        if message["channel"] == channel:
            return message.get("data")


MIDS = (200, '{"BTC":"100.5"}')


def test_from_nothing_to_a_live_book_to_the_end():
    world = a_world()
    with running() as gateway, beating(world):
        assert gateway.post(type="allMids") == (503, "not ready: no market data yet")
        assert gateway.health()["state"] == "starting"
        with gateway.connect() as client:
            subscribe(client, type="l2Book", coin="BTC")
            subscribe(client, type="orderUpdates", user=ALICE)
            gateway.tell(world)
            assert receive(client, "subscriptionResponse")["method"] == "subscribe"
            assert receive(client, "l2Book")["levels"][0] == [{"px": "100.0", "sz": "1.0", "n": 1}]
            assert gateway.health()["state"] == "live"
            with world.block() as block:
                block.open("BTC", ALICE, "B", "100.5", "3", 3)
            gateway.ring()
            heard = {"orderUpdates": None, "l2Book": None}
            while None in heard.values():
                message = json.loads(client.recv(timeout=SECONDS))
                heard[message["channel"]] = message["data"]
            assert heard["l2Book"]["levels"][0][0] == {"px": "100.5", "sz": "3.0", "n": 1}
            assert heard["orderUpdates"][0]["order"]["oid"] == 3
            with world.block() as block:  # nobody rings: it is seen all the same
                block.remove(3)
            assert receive(client, "l2Book")["levels"][0][0]["px"] == "100.0"
            assert gateway.post("/exchange", action={"type": "order"})[1].startswith(
                '{"status":"err","response":'
            )
            assert gateway.post(type="nope")[0] == 422
            gateway.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                receive(client, "never")
            assert closed.value.rcvd.code == 1001
        assert gateway.process.wait(SECONDS) == 0


def test_a_restarted_engine_a_refused_world_and_the_end_of_the_supervisor():
    world = a_world()
    with running(wait="spin") as gateway, beating(world), gateway.connect() as client:
        gateway.tell(world)
        gateway.until(MIDS, type="allMids")
        subscribe(client, type="bbo", coin="BTC")
        assert receive(client, "bbo")["bbo"][0]["px"] == "100.0"
        gateway.send(kind="engine_lost")
        assert receive(client, "feedStatus")["status"] == "stale"
        wrong = region.create("wrong", {"status": (layout.WORLD_STATUS, 1)}, 2)
        gateway.send(wrong.fd, kind="world", epoch=2)  # refused: it goes on with what it has
        assert gateway.post(type="allMids") == MIDS
        again = a_world(epoch=3, height=1)
        with again.block() as block:
            block.update(1, "7")
        with beating(again):
            gateway.tell(again)
            assert receive(client, "bbo")["bbo"][0] == {"px": "100.0", "sz": "7.0", "n": 1}
            with again.block() as block:
                block.update(1, "8")
            assert receive(client, "bbo")["bbo"][0]["sz"] == "8.0"
            while stats.read(gateway.stats)["counters"]["blocks"] < 1:  # they are told twice a second
                time.sleep(0.01)
            assert gateway.end() == 0


def test_the_published_sdk_starts_and_hears():
    hyperliquid = pytest.importorskip("hyperliquid.info")
    world = a_world()
    world.market("PURR/USDC", codes.MarketKind.SPOT)
    world.market("@107", codes.MarketKind.SPOT)
    with running() as gateway, beating(world):
        gateway.tell(world)
        gateway.until((200, '{"BTC":"100.5"}'), type="allMids")
        info = hyperliquid.Info(f"http://127.0.0.1:{gateway.port}")
        try:
            assert info.all_mids() == {"BTC": "100.5"}
            assert info.l2_snapshot("BTC")["levels"][1][0]["px"] == "101.0"
            assert [order["oid"] for order in info.open_orders(ALICE)] == [1]
            assert info.user_state(ALICE)["assetPositions"] == []
            assert info.query_order_by_oid(ALICE, 1)["order"]["status"] == "open"
            heard = {}
            arrived = threading.Condition()

            def hear(message):
                with arrived:
                    heard[message["channel"]] = message["data"]
                    arrived.notify()

            for subscription in (
                {"type": "l2Book", "coin": "BTC"},
                {"type": "trades", "coin": "BTC"},
                {"type": "bbo", "coin": "BTC"},
                {"type": "allMids"},
                {"type": "orderUpdates", "user": ALICE},
                {"type": "userFills", "user": ALICE},
                {"type": "userEvents", "user": ALICE},
            ):
                info.subscribe(subscription, hear)
            with arrived:
                assert arrived.wait_for(
                    lambda: {"l2Book", "bbo", "allMids", "userFills"} <= heard.keys(), SECONDS
                )
            time.sleep(0.3)  # the last subscriptions have no first message that would say that they are there
            with world.block() as block:
                block.trade("BTC", ALICE, BOB, "B", "101", "0.5", tid=3)
                block.open("BTC", ALICE, "B", "99", "1", 5)
            with arrived:
                assert arrived.wait_for(lambda: {"trades", "orderUpdates", "user"} <= heard.keys(), SECONDS)
            assert heard["trades"][0]["tid"] == 3
        finally:
            info.disconnect_websocket()


def test_limits_are_spread_by_their_names_and_unknown_ones_refused():
    limits = server.limits_of({"users_max": 3, "gap_ns": 5, "ring_bytes": 4096, "connections_max": 7})
    assert (limits.session.users_max, limits.feed.gap_ns, limits.rim.connections_max) == (3, 5, 7)
    assert limits.feed.fanout.ring_bytes == 4096
    with pytest.raises(ValueError, match="unknown limits: wishes_max"):
        server.limits_of({"wishes_max": 3})


def test_two_gateways_share_a_port():
    first = server.listen("127.0.0.1", 0)
    second = server.listen("127.0.0.1", first.getsockname()[1])
    assert first.getsockname() == second.getsockname()
    first.close(), second.close()
