"""One instance a directory, one a port; epochs only rise."""

import multiprocessing
import os
import socket
import stat

import pytest

from scripts import instance
from scripts.instance import Busy, Instance


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(instance, "WAIT_SECONDS", 0.1)


def test_a_second_instance_is_refused_and_told_of_the_first(tmp_path):
    first = Instance(tmp_path / "a" / "b")
    with pytest.raises(Busy, match=f"process {os.getpid()}.*--data"):
        Instance(tmp_path / "a" / "b")
    first.close()
    Instance(tmp_path / "a" / "b").close()


def test_one_that_is_about_to_end_is_waited_for(tmp_path, monkeypatch):
    first = Instance(tmp_path)
    kept = os.dup(first.lock)
    first.close()
    with pytest.raises(Busy):
        Instance(tmp_path)
    looks = []

    def look(_):
        looks.append(1)
        if len(looks) == 3:
            os.close(kept)

    monkeypatch.setattr(instance.time, "sleep", look)
    monkeypatch.setattr(instance, "WAIT_SECONDS", 60)
    Instance(tmp_path).close()
    assert len(looks) == 3


def test_what_is_kept_is_for_its_owner_alone(tmp_path):
    mine = Instance(tmp_path / "data")
    for path in (tmp_path / "data", mine.directory("log")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    mine.close()


def test_epochs_rise_over_instances_and_over_damage(tmp_path):
    epochs = []
    for damage in (None, None, b"", b"garbage", b"9" * 30):
        if damage is not None:
            (tmp_path / "epoch").write_bytes(damage)
        mine = Instance(tmp_path)
        epochs += [mine.next_epoch(), mine.next_epoch()]
        assert mine.epoch_was_damaged == (damage is not None)
        mine.close()
    assert epochs[:4] == [1, 2, 3, 4]
    assert epochs[4] > 1_000_000_000 and epochs[6] >= epochs[4] and epochs[8] >= epochs[6]


def test_the_epoch_on_disk_is_never_behind_the_one_given(tmp_path):
    mine = Instance(tmp_path)
    for _ in range(3):
        given = mine.next_epoch()
        assert int((tmp_path / "epoch").read_text()) == given
    mine.close()


def listener(port):
    """As a gateway listens."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    return sock


def test_a_reserved_port_is_shared_by_gateways_and_refused_to_another_instance():
    with instance.reserve("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(Busy, match=f"{port}.*--port"):
            instance.reserve("127.0.0.1", port)
        with listener(port), listener(port):
            with socket.create_connection(("127.0.0.1", port)), pytest.raises(Busy):
                instance.reserve("127.0.0.1", port)


def test_a_port_of_another_program_is_refused():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(Busy):
            instance.reserve("127.0.0.1", other.getsockname()[1])


def test_connections_that_were_closed_do_not_keep_the_port():
    with instance.reserve("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        with listener(port) as gateway:
            client = socket.create_connection(("127.0.0.1", port))
            gateway.accept()[0].close()  # the server closes first: TIME_WAIT is on our side
            assert client.recv(1) == b""
            client.close()
    instance.reserve("127.0.0.1", port).close()


def test_an_address_that_is_not_ours_is_an_os_error():
    with pytest.raises(OSError):
        instance.reserve("192.0.2.1", 0)


def _epochs(path, count, out):
    for _ in range(count):
        try:
            mine = Instance(path)
        except Busy:
            continue
        out.put(mine.next_epoch())
        mine.close()


def test_no_epoch_is_given_twice_by_racing_instances(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    out = spawn.Queue()
    racers = [spawn.Process(target=_epochs, args=(tmp_path, 20, out)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    given = [out.get() for _ in range(int((tmp_path / "epoch").read_text()))]
    assert sorted(given) == list(range(1, len(given) + 1))
