"""A writer goes on where the journal ends, never over what was durable, and never after a failure."""

import errno

import pytest

from engine.journal.reader import Corrupt, path_of
from engine.journal.record import SECTOR
from engine.journal.writer import SPARES, Writer
from tests.engine.journal.made import DIRECTORY, SMALLEST, commands, everything, same, write
from tests.engine.journal.memory_disk import MemoryDisk


@pytest.fixture
def disk():
    return MemoryDisk()


def test_it_goes_on_after_a_clean_end(disk):
    write(disk, 3, 4).close()
    writer = write(disk, 5, epoch=2)
    assert writer.began.sequence == 8 and writer.began.torn == ""
    writer.close()
    assert same(everything(disk)[0], 1, 12)


def test_it_goes_on_after_a_torn_write_and_leaves_what_was_torn_behind(disk):
    writer = write(disk, 3, 4)
    writer.write(commands(8, 30))
    writer.drop()
    file = disk.files[path_of(DIRECTORY, 1)]
    file[6 * SECTOR : 7 * SECTOR] = bytes(SECTOR)
    writer = write(disk, 5, epoch=2)
    assert writer.began.sequence == 8 and writer.began.torn != ""
    assert same(everything(disk)[0], 1, 7), "the last one is not called durable yet"
    writer.close()
    assert same(everything(disk)[0], 1, 12)


def test_what_was_whole_and_not_yet_called_durable_is_kept(disk):
    write(disk, 3, 4).drop()
    assert write(disk, epoch=2).sequence == 8
    assert same(everything(disk)[0], 1, 7)


def test_it_refuses_to_go_on_after_damage(disk):
    write(disk, 3, 4, 5).drop()
    disk.files[path_of(DIRECTORY, 1)][2 * SECTOR] ^= 4
    before = disk.copy().files
    with pytest.raises(Corrupt, match="expected sequence 1, which was durable up to 7"):
        write(disk, epoch=2)
    assert disk.files == before


def test_a_writer_of_an_older_epoch_is_refused(disk):
    write(disk, 3, epoch=7).close()
    with pytest.raises(Corrupt, match="epoch 7; this is only 6"):
        write(disk, epoch=6)


def test_commands_that_do_not_come_next_are_refused(disk):
    writer = write(disk, 3)
    for wrong in (commands(3, 2), commands(5, 1), commands(4, 3)[::2]):
        with pytest.raises(ValueError, match="expected sequence 4"):
            writer.write(wrong)


def test_room_is_taken_before_it_is_used_and_given_back(disk):
    writer = write(disk, 8192)
    assert [len(disk.files[path_of(DIRECTORY, n)]) for n in range(1, 4)] == [SMALLEST] * 3
    assert writer.spares == SPARES
    writer.write(commands(writer.sequence, 8192))
    assert writer.spares == SPARES - 1
    writer.close()
    assert [len(disk.files[path_of(DIRECTORY, n)]) for n in range(1, 4)] == [SMALLEST] * 2 + [2 * SECTOR]
    assert len(disk.files) == 3, "the spare segments are gone"
    assert disk.open_files == {}


def test_on_a_full_disk_it_says_so_before_a_command_and_goes_on_when_there_is_space(disk):
    disk.free = 2 * SMALLEST
    writer = write(disk)
    with pytest.raises(OSError, match="no space"):
        writer.make_spares()
    for _ in range(2):
        assert writer.has_room(8192)
        writer.write(commands(writer.sequence, 8192))
        writer.sync()
    assert not writer.has_room(8192)
    with pytest.raises(OSError, match="no space"):
        writer.make_spares()
    assert not writer.has_room(8192)
    disk.free += SMALLEST
    writer.make_spares(1)
    writer.write(commands(writer.sequence, 8192))
    writer.sync()
    writer.close()
    assert same(everything(disk, only_durable=False)[0], 1, 3 * 8192)


def scripted(disk, seen):
    """Write some batches; `seen` tells what was called durable."""
    writer = Writer(DIRECTORY, 1, disk, SMALLEST)
    for count in (1, 8000, 2, 8000, 30):
        writer.write(commands(writer.sequence, count))
        writer.sync()
        seen.append(writer.durable)
        writer.make_spares()
    writer.close()


def calls_of_script():
    disk = MemoryDisk()
    scripted(disk, [])
    return len(disk.calls)


@pytest.mark.parametrize("how", [errno.EIO, errno.ENOSPC, "short"])
def test_whichever_call_fails_nothing_that_was_durable_is_lost_and_a_new_writer_goes_on(how):
    failed = 0
    for number in range(calls_of_script()):
        disk, seen = MemoryDisk(), [0]
        disk.fail = {number: how}
        try:
            scripted(disk, seen)
        except OSError:
            failed += 1
        after = disk.copy()
        found, reader = everything(after, only_durable=False)
        assert same(found, 1, len(found)) and len(found) >= seen[-1], number
        reader.end()
        writer = write(after, 3, epoch=2)
        writer.close()
        assert same(everything(after)[0], 1, len(found) + 3), number
    assert failed > (5 if how == "short" else 25)
