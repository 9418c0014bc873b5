"""A journaler's turn, stopped at every instruction: its Python, its kernels and the C library alike.

At each stop the process might be killed, or the power be lost. So at each a watcher looks at the files, the
durable word and the ring; whenever any of them is other than it was a stop before, all of it is read: by a
reader beside, by who recovers after a kill or after a loss of power, and by a successor, who takes what waits
in the ring.

A system call is one step. A sync that runs on the thread beside is not stepped, only what the journaler does
meanwhile: that thread touches nothing but the disk.
"""

import os
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from engine.journal import record, runner, writer
from engine.journal.disk import Disk
from engine.journal.reader import Corrupt, path_of
from engine.journal.record import SECTOR
from engine.journal.runner import Journaler, Settings, Source
from engine.journal.writer import Writer
from shm import layout
from shm.constants import COMMANDS_MAX
from shm.control import Line
from tests.engine.journal.forked import Engine
from tests.engine.journal.made import everything, same
from tests.shm import mapped, single_step

RECORD_BYTES, SEGMENT_BYTES = 8 * SECTOR, 16 * SECTOR
BEGUN, DONE = 0, 1  # words of `syncs`
STATES_MIN, STEPS_MIN = 4, 20_000


class Watched(Disk):
    """Counts its syncs where the watcher sees it, before and after each."""

    def __init__(self):
        self.syncs = mapped.zeros(2, np.int64)

    def sync(self, fd):
        self.syncs[BEGUN] += 1
        super().sync(fd)
        self.syncs[DONE] += 1


class Stage:
    """An engine and a journaler, with a journal of some records, before the turn that is stepped."""

    def __init__(self, directory: Path, before: tuple[int, ...]):
        self.directory, self.disk, self.engine = directory, Watched(), Engine()
        control, self._line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = control
        self.journaler = Journaler(Settings(1, str(directory), SEGMENT_BYTES), Line(self._line), self.disk)
        self.journaler._open(None)
        kept = self.engine.kept
        fds = [os.dup(fd) for fd in (kept.region.fd, self.engine.page.region.fd, self.engine.bell_fd)]
        self.journaler.source = Source(fds, 1)
        for count in before:
            self.engine.push(count)
            while self.journaler._turn():
                pass
        self._ring, self._slots = (kept.region.arrays[name] for name in ("command_ring", "commands"))
        self._files = [open(path, "rb", buffering=0) for path in sorted(directory.iterdir())]  # noqa: SIM115

    def turn(self, marks: np.ndarray) -> None:
        """What is stepped, in the child."""
        self._is_forked()
        single_step.stop_here(marks)
        self.journaler._turn()
        single_step.end_here(marks)

    def end_of_turn(self, marks: np.ndarray) -> None:
        """From the write on."""
        self._is_forked()
        write = self.journaler._writer.write

        def stop_and_write() -> None:
            single_step.stop_here(marks)
            write()

        self.journaler._writer.write = stop_and_write
        self.journaler._turn()
        single_step.end_here(marks)

    def _is_forked(self) -> None:
        self.journaler._beside = ThreadPoolExecutor(1)  # a thread is not forked

    @property
    def durable(self) -> int:
        return self.engine.kept.durable

    @property
    def given_up(self) -> int:
        """How many commands are not in the ring any more."""
        return int(self._ring["head"][0])

    def waiting(self) -> np.ndarray:
        """What is in the ring."""
        at = np.arange(self.given_up, int(self._ring["tail"][0])) % COMMANDS_MAX
        return self._slots.view("i8").reshape(COMMANDS_MAX, -1)[at].view(layout.COMMAND).reshape(-1)

    def texts(self) -> list[bytes]:
        """All segments, as the kernel has them; a spare is one."""
        return [os.pread(file.fileno(), SEGMENT_BYTES, 0) for file in self._files]

    def close(self) -> None:
        for file in self._files:
            file.close()
        self.journaler.source.close()
        self.journaler._writer.drop()
        self._control.close()
        self._line.close()
        self.engine.close()


