"""The command as a user gives it: a simulation, instances side by side, a recording, two gateways."""

import signal
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from scripts.simulated_node import SimulatedNode
from tests import recorded
from tests.e2e.client import Client
from tests.e2e.instance import Instance, lives, until
from tests.reference_book import followed

pytestmark = pytest.mark.timeout(280)

L2 = {"type": "l2Book", "coin": "BTC"}
BUSY = 75
COINS = ["BTC", "HYPE"]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A small log of a simulated node, its first snapshot, and the books at its end."""
    folder = tmp_path_factory.mktemp("log")
    node = SimulatedNode(folder / "node", seed=3, coins=COINS, depth=40)
    node.step()
    node.write_snapshot(folder / "snapshot.json", triggers=True)
    first = node.snapshot(triggers=True)
    for _ in range(40):
        node.step()
    node.close()
    return folder / "node", folder / "snapshot.json", followed(first, folder / "node", "by_block")


def following(folder: Path, log, *arguments: str, **places: Path) -> Instance:
    node_data, snapshot, _ = log
    folder.mkdir(exist_ok=True)
    return Instance(folder, "--snapshot", str(snapshot), *arguments, node_data=node_data, **places)


def book_of(ringside, coin="BTC"):
    levels = ringside.info({"type": "l2Book", "coin": coin})["levels"]
    return [[(level["px"], level["sz"], level["n"]) for level in side] for side in levels]


def listening(pids):
    """Addresses on which any of the processes listens."""
    connections = [c for pid in pids for c in psutil.Process(pid).net_connections("inet")]
    return {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN}


def test_a_simulation_is_live_and_listens_on_this_machine_alone(tmp_path):
    with Instance(tmp_path, "--simulated") as ringside:
        ringside.wait(lambda: all(book_of(ringside)), "a book with two sides")
        with Client(ringside.port, L2, {"type": "trades", "coin": "BTC"}) as client:
            ringside.wait(lambda: len(client.of("l2Book")) > 3, "books, live")
            ringside.wait(lambda: client.of("trades"), "trades")
        pids = [child.pid for child in psutil.Process(ringside.supervisor.pid).children(recursive=True)]
        addresses = listening([ringside.supervisor.pid, *pids])
        assert len(pids) == 3 and ("127.0.0.1", ringside.port) in addresses
        assert {address for address, _ in addresses} == {"127.0.0.1"}
        assert ringside.end(signal.SIGINT) == 0


def test_two_instances_live_side_by_side_and_a_third_is_refused(tmp_path, log):
    _, _, end = log
    with following(tmp_path / "a", log) as one, following(tmp_path / "b", log) as other:
        for ringside in (one, other):
            ringside.wait_for_height(end.height)
            assert [book_of(ringside, coin) for coin in COINS] == [end.levels(coin, 20) for coin in COINS]
        for third, why in [
            (following(tmp_path / "c", log, data=one.data), "--data"),
            (following(tmp_path / "d", log, "--port", str(other.port)), "--port"),
        ]:
            third.start()
            assert third.supervisor.wait(60) == BUSY
            assert why in third.printed()
        assert one.end() == 0
        assert book_of(other) == end.levels("BTC", 20)


def test_a_recording_is_played_to_its_end_and_served_on(tmp_path, story):
    arguments = ("--snapshot", str(story.snapshot), "--replay-speed", "max")
    with Instance(tmp_path, *arguments, node_data=story.logs["by_block"]) as ringside:
        ringside.wait(lambda: "ENDED" in ringside.printed(), "the end of the recording")
        assert ringside.health()["height"] == recorded.LAST_HEIGHT
        assert book_of(ringside) == story.end.levels("BTC", 20)
        with Client(ringside.port, {"type": "l4Book", "coin": "BTC"}) as client:
            ringside.wait(lambda: client.snapshots, "a snapshot")
            assert len(client.books["BTC"].orders) == recorded.ORDERS_AT_END


def test_two_gateways_share_a_port_and_each_is_restarted_alone(tmp_path, log):
    _, _, end = log
    with following(tmp_path, log, "--gateways", "2") as ringside:
        ringside.wait(lambda: len(ringside.logged("gateway")) >= 4, "two gateways that are ready")
        for victim, survivor in [("gateway 0", "gateway 1"), ("gateway 1", "gateway 0")]:
            with client_of(ringside, victim) as struck, client_of(ringside, survivor) as untouched:
                pid, other = ringside.kill(victim), ringside.pid(survivor)
                ringside.wait(lambda struck=struck: len(struck.of("l2Book")) == 2, "a new snapshot")
                ringside.wait(lambda role=victim, pid=pid: ringside.pid(role) != pid, "its successor")
                assert untouched.connections == 1 and len(untouched.of("l2Book")) == 1
                assert untouched.of("feedStatus") == []
                assert not lives(pid) and ringside.pid(survivor) == other
                with client_of(ringside, victim) as late:
                    assert late.of("l2Book")[0]["coin"] == "BTC"
        assert book_of(ringside) == end.levels("BTC", 20)


@contextmanager
def client_of(ringside, role):
    """A client of that one of the gateways, with its first book: the kernel deals them out."""
    for _ in range(200):
        with Client(ringside.port, L2, returns=True) as client:
            until(lambda client=client: client.check() or client.of("l2Book"), "a book")
            if client.local_port in served_by(ringside.pid(role)):
                yield client
                return
    pytest.fail(f"the kernel gives no client to {role}")


def served_by(pid):
    """The ports of the clients that a process is connected with."""
    connections = psutil.Process(pid).net_connections("inet")
    return {c.raddr.port for c in connections if c.status == psutil.CONN_ESTABLISHED}
