"""What is loaded is what was saved, to the byte, and goes on as it would have; damage is passed over."""

import io
import os

import numpy as np
import pytest

from engine.exchange import snapshot
from shm.constants import PAGE
from shm.layout import WORD
from tests.engine.exchange.running import Running
from tests.engine.exchange.test_project import blocks
from tests.exchange.commands import TIGHT, Swarm

SEEDS = [0, 3, 7, 11]
LITTLE = {"events": 64, "fills": 32, "trades": 32, "closed": 32, "rejected": 32, "ledger": 32, "buckets": 8}


def sections(running):
    return snapshot._sections(running.core, running.world)


def differences(one, other):
    """The sections that differ in any byte."""
    pairs = zip(sections(one).items(), sections(other).values(), strict=True)
    return [name for (name, mine), theirs in pairs if mine.tobytes() != theirs.tobytes()]


def save(directory, running):
    path = snapshot.save(directory, running.core, running.world)
    snapshot.prune(directory, running.core, running.world)
    return path


def newest(directory, running, **more):
    return snapshot.newest(directory, running.core, running.world, **more)


def grown(seed=3, capacity=TIGHT, count=6):
    """A small exchange with small rings, which have been overrun."""
    running = Running(capacity, **LITTLE)
    taken = blocks(Swarm(seed, capacity))
    for _ in range(count):
        running.take(next(taken))
    return running, taken


@pytest.fixture
def saved(tmp_path):
    running, taken = grown()
    return running, taken, save(tmp_path, running), tmp_path


# --- what comes back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_from_every_snapshot_the_exchange_goes_on_as_it_would_have(tmp_path, seed):
    chance = Swarm(seed)
    running, others = Running(chance.capacity), []
    for number, block in enumerate(blocks(chance)):
        running.take(block)
        for other in others:
            other.take(block)
        if number % 7 == 2:
            save(tmp_path, running)
            others.append(Running(chance.capacity))
            taken, complaints = newest(tmp_path, others[-1])
            heap = running.core.heap[0]
            assert [*taken] == [int(heap[name]) for name in taken._fields] and complaints == []
            assert differences(running, others[-1]) == []
    assert len(others) > 1
    for other in others:
        assert differences(running, other) == []


def test_nothing_is_kept_of_a_block_and_all_else_is(saved):
    running, _, _, _ = saved
    names = {name.partition(".")[2] for name in sections(running)}
    state = {*running.core._fields, *running.world._fields} - {"state"}
    for part in running.world.state:
        state |= {*part._fields} if isinstance(part, tuple) else set()
    assert names == (state | {"names", "account_index"}) - snapshot.SCRATCH
    assert len(snapshot.SCRATCH) == 20


def test_a_block_under_way_is_not_saved(tmp_path):
    running, taken = grown()
    running.take(next(taken)[:-1])
    running.core.heap["touched_accounts"] = 1
    with pytest.raises(ValueError, match="between two blocks"):
        save(tmp_path, running)
    assert list(tmp_path.iterdir()) == []


def test_memory_that_holds_nothing_is_neither_written_nor_touched(tmp_path):
    """Tables are sized for the worst day: what a file and a load cost is what is in them."""
    running, other = Running(Swarm(3).capacity), Running(Swarm(3).capacity)
    running.take(next(blocks(Swarm(3))))
    path = save(tmp_path, running)
    size = sum(array.nbytes for array in sections(running).values())
    assert path.stat().st_size < size // 8
    orders = other.world.state.orders.view(WORD)
    orders[-1] = 7  # a page without a line
    newest(tmp_path, other)
    assert orders[-1] == 7


# --- what is passed over ------------------------------------------------------------------------------------


def refused(path, running):
    """Whether the file is, in words, refused; and never loaded as something else."""
    try:
        snapshot._read(path, sections(running))
    except snapshot.Refused as reason:
        return len(str(reason)) > 0
    return False