class Watcher:
    """Looks at each stop. synced: the texts that the disk has; begun: those at the start of the last sync."""

    def __init__(self, stage: Stage, scratch: Path):
        self._stage, self._scratch, self.states = stage, scratch, 0
        self._synced = self._begun = stage.texts()
        self._seen: tuple = ()
        self._syncs = stage.disk.syncs.tolist()

    def look(self) -> None:
        stage = self._stage
        now = (stage.durable, stage.given_up, stage.disk.syncs.tolist(), stage.texts())
        if now == self._seen:
            return
        durable, given_up, syncs, texts = self._seen = now
        if syncs[BEGUN] != self._syncs[BEGUN]:
            self._begun = texts
        if syncs[DONE] != self._syncs[DONE]:
            self._synced = self._begun
        self._syncs = syncs
        self.states += 1
        self._check_reader(durable)
        self._check_killed(texts, durable, given_up)
        for left in after_power_loss(self._synced, texts):
            self._check(left, durable)

    def _check_reader(self, durable: int) -> None:
        """What a reader beside is given is durable."""
        found, reader = everything(Disk(), directory=self._stage.directory)
        reader.close()
        assert same(found, 1, len(found)) and len(found) <= durable, "given before it was durable"

    def _check_killed(self, texts: list[bytes], durable: int, given_up: int) -> None:
        """The kernel lives: what the ring does not hold is in the files; a successor goes on with both."""
        count = self._check(texts, durable)
        assert count >= given_up, "what the ring has given up is not in the journal"
        successor, waiting = Writer(self._scratch, 2, segment_bytes=SEGMENT_BYTES), self._stage.waiting()
        rest = waiting[waiting["sequence"] >= successor.sequence]
        if len(rest):
            successor.write(rest)
            successor.sync()
        successor.close()
        found, reader = everything(Disk(), directory=self._scratch, only_durable=False)
        reader.close()
        assert same(found, 1, self._stage.engine.sequence), "a successor has not all that was pushed"

    def _check(self, texts: list[bytes], durable: int) -> int:
        """Who recovers finds all that is durable, and nothing that was not written; how much."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        for number, text in enumerate(texts, 1):
            path_of(self._scratch, number).write_bytes(text)
        found, reader = everything(Disk(), directory=self._scratch, only_durable=False)
        reader.end()
        reader.close()
        assert same(found, 1, len(found)) and len(found) >= durable, "what was called durable is lost"
        return len(found)


def after_power_loss(synced: list[bytes], texts: list[bytes]):
    """What a disk may hold: of each sector that no sync was told of the old, the new, or half of each."""
    changed = [
        (file, at)
        for file, (old, new) in enumerate(zip(synced, texts, strict=True))
        for at in range(0, len(new), SECTOR)
        if old[at : at + SECTOR] != new[at : at + SECTOR]
    ]
    for kept in product((0, SECTOR // 2, SECTOR), repeat=len(changed)):
        left = [bytearray(text) for text in synced]
        for (file, at), size in zip(changed, kept, strict=True):
            left[file][at : at + size] = texts[file][at : at + size]
        yield left


TURNS = {  # what was pushed before the turn, each for itself; and for it
    "a record": ((3, 1), 3),
    "the first record of the next segment": ((5, 12, 12), 12),
    "a record, and the next one taken on": ((3, 1), 9),
    "a mark": ((3, 1), 0),
}
MOST = {"a record, and the next one taken on": 4}  # commands of a record


@pytest.fixture
def step(tmp_path, monkeypatch):
    """Step through a turn, and look at each stop: how many instructions, and how many states were seen."""
    runner.warm()
    single_step.stop_here(np.zeros(2, np.int64)), single_step.end_here(np.zeros(2, np.int64))
    monkeypatch.setattr(writer, "RECORD_BYTES_MAX", RECORD_BYTES)

    def step(name, part=Stage.turn, broken=()):
        before, count = TURNS[name]
        stage = Stage(tmp_path / "journal", before)
        if broken:
            monkeypatch.setattr(*broken)
        monkeypatch.setattr(runner, "RECORD_COMMANDS", MOST.get(name, runner.RECORD_COMMANDS))
        if count:
            stage.engine.push(count)
        else:
            stage.journaler._is_marked, stage.journaler._wrote_ns = False, 0
        watcher, steps = Watcher(stage, tmp_path / "scratch"), 0
        try:
            with single_step.Stepped(partial(part, stage)) as child:
                for steps in child.steps():  # noqa: B007
                    watcher.look()
        finally:
            stage.close()
        return steps, watcher.states

    return step


def pytest_generate_tests(metafunc):
    """Every turn in a soak."""
    if "turn" in metafunc.fixturenames:
        is_soak = metafunc.config.getoption("--soak")
        metafunc.parametrize("turn", TURNS if is_soak else [*TURNS][:1])


@pytest.mark.timeout(600)
def test_at_every_instruction_of_a_turn_reader_and_recovery_find_a_right_state(step, turn):
    steps, states = step(turn)
    print(f"{turn}: {steps} instructions, {states} states")
    assert steps > STEPS_MIN and states >= STATES_MIN


# --- are those noticed that do it in another order? ---------------------------------------------------------


def say_before_the_sync(self):
    self.source.say(self._writer._written, False)
    self._writer.sync()


def give_up_before_it_is_written(self):
    taken = take(self)
    self.source.drop(taken)
    return taken


def seal_with_its_own(out, segment, offset, durable):
    header = out[: record.HEADER.itemsize].view(record.HEADER)[0]
    seal(out, segment, offset, int(header["sequence"] + header["count"]) - 1)


take, seal = Journaler._take, record.seal
END = Stage.end_of_turn
BROKEN = {
    "called durable before the sync": (Journaler, "_sync", say_before_the_sync, END, "durable is lost"),
    "given up before it is written": (
        Journaler,
        "_take",
        give_up_before_it_is_written,
        Stage.turn,
        "given up",
    ),
    "a record calls its own durable": (record, "seal", seal_with_its_own, END, "given before"),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("of, name, instead, part, said", BROKEN.values(), ids=BROKEN)
def test_another_order_is_caught(step, of, name, instead, part, said):
    with pytest.raises((AssertionError, Corrupt), match=said):
        step("a record", part, broken=(of, name, instead))
