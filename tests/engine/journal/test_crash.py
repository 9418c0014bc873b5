"""Whenever the power goes, nothing that was durable is lost, and the journal goes on: 2,000 writes, and any
of what a disk may have made of the last of them.

Records and segments are small here, so that a journal has many of both, and a state takes milliseconds.
Each run is several lives of a journal: some end in order, some do not. What is left after the power was lost
is written on, and read again.
"""

from random import Random

import pytest

from engine.journal import writer as writers
from engine.journal.reader import Corrupt, Reader
from engine.journal.record import SECTOR
from engine.journal.writer import Writer
from tests.engine.journal.made import DIRECTORY, commands, everything, same
from tests.engine.journal.memory_disk import MemoryDisk

RUNS, LIVES, BATCHES = 20, 5, 20  # 2,000 writes
STATES, SOAK_STATES = 100, 5_000  # of each run
RECORD_BYTES, SEGMENT_BYTES = 8 * SECTOR, 64 * SECTOR
MOST = 12  # commands of a batch, which take up to six sectors


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(writers, "RECORD_BYTES_MAX", RECORD_BYTES)


class Run:
    """A disk on which a journal has lived. safe[i]: what was durable when i calls had been made."""

    def __init__(self, random):
        self.disk, self.safe, self.written = MemoryDisk(), [0], 0
        for epoch in range(1, LIVES + 1):
            writer = Writer(DIRECTORY, epoch, self.disk, SEGMENT_BYTES)
            self._note(writer)
            for _ in range(BATCHES):
                writer.write(commands(writer.sequence, random.randint(1, MOST)))
                writer.sync()
                self._note(writer)
                writer.make_spares(random.choice((1, 2)))
                if random.random() < 0.2:
                    writer.mark()
            if random.random() < 0.5:
                writer.close()
            else:
                writer.drop()
            self._note(writer)
        self.written = writer.sequence - 1

    def _note(self, writer):
        """From this call on all that the writer calls durable is to be found."""
        before = self.safe[-1]
        self.safe += [before] * (len(self.disk.calls) - len(self.safe)) + [writer.durable]


def check(after, safe):
    """What is left holds what was safe, and goes on; how it ended."""
    found, reader = everything(after, only_durable=False)
    assert same(found, 1, len(found)), "other commands than were written"
    assert len(found) >= safe, f"{safe - len(found)} that were durable are lost"
    torn = reader.end().torn
    reader.close()
    writer = Writer(DIRECTORY, LIVES + 1, after, SEGMENT_BYTES)
    writer.write(commands(writer.sequence, 3))
    writer.sync()
    writer.close()
    assert same(everything(after)[0], 1, len(found) + 3)
    return torn


def crash(seed, states):
    """Lose the power at random moments of a run; how many of the ends were torn."""
    random = Random(seed)
    run, torn = Run(random), 0
    for _ in range(states):
        calls = random.randrange(len(run.disk.calls) + 1)
        torn += check(run.disk.crashed(calls, random), run.safe[min(calls, len(run.safe) - 1)]) != ""
    return torn


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(RUNS))
def test_nothing_that_was_durable_is_lost(seed, pytestconfig):
    assert crash(seed, SOAK_STATES if pytestconfig.getoption("--soak") else STATES) > 0


def test_the_runs_are_what_they_are_said_to_be():
    runs = [Run(Random(seed)) for seed in range(RUNS)]
    records = sum(call[0] == "write" for run in runs for call in run.disk.calls)
    assert records > RUNS * LIVES * BATCHES and all(run.written > 4 * LIVES * BATCHES for run in runs)
    assert all(len({call[1] for call in run.disk.calls if call[0] == "create"}) > 6 for run in runs)


def not_synced(self):
    self.durable = self.sequence - 1


BROKEN = {
    "a write that is not synced": (Writer, "sync", not_synced),
    "a name that is not synced": (MemoryDisk, "sync_directory", lambda self, directory: None),
    "all that cannot be read is damage": (Reader, "_highest", lambda self, segment, offset: 1 << 40),
}


@pytest.mark.parametrize("of, method, instead", BROKEN.values(), ids=BROKEN)
def test_a_journal_that_is_not_careful_is_caught(of, method, instead, monkeypatch):
    monkeypatch.setattr(of, method, instead)
    with pytest.raises((AssertionError, Corrupt)):
        for seed in range(RUNS):
            crash(seed, STATES)
