"""Every bit of a journal flipped, every length it may be cut to: found, or harmless, and never another state.

524,288 bits and 65,537 lengths of each of two journals: by the reader's rule, compiled, all of them; by the
reader itself every 97th, and all of them with --soak. A reader that does not look is caught by the same.
"""

import numpy as np
import pytest

from engine.journal.reader import Reader, path_of
from engine.journal.record import SECTOR
from engine.journal.writer import Writer
from tests.engine.journal import damage
from tests.engine.journal.damage import BYTES, CORRUPT, WRONG, Judge, Still, made, recovered, whole
from tests.engine.journal.made import DIRECTORY, SMALLEST, commands
from tests.engine.journal.memory_disk import MemoryDisk

BITS = 8 * BYTES
STEP = 97  # of the cases that the reader itself is given; no divisor of a byte's bits or a sector's bytes
FIRST, SECOND = path_of(DIRECTORY, 1), path_of(DIRECTORY, 2)


@pytest.fixture(scope="module", params=[False, True], ids=["torn", "marked"])
def journal(request):
    return made(is_marked=request.param)


def by_sector(said, first, step):
    """The sectors of every step-th bit."""
    return (first + step * np.arange(len(said))) // (8 * SECTOR)


def test_every_flipped_bit_is_found_or_harmless(journal):
    said = Judge(journal).flips()
    assert len(said) == BITS and WRONG not in said
    assert (said == journal.expected[by_sector(said, 0, 1)]).all()
    assert {*said.tolist()} == {CORRUPT, journal.ends[-2][1]}


def flipped(journal, step, first=0):
    """What the reader itself says of every step-th bit."""
    text = bytearray(journal.text)
    disk, said = Still({FIRST: text}), []
    for bit in range(first, BITS, step):
        text[bit // 8] ^= 1 << (bit % 8)
        said.append(recovered(disk, journal.commands))
        text[bit // 8] ^= 1 << (bit % 8)
    return np.array(said)


def pytest_generate_tests(metafunc):
    """The soak is eight parts: one for each bit of a byte."""
    if "bits" in metafunc.fixturenames:
        is_soak = metafunc.config.getoption("--soak")
        metafunc.parametrize("bits", [(bit, 8) for bit in range(8)] if is_soak else [(0, STEP)])


def test_the_reader_itself_says_so_of_every_flipped_bit(journal, bits):
    first, step = bits
    said = flipped(journal, step, first)
    assert (said == journal.expected[by_sector(said, first, step)]).all()


def expected_of_cuts(journal):
    return np.array([whole(journal, size) for size in range(BYTES + 1)])


def test_whatever_length_is_left_the_whole_records_in_it_are_recovered(journal):
    assert (Judge(journal).cuts() == expected_of_cuts(journal)).all()


def lengths(journal, soak):
    """All lengths; or those around every end of a sector, and some."""
    if soak:
        return range(BYTES + 1)
    near = {at + by for at in range(0, BYTES + 1, SECTOR) for by in (-1, 0, 1, 8, 128)}
    return sorted({*near, *range(0, BYTES, STEP)} & {*range(BYTES + 1)})


def test_the_reader_itself_recovers_them(journal, pytestconfig):
    for size in lengths(journal, pytestconfig.getoption("--soak")):
        said = recovered(Still({FIRST: journal.text[:size]}), journal.commands)
        assert said == whole(journal, size), size


def two_segments():
    """A journal of two, of which the first one is to be cut, and all commands."""
    disk = MemoryDisk()
    for epoch in (1, 2):
        writer = Writer(DIRECTORY, epoch, disk, SMALLEST)
        for count in (3, 30, 1, 7) * 6:
            writer.write(commands(writer.sequence, count))
            writer.sync()
        writer.drop()
    first, second = disk.files[FIRST], disk.files[SECOND]
    del first[writer.began.offset :], second[writer._offset :]  # room takes time to look through
    return first, second, commands(1, writer.sequence - 1)


def test_a_segment_with_a_successor_is_missed_when_it_is_cut(pytestconfig):
    first, second, written = two_segments()
    assert recovered(Still({FIRST: first, SECOND: second}), written) == len(written)
    for size in range(0, len(first), 1 if pytestconfig.getoption("--soak") else STEP):
        assert recovered(Still({FIRST: first[:size], SECOND: second}), written) == CORRUPT, size


# --- do the tests above notice a reader that does not look? -------------------------------------------------


@pytest.mark.parametrize("line, instead", damage.MUTANTS.values(), ids=damage.MUTANTS)
def test_record_kernels_that_do_not_look_are_caught(line, instead):
    journal = made(is_marked=False)
    said = Judge(journal, *damage.mutated(line, instead)).flips(step=7)
    assert (said != journal.expected[by_sector(said, 0, 7)]).any()


BROKEN = {
    "all damage is a torn end": ("_judge", lambda self: False),
    "a torn end is damage": ("_highest", lambda self, segment, offset: 1 << 40),
    "what is called durable is not looked for": ("_highest", lambda self, segment, offset: -1),
}


@pytest.mark.parametrize("method, instead", BROKEN.values(), ids=BROKEN)
def test_a_reader_that_does_not_look_is_caught(method, instead, monkeypatch):
    journal = made(is_marked=False)
    monkeypatch.setattr(Reader, method, instead)
    said = flipped(journal, 997)
    assert (said != journal.expected[by_sector(said, 0, 997)]).any()
