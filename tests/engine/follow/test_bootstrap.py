"""A snapshot is asked for and comes later, or not, and nobody waits for it."""

import json
import threading
from concurrent.futures import wait

import pytest

from engine.follow.bootstrap import FileSource, NodeSource, NoSource, ask_node
from scripts.simulated_node import SimulatedNode, serve_info


@pytest.fixture
def node(tmp_path):
    node = SimulatedNode(tmp_path / "node", seed=1, coins=["BTC"], depth=10)
    node.step()
    server = serve_info(node, 0)
    yield node, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    node.close()


def taken(source):
    """What comes within some seconds."""
    if source._reply is not None:
        wait([source._reply], 20)
    return source.take()


def test_no_source_has_nothing():
    assert not NoSource().ask() and NoSource().take() is None


def test_a_file_is_read_once_until_it_changes(tmp_path):
    path = tmp_path / "snapshot.json"
    source = FileSource(path)
    assert not source.ask() and source.take() is None, "it is not there yet"
    path.write_text("[1,[]]")
    assert source.take() is None, "nobody has asked"
    assert source.ask() and source.take().tobytes() == b"[1,[]]"
    assert not source.ask() and source.take() is None, "it is as it was"
    other = tmp_path / "beside"
    other.write_text("[2,[]]")
    other.replace(path)
    assert source.ask() and source.take().tobytes() == b"[2,[]]"


def test_a_file_that_goes_away_between_is_an_error_once(tmp_path):
    path = tmp_path / "snapshot.json"
    path.write_text("[1,[]]")
    source = FileSource(path)
    assert source.ask()
    path.unlink()
    with pytest.raises(OSError):
        source.take()
    assert source.take() is None and not source.ask()


def test_a_node_writes_and_we_read(node, tmp_path):
    simulated, url = node
    path = tmp_path / "ours.json"
    source = NodeSource(url + "/", path)
    assert source.take() is None
    assert source.ask() and source.ask(), "one question at a time, asked as often as one likes"
    text = taken(source)
    assert json.loads(text.tobytes()) == simulated.snapshot(users=True, triggers=True)
    assert not path.exists(), "a snapshot of a node is large: it is not left behind"
    assert source.take() is None
    simulated.step()
    assert source.ask() and json.loads(taken(source).tobytes())[0] == simulated.height


def test_a_node_that_is_not_there_raises_and_may_be_asked_again(tmp_path, node):
    source = NodeSource("http://127.0.0.1:1", tmp_path / "ours.json")
    assert source.ask()
    with pytest.raises(OSError):
        taken(source)
    source.url = node[1]
    assert source.ask() and taken(source) is not None


def test_a_node_that_refuses_is_an_error(node, tmp_path):
    with pytest.raises(OSError):
        ask_node(node[1], {"type": "nonsense"})
    source = NodeSource(node[1], tmp_path / "nowhere" / "ours.json")
    source.ask()
    with pytest.raises(OSError):
        taken(source)


def test_asking_does_not_wait_for_the_answer(node, tmp_path):
    """The node holds its lock for as long as it writes; meanwhile the caller goes on."""
    simulated, url = node
    source = NodeSource(url, tmp_path / "ours.json")
    with simulated._lock:
        assert source.ask() and source.take() is None and source.ask()
        assert threading.active_count() > 1
    assert taken(source) is not None
