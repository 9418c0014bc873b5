"""A gateway process of an exchange: an engine here answers through the door, clients ask over the network."""

import contextlib
import json
import os
import signal
import socket
import threading
import time

import eth_account
import msgspec
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from gateway import errors, server
from shm import layout, region, stats, wait
from shm.codes import Ack as Outcome
from shm.codes import Ask, Command, Mode
from shm.control import HELLO
from tests.gateway import engine as tests_engine
from tests.gateway import signed
from tests.gateway.test_server import SECONDS, a_world, beating, receive, running
from tests.world import World

NOOP = {"type": "noop"}
DEFAULT = {"status": "ok", "response": {"type": "default"}}
ORDER = {"a": 0, "b": True, "p": "100", "s": "0.25", "r": False, "t": {"limit": {"tif": "Gtc"}}}


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """The processes find in numba's cache what is compiled here; and the engine here keeps nobody waiting."""
    for module in server.WARM:
        module.warm()
    local = tests_engine.Engine(World())
    local.ack(local.pop())


class Engine(tests_engine.Hand):
    """One whose door is a gateway process's: it hands over its world, its bell, and takes the door."""

    def __init__(self, gateway, epoch=1):
        self.gateway = gateway
        self.stats = stats.Stats(name="engine", epoch=epoch)
        self.bell_fd = wait.new_eventfd()
        world = a_world(epoch)
        world.status["mode"] = Mode.EXCHANGE
        gateway.send(
            world.region.fd, self.stats.region.fd, self.bell_fd, kind="world", epoch=world.region.epoch
        )
        message, fds = region.receive(gateway.control)
        assert message == {"kind": "door", "epoch": epoch}
        self.door = region.attach(*fds, layout.DOOR, writable=True, epoch=epoch)
        super().__init__(world, self.door.arrays)

    def show(self):
        super().show()
        self.gateway.ring()

    def wait_for(self, count=1):
        """Sleep, as engines do, until the gateway rings; then take what it has sent."""
        commands = self.pop()
        while len(commands) < count:
            wait.will_sleep(self.stats.bell)
            while len(more := self.pop()) == 0:
                time.sleep(0.001)
            wait.woke(self.stats.bell)
            wait.drain(self.bell_fd)
            commands = np.concatenate([commands, more])
        return commands

    @contextlib.contextmanager
    def at_work(self, outcome=Outcome.DONE, **facts):
        """Answer everything, the same way, until the end."""
        done, seen = threading.Event(), []

        def work():
            while not done.wait(0.001):
                seen.extend(self.answer_all(outcome, **facts))
                self.gateway.ring()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield seen
        finally:
            done.set()
            thread.join()


def now_ms():
    return time.time_ns() // 1_000_000


def envelope(action, **more):
    return signed.envelope(action, nonce=now_ms(), **more)


@contextlib.contextmanager
def asked(gateway, action):
    """A POST /exchange that is under way; gives the list in which its answer will be."""
    told = []
    thread = threading.Thread(target=lambda: told.append(gateway.post("/exchange", **envelope(action))))
    thread.start()
    try:
        yield told
    finally:
        thread.join()


def say(client, **message):
    client.send(json.dumps(message))


def post(client, payload, id):
    say(client, method="post", id=id, request={"type": "action", "payload": payload})


@pytest.mark.parametrize(("how", "who"), [("park", "client"), ("spin", "gateway")])
def test_orders_over_http_and_websocket_and_who_leaves(how, who):
    with running(mode="exchange", wait=how) as gateway:
        assert json.loads(gateway.post("/exchange", **envelope(NOOP))[1])["response"] == errors.NO_ENGINE
        engine = Engine(gateway)
        with beating(engine.world), gateway.connect() as client:
            with asked(gateway, NOOP) as told:
                engine.ack(engine.wait_for())
                engine.show()
            assert (told[0][0], json.loads(told[0][1])) == (200, DEFAULT)
            assert gateway.post("/exchange", action=NOOP) == (422, errors.BAD_BODY.message)
            login = {"type": "login", "validUntil": now_ms() + 60_000, "cancelOnDisconnect": True}
            say(client, method="login", id=3, request=envelope(login))
            engine.ack(engine.wait_for())
            engine.show()
            answer = receive(client, "login")
            assert (answer["status"], answer["user"]) == ("ok", "0x" + signed.SIGNER.hex())
            post(client, {"action": {"type": "order", "orders": [ORDER], "grouping": "na"}}, id=4)
            commands = engine.wait_for()
            assert commands["flags"][0] == Ask.SESSION and commands["quantity"][0] == 25_000
            engine.ack(commands, Outcome.RESTING, order=17)
            engine.show()
            response = receive(client, "post")["response"]["payload"]["response"]
            assert response["data"] == {"statuses": [{"resting": {"oid": 17}}]}
            if who == "client":
                client.close()
            else:
                gateway.process.send_signal(signal.SIGTERM)
            assert engine.wait_for()["kind"].tolist() == [Command.CANCEL_ALL]