def flip(path, bit):
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0] ^ 1 << bit % 8
        file.seek(bit // 8)
        file.write(bytes([byte]))


def bits(path, soak):
    """Every bit of the header and of the page after it, and some of all others."""
    size = 8 * path.stat().st_size
    step = 1 if soak else 4_999
    header = range(8 * PAGE) if soak else range(0, 8 * PAGE, 5)
    return [*header, *range(8 * PAGE, min(16 * PAGE, size), 1 if soak else 61), *range(16 * PAGE, size, step)]


def test_any_one_bit_that_changes_is_found(saved, pytestconfig):
    running, _, path, _ = saved
    mine, whole = sections(running), path.read_bytes()
    assert not refused(path, running)
    for bit in bits(path, pytestconfig.getoption("--soak")):
        flip(path, bit)
        with pytest.raises(snapshot.Refused):
            snapshot._read(path, mine)
        flip(path, bit)
    assert path.read_bytes() == whole


def test_a_file_that_is_cut_or_goes_on_is_found(saved, pytestconfig):
    running, _, path, _ = saved
    whole = path.read_bytes()
    step = 1 if pytestconfig.getoption("--soak") else 1_009
    for length in [*range(0, len(whole), step), PAGE - 8, PAGE, len(whole) - 8, len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert refused(path, running), length
    for more in (b"\0", bytes(8), bytes(PAGE)):
        path.write_bytes(whole + more)
        assert refused(path, running)


def test_two_words_that_change_places_are_found(saved):
    running, _, path, _ = saved
    words = np.frombuffer(path.read_bytes(), WORD).copy()
    places = np.flatnonzero(words[PAGE // 8 :])[:200:7] + PAGE // 8
    for one, other in zip(places, places[1:], strict=False):
        if words[one] != words[other]:
            words[[one, other]] = words[[other, one]]
            path.write_bytes(words.tobytes())
            assert refused(path, running)
            words[[one, other]] = words[[other, one]]


def test_a_damaged_one_is_named_and_the_older_one_is_loaded(saved):
    running, taken, older, directory = saved
    then = int(running.core.heap[0]["sequence"])
    running.take(next(taken))
    newer = save(directory, running)
    flip(newer, 8 * PAGE + 3)
    other = Running(TIGHT, **LITTLE)
    found, complaints = newest(directory, other)
    assert found.sequence == then and len(complaints) == 1
    assert complaints[0].startswith(newer.name) and "checksum: found" in complaints[0]
    flip(older, 3)
    untouched, fresh = Running(TIGHT, **LITTLE), Running(TIGHT, **LITTLE)
    found, complaints = newest(directory, untouched)
    assert found is None and len(complaints) == 2
    assert differences(untouched, fresh) == []


@pytest.mark.parametrize("capacity", [TIGHT._replace(orders=25), TIGHT._replace(accounts=10)])
def test_one_of_other_tables_is_refused_by_name(saved, capacity):
    found, (complaint,) = newest(saved[3], Running(capacity, **LITTLE))
    assert found is None and "records: found" in complaint


def test_one_of_another_version_or_layout_is_refused(saved, monkeypatch):
    monkeypatch.setattr(snapshot, "VERSION", 2)
    assert "version: found 1, expected 2" in newest(saved[3], saved[0])[1][0]
    monkeypatch.undo()
    monkeypatch.setattr(snapshot, "SCRATCH", snapshot.SCRATCH | {"candles"})
    assert "layout: found" in newest(saved[3], saved[0])[1][0]


def test_nothing_that_is_not_one_stands_in_the_way(tmp_path):
    (tmp_path / f"{5:020d}{snapshot.SUFFIX}").mkdir()
    (tmp_path / f"{6:020d}{snapshot.SUFFIX}").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("mine")
    found, complaints = newest(tmp_path, Running(TIGHT, **LITTLE))
    assert found is None and len(complaints) == 2
    assert newest(tmp_path / "nowhere", Running(TIGHT, **LITTLE)) == (None, [])


# --- which are kept -----------------------------------------------------------------------------------------


def test_the_last_two_good_ones_are_kept(saved):
    running, taken, _, directory = saved
    paths = []
    for _ in range(4):
        running.take(next(taken))
        paths.append(save(directory, running))
    assert sorted(directory.iterdir()) == paths[-2:]
    flip(paths[-1], 8 * PAGE)
    running.take(next(taken))
    last = save(directory, running)
    assert sorted(directory.iterdir()) == [*paths[-2:], last], "the damaged one does not count"
    kept = snapshot.prune(directory, running.core, running.world)
    assert [found.sequence for found in kept] == [int(last.stem), int(paths[-2].stem)]


def test_one_that_is_not_too_late_can_be_asked_for(saved):
    running, taken, older, directory = saved
    running.take(next(taken))
    newer = save(directory, running)
    until = int(newer.stem) - 1
    other = Running(TIGHT, **LITTLE)
    assert newest(directory, other, until=until)[0].sequence == int(older.stem)
    assert newest(directory, other, until=int(older.stem) - 1) == (None, [])


# --- a disk that fails --------------------------------------------------------------------------------------


class Failing(io.FileIO):
    """Fails at its n-th write, after half of it."""

    left = 0

    def write(self, raw):
        Failing.left -= 1
        if Failing.left == 0:
            super().write(memoryview(raw).cast("B")[: len(memoryview(raw).cast("B")) // 2])
            raise OSError(28, "no space")
        return super().write(raw)


def test_whatever_fails_while_one_is_written_the_older_one_loads(saved, monkeypatch):
    running, taken, older, directory = saved
    running.take(next(taken))
    calls, failed = [0], 0

    def counted(name):
        real = getattr(os, name)

        def call(*arguments):
            calls[0] -= 1
            if calls[0] == 0:
                raise OSError(5, "no luck")
            return real(*arguments)

        monkeypatch.setattr(snapshot.os, name, call)

    def attempt():
        with monkeypatch.context() as patch:
            patch.setattr(
                snapshot, "open", lambda path, mode, **_: Failing(path, mode.replace("b", "")), raising=False
            )
            save(directory, running)

    monkeypatch.setattr(snapshot, "SYNCED_BYTES", 1 << 14)
    for name in ("fsync", "fdatasync", "replace"):
        counted(name)
    for limit in ("write", "call"):
        for number in range(1, 1000):
            Failing.left, calls[0] = (number, 0) if limit == "write" else (0, number)
            try:
                attempt()
            except OSError:
                failed += 1
                assert newest(directory, Running(TIGHT, **LITTLE))[0].sequence >= int(older.stem)
            else:
                break
        assert number < 999 and failed > 3
    assert newest(directory, Running(TIGHT, **LITTLE))[0].sequence == int(running.core.heap[0]["sequence"])
    assert not list(directory.glob("*.writing")), "what was left half written is gone"
