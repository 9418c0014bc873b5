"""A journal on disk as a replica's source; and the replica as a process that reads it and is killed."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from engine.journal.disk import held
from engine.journal.reader import segments
from engine.journal.writer import Writer
from engine.replica.source import Journal
from shm import archived
from tests.engine.replica.stream import RINGS, Pieces, rows, stream
from tests.engine.replica.test_runner import SEED, ended, follow, runner
from tests.exchange.commands import ROOMY

DEADLINE_SECONDS = 120


def written(directory, commands, *bounds):
    """A journal of these commands, with a segment for each of `bounds`, which name their last sequences."""
    first = 0
    for epoch, last in enumerate(bounds, 1):
        writer = Writer(directory, epoch)
        writer.write(commands[first:last])
        writer.sync()
        writer.close()
        first = last


@pytest.fixture(scope="module")
def commands():
    return stream(SEED)


def all_of(source):
    given = []
    while len(piece := source.read()):
        given.append(piece)
    return np.concatenate(given)


def test_it_gives_what_is_durable_from_where_it_is_asked(commands, tmp_path):
    source = Journal(tmp_path)
    assert source.first == 1 and len(source.read()) == 0
    written(tmp_path, commands, 100, 200, 300)
    source.begin(150)
    assert all_of(source)["sequence"].tolist() == [*range(150, 301)]


def test_segments_below_are_removed_and_only_those(commands, tmp_path):
    written(tmp_path, commands, 100, 200, 300, 400)
    source = Journal(tmp_path)
    for sequence, first in ((0, 1), (99, 1), (100, 101), (299, 201), (10_000, 301)):
        source.forget(sequence)
        assert source.first == first
        source.begin(max(first, 1))
        assert all_of(source)["sequence"][-1] == 400
    assert len(segments(tmp_path, source._disk)) == 1, "the last one stays, whatever is forgotten"


def test_nothing_is_removed_while_someone_reads_the_journal_from_a_place_that_may_go(commands, tmp_path):
    written(tmp_path, commands, 100, 200)
    source = Journal(tmp_path)
    with held(tmp_path) as one, held(tmp_path) as other:
        assert one and other
        source.forget(100)
        assert source.first == 1
    source.forget(100)
    assert source.first == 101


# --- the process --------------------------------------------------------------------------------------------


class Process:
    """`python -m engine.replica` on a directory, and what it has logged."""

    def __init__(self, directory):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settings = {
            "journal": str(directory / "journal"), "snapshots": str(directory / "snapshots"),
            "archive": str(directory / archived.FILE), "capacity": ROOMY._asdict(), "rings": RINGS,
            "snapshot_commands": 200,
        }  # fmt: skip
        self.log = open(directory / "log", "ab")  # noqa: SIM115
        self.child = subprocess.Popen(
            [sys.executable, "-m", "engine.replica", "--settings", json.dumps(settings)]
            + ["--control-fd", str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stderr=self.log,
        )  # fmt: skip
        theirs.close()

    def kill(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        self._close()

    def end(self):
        self.control.close()
        assert self.child.wait(DEADLINE_SECONDS) == 0
        self._close()

    def _close(self):
        self.control.close()
        self.log.close()


def archived_up_to(directory):
    try:
        return rows(directory / archived.FILE)["span"][0][1]
    except Exception:  # it is just being made
        return 0


def reached(directory, sequence):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while archived_up_to(directory) < sequence:
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain for {sequence}: {(directory / 'log').read_text()}")
        time.sleep(0.02)


@pytest.mark.timeout(3000)
def test_killed_under_load_it_writes_everything_once(commands, tmp_path, pytestconfig):
    chance, kills = random.Random(5), 300 if pytestconfig.getoption("--soak") else 4
    bounds = [len(commands) * number // (kills + 1) for number in range(1, kills + 2)]
    blocks = np.flatnonzero(commands["kind"] == commands["kind"][-1]) + 1  # an END_BLOCK is the last
    replica, writer, at = Process(tmp_path), Writer(tmp_path / "journal", 1), 0
    for bound in bounds:
        while at < bound:
            count = min(chance.randint(1, 40), len(commands) - at)
            writer.write(commands[at : at + count])
            writer.sync()
            at += count
            time.sleep(chance.random() * 0.004)
        writer.mark()
        writer.sync()
        if bound != bounds[-1]:
            if chance.random() < 0.7:
                reached(tmp_path, int(blocks[blocks <= at][-2]))
            replica.kill()
            replica = Process(tmp_path)
    writer.close()
    reached(tmp_path, int(blocks[-2]))
    replica.end()
    expected = runner(tmp_path / "whole", Pieces(commands[: int(blocks[-2])]))
    follow(expected)
    ended(expected)
    assert rows(tmp_path / archived.FILE) == rows(tmp_path / "whole" / archived.FILE)
    log = (tmp_path / "log").read_text()
    assert "diverged" not in log and "anew" not in log
    assert log.count('"event":"replica"') >= kills // 2, "it was killed, and has begun again"
    assert os.path.exists(tmp_path / "snapshots")
