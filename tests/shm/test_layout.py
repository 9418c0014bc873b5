"""Records have no holes, their owners share no line, and their digest changes with any field."""

import numpy as np
import pytest

from shm import layout
from shm.constants import LINE

RECORDS = {name: value for name, value in vars(layout).items() if isinstance(value, np.dtype) and value.names}
SEQUENCED = ["WORLD_STATUS", "MARKET", "ACCOUNT", "BOOK", "EVENT", "ENDED", "TRADE", "FILL"]
OWNED = {"RING": [2, 2, 2], "BROADCAST": [1, 2], "BELL": [1], "BOOK_HEAD": [1]}


@pytest.mark.parametrize("name", RECORDS)
def test_every_word_is_aligned(name):
    dtype = RECORDS[name]
    for field in dtype.names:
        kind, offset = dtype.fields[field][:2]
        assert offset % kind.alignment == 0, field


@pytest.mark.parametrize("name", RECORDS)
def test_fields_follow_each_other_without_overlap(name):
    dtype, end = RECORDS[name], 0
    for field in dtype.names:
        kind, offset = dtype.fields[field][:2]
        assert offset >= end
        assert offset == end or offset % LINE == 0, "a hole that is not the end of a line"
        end = offset + kind.itemsize
    assert end <= dtype.itemsize


@pytest.mark.parametrize("name", OWNED)
def test_two_parties_never_write_one_line(name):
    dtype, fields = RECORDS[name], iter(RECORDS[name].names)
    lines = [{dtype.fields[next(fields)][1] // LINE for _ in range(count)} for count in OWNED[name]]
    assert all(len(group) == 1 for group in lines)
    assert len(set.union(*lines)) == len(lines)
    assert dtype.itemsize % LINE == 0
    assert next(fields, None) is None


@pytest.mark.parametrize("name", SEQUENCED)
def test_a_sequence_is_the_first_word(name):
    assert RECORDS[name].names[0] == "sequence" and RECORDS[name]["sequence"] == np.dtype("i8")


@pytest.mark.parametrize("name", RECORDS)
def test_nothing_in_a_record_is_a_float_an_object_or_unsigned_beyond_a_byte_pair(name):
    for field in RECORDS[name].names:
        kind = RECORDS[name][field].base
        assert kind.names or kind.kind in "iS" or kind in (np.dtype("u1"), np.dtype("u2")), field


def test_a_record_with_a_hole_does_not_exist():
    with pytest.raises(AssertionError, match="4 bytes"):
        layout.record(("small", "i4"), ("large", "i8"))


BASE = {"ring": layout.BROADCAST, "events": np.dtype([("sequence", "i8"), ("price", "i8")])}


@pytest.mark.parametrize(
    "other",
    [
        {**BASE, "events": np.dtype([("sequence", "i8"), ("quantity", "i8")])},
        {**BASE, "events": np.dtype([("sequence", "i8"), ("price", "u8")])},
        {**BASE, "events": np.dtype([("price", "i8"), ("sequence", "i8")])},
        {**BASE, "events": np.dtype([("sequence", "i8"), ("price", "i4"), ("reserved", "i4")])},
        {**BASE, "more": layout.WORD},
        {"ring": BASE["ring"]},
        {"events": BASE["events"], "ring": BASE["ring"]},
        {"ring": BASE["ring"], "fills": BASE["events"]},
    ],
)
def test_the_digest_changes_with_any_field(other):
    assert layout.digest(BASE) != layout.digest(other)
    assert layout.digest(BASE) == layout.digest(dict(BASE))
    assert len(layout.digest(BASE)) == layout.HEADER["digest"].itemsize


def test_the_world_fits_in_a_header():
    assert len(layout.WORLD) <= layout.SECTIONS_MAX
    assert all(len(name) <= layout.SECTION["name"].itemsize for name in layout.WORLD)
