"""The journaler: what an engine pushes becomes durable once and in order, and nothing is said too soon."""

import errno
import os
import socket
import threading
import time

import msgspec
import pytest

from engine import process
from engine.exchange import durable
from engine.journal import runner
from engine.journal.reader import Corrupt
from engine.journal.record import SECTOR
from engine.journal.runner import PIECE_COMMANDS, RECORD_COMMANDS, Journaler, Settings
from shm import region, stats, wait
from shm.constants import COMMANDS_MAX
from shm.control import HELLO, Line
from tests.engine.journal.made import DIRECTORY, SMALLEST, commands, everything, same
from tests.engine.journal.memory_disk import MemoryDisk

DEADLINE_SECONDS = 60


def until(condition, what):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain for {what}")
        time.sleep(0.001)
    return found


class Engine:
    """The other end of the ring."""

    def __init__(self, epoch=1, sequence=0):
        self.kept, self.page, self.bell_fd = (
            durable.Journal(epoch, sequence),
            stats.Stats(),
            wait.new_eventfd(),
        )
        self.epoch, self.sequence = epoch, sequence

    def push(self, count):
        self.kept.push(commands(self.sequence + 1, count))
        self.sequence += count

    @property
    def durable(self):
        return self.kept.durable


class Running:
    """A Journaler on a thread, and what it has said; `fault` is what it ended with."""

    def __init__(self, disk, epoch=1, segment_bytes=SMALLEST, path=""):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(DEADLINE_SECONDS)
        settings = Settings(epoch, str(DIRECTORY), segment_bytes)
        self.journaler, self.fault = Journaler(settings, Line(theirs, path, alone_ms=60_000), disk), None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.journaler.run()
        except (OSError, Corrupt) as fault:
            self.fault = fault

    def announced(self):
        message, (page, self.bell_fd) = region.receive(self.control)
        self.page = stats.attach(page)
        assert message.pop("kind") == "journal"
        self.holds = message.get("holds")
        return message["sequence"]

    def meet(self, engine):
        fds = [engine.kept.region.fd, engine.page.region.fd, engine.bell_fd]
        region.send(self.control, {"kind": "journal", "epoch": engine.epoch}, fds)

    def ring(self):
        wait.ring_bells([self.page.arrays["bell"]], [self.bell_fd])

    def say(self, kind):
        region.send(self.control, {"kind": kind})

    def end(self):
        if self.thread.is_alive():
            self.say("drain")
        self.thread.join(DEADLINE_SECONDS)
        assert not self.thread.is_alive()
        return self.fault


@pytest.fixture
def disk():
    return MemoryDisk()


@pytest.fixture
def start(disk):
    made = []

    def start(on=None, **more):
        made.append(Running(on or disk, **more))
        return made[-1]

    yield start
    for one in made:
        one.end()


def begun(start, **more):
    """A journaler and an engine that know each other."""
    running, engine = start(**more), Engine()
    assert running.announced() == 0
    running.meet(engine)
    return running, engine


def test_what_is_pushed_is_durable_once_and_in_order(start, disk):
    running, engine = begun(start)
    for count in (1, 2, 500, 8000, 1, 8000, 3):
        until(lambda n=count: engine.kept.room >= n, "room")
        engine.push(count)
        running.ring()
    until(lambda: engine.durable == engine.sequence, "all of it")
    assert engine.kept.room == COMMANDS_MAX
    until(lambda: len(everything(disk)[0]) == engine.sequence, "a mark that calls it durable")
    assert running.end() is None
    found, reader = everything(disk)
    assert same(found, 1, engine.sequence) and reader.end().torn == ""
    reader.close()
    assert disk.open_files == {}


def test_the_engine_is_rung_when_something_is_durable(start):
    running, engine = begun(start)
    until(lambda: engine.durable == 0 and running.journaler.source, "the journaler")
    wait.will_sleep(engine.page.bell)
    engine.push(1)
    running.ring()
    os.set_blocking(engine.bell_fd, True)
    os.eventfd_read(engine.bell_fd)
    until(lambda: engine.durable == 1, "the command")


class Slow(MemoryDisk):
    """Its syncs last as long as `wait` does; so long, nothing may be written."""

    def __init__(self):
        super().__init__()
        self.wait, self.is_syncing = (lambda: None), False

    def sync(self, fd):
        self.is_syncing = True
        self.wait()
        self.is_syncing = False
        super().sync(fd)

    def write(self, fd, piece, offset):
        assert not self.is_syncing, "what was written earlier is not durable yet"
        super().write(fd, piece, offset)


def test_what_comes_while_a_sync_runs_is_taken_on_and_written_after_it(start):
    slow = Slow()
    running, engine = begun(start, on=slow)
    until(lambda: running.journaler.source, "the journaler")
    journal, seen = running.journaler._writer, []

    def wait_until_all_is_taken():
        slow.wait = lambda: None
        engine.push(2 * PIECE_COMMANDS)
        until(lambda: journal.taken == 1 + 2 * PIECE_COMMANDS, "the next record")
        seen.append(engine.durable)

    slow.wait = wait_until_all_is_taken
    engine.push(RECORD_COMMANDS + 1)
    running.ring()
    until(lambda: engine.durable == engine.sequence == RECORD_COMMANDS + 1 + 2 * PIECE_COMMANDS, "all of it")
    assert running.end() is None and seen == [0], "nothing is said before the sync has returned"
    assert same(everything(slow)[0], 1, engine.sequence)