def test_the_published_sdk_trades():
    sdk = pytest.importorskip("hyperliquid.exchange")
    with running(mode="exchange") as gateway:
        engine = Engine(gateway)
        wallet = eth_account.Account.from_key(signed.KEY)
        with beating(engine.world), engine.at_work(Outcome.RESTING, order=5) as seen:
            client = sdk.Exchange(wallet, f"http://127.0.0.1:{gateway.port}")
            answer = client.order("BTC", True, 0.25, 100, {"limit": {"tif": "Gtc"}})
            assert answer["response"]["data"] == {"statuses": [{"resting": {"oid": 5}}]}
            cancelled = client.cancel("BTC", 5)
            assert cancelled["response"] == {"type": "cancel", "data": {"statuses": ["success"]}}
            assert client.update_leverage(5, "BTC") == DEFAULT
            assert client.usd_transfer(1.5, signed.AGENT) == DEFAULT
            approved, key = client.approve_agent()
            assert approved == DEFAULT and eth_account.Account.from_key(key)
        kinds = [Command.ORDER, Command.CANCEL, Command.UPDATE_LEVERAGE, Command.USD_SEND]
        assert [int(command["kind"]) for command in seen] == [*kinds, Command.APPROVE_AGENT]
        assert {command["signer"].tobytes() for command in seen} == {signed.SIGNER}


def test_a_lost_engine_a_new_door_and_the_end():
    with running(mode="exchange") as gateway:
        engine = Engine(gateway)
        with beating(engine.world), asked(gateway, NOOP) as told:
            engine.wait_for()
            gateway.send(kind="engine_lost")
        assert told == [(504, errors.UNKNOWN.message)]
        engine = Engine(gateway, epoch=4)
        assert len(engine.pop()) == 0, "nothing is sent again"
        with beating(engine.world), gateway.connect() as client, asked(gateway, NOOP) as told:
            post(client, envelope(NOOP), id=1)
            commands = engine.wait_for(2)
            gateway.process.send_signal(signal.SIGTERM)
            engine.ack(commands)
            engine.show()
            assert receive(client, "post")["response"]["payload"] == DEFAULT, "what is in flight is answered"
            with pytest.raises(ConnectionClosed):
                receive(client, "never")
        assert json.loads(told[0][1]) == DEFAULT
        assert gateway.process.wait(SECONDS) == 0


def test_another_supervisor_is_told_the_same_and_what_is_under_way_is_answered(tmp_path):
    with running(tmp_path / "control.sock", mode="exchange") as gateway:
        engine = Engine(gateway)
        with beating(engine.world), gateway.connect() as client:
            post(client, envelope(NOOP), id=1)
            commands = engine.wait_for()
            gateway.control.close()
            post(client, envelope(NOOP), id=2)
            commands = np.concatenate([commands, engine.wait_for()])
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                listener.bind(str(tmp_path / "control.sock"))
                listener.listen()
                gateway.control, _ = listener.accept()
            kinds = [region.receive(gateway.control)[0]["kind"] for _ in range(3)]
            assert kinds == [HELLO, "gateway", "ready"]
            fds = [engine.world.region.fd, engine.stats.region.fd, engine.bell_fd]
            gateway.send(*fds, kind="world", epoch=1)
            message, (door,) = region.receive(gateway.control)
            assert message == {"kind": "door", "epoch": 1}
            assert os.path.sameopenfile(door, engine.door.fd), "the one that it has"
            os.close(door)
            engine.ack(commands)
            engine.show()
            for _ in range(2):
                assert receive(client, "post")["response"]["payload"] == DEFAULT


def test_worlds_come_and_go_and_one_without_its_engine_is_refused():
    with running(mode="exchange") as gateway:
        open_files = set()
        for epoch in range(1, 5):
            engine = Engine(gateway, epoch)
            gateway.tell(a_world(epoch=9))
            with beating(engine.world):
                with asked(gateway, NOOP) as told:
                    engine.ack(engine.wait_for())
                    engine.show()
                assert json.loads(told[0][1]) == DEFAULT
            open_files.add(shared_files(gateway.process.pid))
        assert len(open_files) == 1, "nothing is left of those that went"


def test_signatures_for_the_public_exchange_are_taken_only_if_asked_for_and_then_it_is_said(capfd):
    with running(mode="exchange", sources="ab") as gateway:
        assert "valid order on the public exchange" in capfd.readouterr().err
        engine = Engine(gateway)
        with beating(engine.world), engine.at_work() as seen:
            for mainnet in (True, False):
                action = envelope(NOOP, mainnet=mainnet)
                assert json.loads(gateway.post("/exchange", **action)[1]) == DEFAULT
        assert seen[0]["signer"].tobytes() == signed.SIGNER
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"sources":"c"}', type=server.Settings)


def shared_files(pid):
    """How many descriptors a process has of what processes share."""
    count = 0
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since the list was made
            file = os.readlink(entry.path)
            count += "memfd:" in file or "eventfd" in file
    return count
