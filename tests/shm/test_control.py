"""A line that ends is found again under the same number, or is over when nobody has come in time."""

import fcntl
import os
import select
import socket

import pytest

from shm import control, region
from shm.control import HELLO, Line


class Supervisor:
    """One of several, at the same place."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path.unlink(missing_ok=True)
        self.listener.bind(str(path))
        self.listener.listen()

    def meet(self):
        self.line, _ = self.listener.accept()
        return region.receive(self.line)

    def die(self):
        self.listener.close()
        self.line.close()


def lost(line):
    assert line.receive() is None
    line.lose()
    return line


def until_found(line, introduce):
    for _ in range(100):
        assert line.tend(introduce)
        if not line.is_lost:
            return
        select.select([], [], [], 0.02)
    pytest.fail("not found")


def test_the_next_supervisor_is_told_all_again_at_the_same_number(tmp_path, pair):
    ours, theirs = pair
    reading, writing = os.pipe()
    os.write(writing, b"in between\n")
    line = Line(ours, str(tmp_path / "sock"), alone_ms=60_000, output=reading)
    waiter = select.poll()
    waiter.register(line, select.POLLIN)
    theirs.close()
    assert waiter.poll(0)
    lost(line)
    for _ in range(2):
        assert waiter.poll(0) == [], "a lost line is silent"
        line.send({"kind": "unheard"})
        assert line.tend(lambda: pytest.fail("nobody is there")) and line.is_lost
        supervisor = Supervisor(tmp_path / "sock")
        until_found(line, lambda: line.send({"kind": "stats"}))
        hello, (output,) = supervisor.meet()
        assert hello == {"kind": HELLO} and os.path.sameopenfile(output, reading)
        os.close(output)
        assert region.receive(supervisor.line) == ({"kind": "stats"}, [])
        region.send(supervisor.line, {"kind": "drain"})
        assert waiter.poll(1000) == [(ours.fileno(), select.POLLIN)]
        assert line.receive() == ({"kind": "drain"}, [])
        supervisor.die()
        lost(line)
    for fd in (reading, writing):
        os.close(fd)


def test_nobody_is_looked_for_without_a_place_or_for_ever(tmp_path, pair, monkeypatch):
    ours, theirs = pair
    theirs.close()
    assert not lost(Line(ours)).tend(lambda: None)
    line, now = Line(ours, str(tmp_path / "sock"), alone_ms=1_000), [0]
    monkeypatch.setattr(control.time, "monotonic_ns", lambda: now[0])
    line.lose()
    for now[0] in (0, 999_999_999):
        assert line.tend(lambda: None)
    now[0] = 1_000_000_000
    assert not line.tend(lambda: None)


def test_a_line_that_does_not_block_stays_so(tmp_path, pair):
    ours, theirs = pair
    line = Line(ours, str(tmp_path / "sock"), alone_ms=60_000)
    line.setblocking(False)
    theirs.close()
    lost(line)
    supervisor = Supervisor(tmp_path / "sock")
    until_found(line, lambda: None)
    supervisor.meet()
    with pytest.raises(BlockingIOError):
        line.receive()
    supervisor.die()


def test_lines_that_find_no_room_are_counted_and_told(monkeypatch):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    monkeypatch.setattr(control, "STDERR", writing)
    for _ in range(7):
        control.say(b"x" * 1000)
    assert os.read(reading, 1 << 16).count(b"\n") == 4
    control.say(b"after")
    assert os.read(reading, 1 << 16) == b'{"event":"lines_lost","count":3}\nafter\n'
    for fd in (reading, writing):
        os.close(fd)
