"""Whichever system call of a journaler fails, is done in part or is its last: nothing that it called durable
is lost, nothing is called durable after a failure, and its successor goes on with all that waits.

A real process, on a real disk; each of its calls in turn, until a run has no call of that number any more.
What comes together is more than a record takes at most: so the next one is taken on while a sync runs on the
thread beside, and the faults come there, too.
"""

import time

import numpy as np
import pytest

from engine.journal import disk as disks
from engine.journal import runner, writer
from engine.journal.disk import Disk
from engine.journal.reader import Reader
from tests.engine.journal.forked import HOWS, PARTIAL, RECORD_BYTES, SECONDS, Engine, Forked, Met
from tests.engine.journal.made import commands, same

SCRIPT = (1, 40, 3, 140, 2, 150, 30)  # commands that come together
PAUSE = 3  # after that many batches, it is left alone until it has marked what is durable
RECORD_COMMANDS = 60
CALLS_MIN = 60
STEP = 3  # of the calls, when this is no soak; each way to fail has others


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A record may have no more commands than the script has at once, so that segments are small."""
    runner.warm()
    monkeypatch.setattr(writer, "RECORD_BYTES_MAX", RECORD_BYTES)
    monkeypatch.setattr(runner, "RECORD_COMMANDS", RECORD_COMMANDS)


def journaled(directory):
    """All commands of a journal, and how it ended."""
    reader, pieces = Reader(directory, only_durable=False), [commands(1, 0)]
    while len(piece := reader.read()):
        pieces.append(piece)
    torn = reader.end().torn
    reader.close()
    return np.concatenate([piece.view("i8") for piece in pieces]).view(pieces[0].dtype), torn


def follow_script(engine, journaler, at=0):
    """Push what is left of the script while the journaler lives; how far it came."""
    while keep(engine, journaler) and at < len(SCRIPT):
        if at == PAUSE:
            time.sleep(3 * runner.MARK_SECONDS)
        engine.push(SCRIPT[at])
        at += 1
    return at


def keep(engine, journaler):
    """Wait until all that was pushed is durable; whether it lives."""
    journaler.ring()
    deadline = time.monotonic() + SECONDS
    while journaler.is_alive() and engine.kept.durable < engine.sequence:
        if time.monotonic() > deadline:
            pytest.fail("it neither goes on nor ends")
        time.sleep(0.0005)
    return journaler.is_alive()


def run(directory, number, how):
    """One run with a fault at that call, and its successor's; on which thread that was (Met)."""
    engine = Engine()
    first = Forked(directory, engine, 1, number, how)
    at = follow_script(engine, first) if first.meet() is not None else 0
    code, said = first.end(), engine.kept.durable
    check_end(first, code, how, said)
    before, _ = journaled(directory)
    assert same(before, 1, len(before)) and len(before) >= said, "what was called durable is lost"
    second = Forked(directory, engine, 2)
    assert second.meet() == len(before)
    follow_script(engine, second, at)
    assert second.end() == 0 and engine.kept.durable == engine.sequence
    whole, torn = journaled(directory)
    assert same(whole, 1, sum(SCRIPT)) and torn == ""
    engine.close()
    return first.met


def check_end(journaler, code, how, said):
    """How a journaler ends at its fault; and that it calls nothing durable after one."""
    if journaler.met_at < 0:
        assert code == 0
    elif how.startswith("killed"):
        assert code == -9
    elif how == "ENOSPC":
        assert code in (0, runner.EXIT_FAILED), "a disk without room is waited for, unless a write failed"
    else:
        assert code == runner.EXIT_FAILED
    if code == runner.EXIT_FAILED:
        assert said == journaler.met_at, "something was called durable after a failure"


@pytest.mark.parametrize("how", HOWS)
def test_at_every_system_call(tmp_path, how, pytestconfig):
    step = 1 if how in PARTIAL or pytestconfig.getoption("--soak") else STEP
    number, met = HOWS.index(how) % step, []
    while not met or met[-1] is not Met.NOWHERE:
        met.append(run(tmp_path / str(number), number, how))
        number += step
    assert number >= (CALLS_MIN if how not in PARTIAL else len(SCRIPT))
    assert how in PARTIAL or Met.BESIDE in met, "no fault came while the next record was taken on"
    print(f"{how}: {len(met) - 1} calls, {met.count(Met.BESIDE)} of them beside")


def stubborn(self, fd):
    """A sync that is tried again."""
    try:
        disks.os.fdatasync(fd)
    except OSError:
        disks.os.fdatasync(fd)


def satisfied(self, fd, piece, offset):
    """A write that is not looked at."""
    disks.os.pwrite(fd, piece, offset)


@pytest.mark.parametrize(
    "method, instead, how", [("sync", stubborn, "EIO"), ("write", satisfied, "short")], ids=["sync", "write"]
)
def test_a_disk_that_tries_again_or_does_not_look_is_caught(tmp_path, monkeypatch, method, instead, how):
    monkeypatch.setattr(Disk, method, instead)
    with pytest.raises((AssertionError, runner.Corrupt)):
        for number in range(CALLS_MIN):
            run(tmp_path / str(number), number, how)