@pytest.mark.parametrize("call", ["write", "sync", "short"])
def test_after_a_failure_nothing_is_said_and_its_successor_takes_all_that_waits(start, disk, call):
    running, engine = begun(start)
    engine.push(3)
    running.ring()
    until(lambda: engine.durable == 3, "the first commands")
    until(lambda: running.journaler._is_marked, "a mark")
    place = len(disk.calls) + (call == "sync")
    disk.fail = {place: "short" if call == "short" else errno.EIO}
    engine.push(5)
    running.ring()
    running.thread.join(DEADLINE_SECONDS)
    assert running.fault.errno == errno.EIO
    assert engine.durable == 3
    engine.push(2)
    successor = start(on=disk.copy(), epoch=2)
    assert successor.announced() == (8 if call == "sync" else 3)
    successor.meet(engine)
    until(lambda: engine.durable == 10, "all that waits")
    engine.push(1)
    successor.ring()
    assert successor.end() is None
    assert same(everything(successor.journaler._disk)[0], 1, 11)


def test_what_a_dead_engine_has_left_is_kept_before_the_next_one_begins(start, disk):
    running, engine = begun(start)
    engine.push(4)
    running.say("engine_lost")
    assert running.announced() == 4
    following = Engine(epoch=2, sequence=4)
    following.push(3)
    running.meet(following)
    until(lambda: following.durable == 7, "the commands of the next engine")
    assert running.end() is None
    assert same(everything(disk)[0], 1, 7)


def test_another_supervisor_is_told_whose_ring_is_held_and_offers_it_in_vain(start, tmp_path):
    running, engine = begun(start, path=str(tmp_path / "control.sock"))
    assert running.holds is None
    engine.push(3)
    running.ring()
    until(lambda: engine.durable == 3, "all of it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()
        running.control.close()
        running.control, _ = listener.accept()
    assert region.receive(running.control)[0] == {"kind": HELLO}
    assert (running.announced(), running.holds) == (3, engine.epoch)
    running.meet(engine)
    engine.push(4)
    running.ring()
    until(lambda: engine.durable == 7, "what came after it")
    running.say("engine_lost")
    assert (running.announced(), running.holds) == (7, None)


def test_an_engine_of_another_journal_is_refused(start):
    for sequence, pushed in ((7, 0), (3, 2)):
        running, stranger = start(on=MemoryDisk()), Engine(sequence=sequence)
        running.announced()
        if pushed:
            stranger.push(pushed)
        running.meet(stranger)
        running.thread.join(DEADLINE_SECONDS)
        assert isinstance(running.fault, Corrupt)


def test_on_a_full_disk_it_says_so_and_goes_on_while_there_is_room_and_again_when_there_is(
    start, disk, monkeypatch
):
    monkeypatch.setattr(runner, "FULL_SECONDS", 0.01)
    disk.free = 2 * SMALLEST + 10 * SECTOR
    running, engine = begun(start)
    until(lambda: engine.kept.is_full, "word of the full disk")
    for _ in range(2):
        engine.push(RECORD_COMMANDS)
        running.ring()
        until(lambda: engine.durable == engine.sequence, "what there was room for")
    engine.push(COMMANDS_MAX)
    running.ring()
    time.sleep(0.1)
    assert engine.durable < engine.sequence and engine.kept.room < COMMANDS_MAX
    disk.free += 10 * SMALLEST
    until(lambda: engine.durable == engine.sequence, "the rest")
    until(lambda: not engine.kept.is_full, "word of the room")
    assert running.end() is None
    assert same(everything(disk)[0], 1, engine.sequence)


def test_a_disk_without_any_room_is_waited_for(start, disk, monkeypatch):
    monkeypatch.setattr(runner, "FULL_SECONDS", 0.01)
    disk.free = SMALLEST - 1
    running = start()
    time.sleep(0.05)
    assert running.thread.is_alive()
    disk.free += 5 * SMALLEST
    assert running.announced() == 0


def test_a_damaged_journal_ends_it_with_a_code_of_its_own(start, disk, tmp_path):
    running, engine = begun(start)
    engine.push(1)
    running.ring()
    until(lambda: engine.durable == 1, "the command")
    running.end()
    for path, file in disk.files.items():
        file[SECTOR + 200] ^= 1
        (tmp_path / path.name).write_bytes(bytes(file))
    _, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    settings = Settings(2, str(tmp_path), SMALLEST)
    given = msgspec.json.encode(settings).decode()
    arguments = ["--settings", given, "--control-fd", str(theirs.detach())]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(process.signal, "signal", lambda *_: None)
        assert runner.main(arguments) == runner.EXIT_CORRUPT
