"""A reader gives the durable commands, in order and once; and knows a torn write from damage."""

from random import Random

import numpy as np
import pytest

from engine.journal import record
from engine.journal.disk import Disk
from engine.journal.reader import Corrupt, Reader, path_of
from engine.journal.record import CURSOR, HEADER, SECTOR, Found, Kind
from shm.layout import COMMAND
from tests.engine.journal.made import DIRECTORY, commands, everything, same, write
from tests.engine.journal.memory_disk import MemoryDisk

COUNTS = (1, 3, 2, 5, 1)
FIRST = path_of(DIRECTORY, 1)


@pytest.fixture
def disk():
    return MemoryDisk()


def last_record(disk, path=FIRST):
    """Where the last record of a segment begins."""
    sectors = np.frombuffer(bytes(disk.files[path]), np.uint8).reshape(-1, SECTOR)
    begins = sectors[:, :8].copy().view(np.int64)[:, 0] == record.MAGIC
    return int(begins.nonzero()[0][-1]) * SECTOR


def test_what_was_written_is_read(disk):
    write(disk, *COUNTS).close()
    found, reader = everything(disk)
    assert same(found, 1, 12)
    end = reader.end()
    assert (end.sequence, end.durable, end.epoch, end.torn) == (13, 12, 1, "")


def test_a_reader_begins_where_it_is_told_to(disk):
    writer = write(disk, 8000, 9, 8000, 1, 700, 8000)
    assert writer._segment > 3
    writer.close()
    for sequence in (1, 2, 8000, 8001, 8009, 8010, 16009, 16010, 16011, 24710):
        found, _ = everything(disk, sequence)
        assert same(found, sequence, 24711 - sequence)


def test_a_reader_of_what_is_being_written_gives_what_is_durable_and_no_more(disk):
    reader = Reader(DIRECTORY, disk=disk)
    assert len(reader.read()) == 0, "there is no journal yet"
    writer, random, given, last = write(disk), Random(1), 0, 0
    for _ in range(60):
        count = random.choice([1, 2, 40, 8192])
        writer.write(commands(writer.sequence, count))
        assert same(reader.read(), given + 1, last - given)
        given, last = last, writer.sequence - 1
        if random.random() < 0.3:
            assert len(reader.read()) == 0
        writer.sync()
        writer.make_spares()
        if random.random() < 0.2:
            writer.mark()
            assert same(reader.read(), given + 1, last - given)
            given = last
    assert writer._segment > 10
    assert reader.end().sequence == last + 1


def test_a_journal_on_a_real_disk_is_the_same(tmp_path):
    writer = write(Disk(), 8000, 3, directory=tmp_path)
    reader = Reader(tmp_path)
    assert same(reader.read(), 1, 8000)
    writer.close()
    assert same(reader.read(), 8001, 3)
    assert [path.stat().st_size for path in sorted(tmp_path.iterdir())] == [
        SECTOR + record.length_of(8000) + record.length_of(3) + SECTOR
    ]


def test_the_last_record_is_torn_when_nothing_calls_it_durable(disk):
    write(disk, *COUNTS).drop()
    disk.files[FIRST][last_record(disk) + 200] ^= 1
    found, reader = everything(disk, only_durable=False)
    assert same(found, 1, 11)
    assert reader.end().torn == "a record with another checksum"


def test_the_last_record_is_damaged_when_a_mark_calls_it_durable(disk):
    writer = write(disk, *COUNTS)
    at = last_record(disk)
    writer.mark()
    writer.drop()
    disk.files[FIRST][at + 200] ^= 1
    with pytest.raises(Corrupt, match=rf"offset {at}: expected sequence 12, .*up to 12; found"):
        everything(disk)


def test_a_hole_of_zeros_is_damage(disk):
    write(disk, *COUNTS).drop()
    disk.files[FIRST][SECTOR : 2 * SECTOR] = bytes(SECTOR)
    found, reader = everything(disk)
    assert len(found) == 0
    with pytest.raises(Corrupt, match="found zeros"):
        reader.end()


@pytest.mark.parametrize("damage", ["swapped", "repeated", "left out", "of an older time"])
def test_a_whole_record_in_a_wrong_place_is_found(disk, damage):
    write(disk, 1, 1, 1, 1, 1).close()
    file, older = disk.files[FIRST], MemoryDisk()
    one, other = slice(SECTOR, 2 * SECTOR), slice(2 * SECTOR, 3 * SECTOR)
    if damage == "swapped":
        file[one], file[other] = file[other], file[one]
    elif damage == "repeated":
        file[other] = file[one]
    elif damage == "left out":
        del file[one]
    else:
        writer = write(older)
        made = commands(1, 1)
        made["order"] += 1
        writer.write(made)
        writer.sync()
        file[one] = older.files[FIRST][one]
    with pytest.raises(Corrupt):
        everything(disk)[1].end()


def test_a_segment_that_is_missing_is_found(disk):
    write(disk, 8000, 8000, 8000).close()
    del disk.files[path_of(DIRECTORY, 2)]
    with pytest.raises(Corrupt, match="expected sequence 8001"):
        everything(disk)[1].end()
    del disk.files[FIRST]
    with pytest.raises(Corrupt, match="no segment holds sequence 1"):
        everything(disk)


@pytest.mark.parametrize("field", ["version", "layout"])
def test_what_another_version_has_written_is_refused_with_both(disk, field, monkeypatch):
    name, other = ("VERSION", 2) if field == "version" else ("LAYOUT", b"x" * 32)
    with monkeypatch.context() as changed:
        changed.setattr(record, name, other)
        if field == "version":
            monkeypatch.undo()  # the compiled walk knows its own; change the bytes instead
        write(disk, 1).drop()
    if field == "version":
        first = np.frombuffer(disk.files[FIRST], np.uint8)[:SECTOR].copy()
        first.view(HEADER)["version"][0] = 2
        record.seal(first, 1, 0, 0)
        disk.files[FIRST][:SECTOR] = first.tobytes()
    with pytest.raises(Corrupt, match="version 1, found 2" if field == "version" else "found xxxx"):
        everything(disk)


def test_a_record_is_whole_sectors_whatever_it_holds():
    for count in (0, 1, 2, 3, 100, 8192):
        draft = record.Draft()
        if count:
            draft.take(commands(10, count))
        out = draft.close(Kind.COMMANDS if count else Kind.MARK, 3, 10)
        assert len(out) == record.length_of(count) <= record.RECORD_BYTES_MAX and len(out) % SECTOR == 0
        record.seal(out, 5, SECTOR, 9)
        cursor, given = np.zeros(1, CURSOR), np.zeros(count, COMMAND)
        cursor["segment"], cursor["offset"], cursor["sequence"] = 5, SECTOR, 10
        words, places = out.view(np.uint64), np.zeros(4, record.PLACE)
        assert record.walk(out.view(HEADER), words, len(out), cursor, given.view(np.uint64), places) == 1
        assert cursor["found"][0] == Found.PART, "the bytes end here"
        assert given.tobytes() == commands(10, count).tobytes()


def test_a_record_that_came_in_pieces_is_the_same_to_the_byte():
    whole, pieces, chain = record.Draft(), record.Draft(), bytes(range(32))
    for count, sizes in ((1, (1,)), (30, (30,)), (7, (1, 2, 4)), (100, (33, 1, 66)), (2, (1, 1))):
        whole.begin(chain)
        pieces.begin(chain)
        whole.take(commands(10, count))
        at = 10
        for size in sizes:
            pieces.take(commands(at, size))
            at += size
        records = [draft.close(Kind.COMMANDS, 3, 10).tobytes() for draft in (whole, pieces)]
        assert records[0] == records[1] and whole.chain == pieces.chain
        assert whole.chain == record.link(chain, commands(10, count).view(np.uint8))
        chain = whole.chain
