"""What is written is what is read, or it is refused with a text; never anything between."""

import os

import numpy as np
import pytest

from engine import image, verify
from engine.follow import checkpoint
from engine.follow.join import FINGERPRINT
from engine.follow.records import Kind
from engine.follow.tail import Mark
from engine.state import Capacity
from shm.codes import Flag, Stale
from tests.engine import made
from tests.engine.made import block, new, status

ROOM = Capacity(markets=4, accounts=8, orders=32, levels=512, names=80, events=64, trades=8, fills=8,
                closed=8, rejected=8, buckets=8)  # fmt: skip
FILES = Mark("20260505/17", 5, 10, "ab"), Mark("20260505/17", 6, 0, "cd"), Mark("20260505/18", 7, 3, "")
MARKS = [[FILES[0]], [], [FILES[1], FILES[2]]]


def filled(height=7):
    state = made.world(ROOM)
    words = [status(1, cloid=3), status(9, flags=Flag.IS_TRIGGER, account=2)]
    block(state, height, words, [new(oid, price=oid, market=oid % 2, account=oid % 3) for oid in range(1, 6)])
    state.markets["stale"][1], state.markets["epoch"][1], state.status[0]["stale_count"] = Stale.GAP, 4, 1
    return state


def taken(height=7):
    recent = np.array([(6, 1, 2**63 + 5), (7, 0, 9)], FINGERPRINT)
    return checkpoint.take(filled(height), False, MARKS, 3, recent)


def saved(directory, height=7):
    checkpoint.save(taken(height), directory)
    return directory / f"{height:020d}.checkpoint"


def same(one, other):
    return one.head == other.head and all(
        mine.tobytes() == theirs.tobytes() for mine, theirs in zip(one[1:], other[1:], strict=True)
    )


def test_what_is_written_is_read(tmp_path):
    path = saved(tmp_path)
    assert same(checkpoint.read(path), taken())
    assert [checkpoint.read(path).marks(kind) for kind in Kind] == MARKS
    assert not list(tmp_path.glob("*.writing"))


def test_what_is_restored_is_the_same_state(tmp_path):
    state, other = filled(), made.world(ROOM, markets=0, accounts=0)
    assert checkpoint.restore(checkpoint.read(saved(tmp_path)), other) == 0
    verify.verify(other)
    for market in range(2):
        one, two = image.resting(state, market), image.resting(other, market)
        assert image.first_difference(one, two) == -1 and len(one) > 1
    assert image.untriggered(other)["order"].tolist() == [9]
    for field in ("market_count", "account_count", "name_count", "order_count", "stale_count", "height"):
        assert state.status[0][field] == other.status[0][field], field
    assert other.markets["stale"].tolist() == [0, Stale.GAP, 0, 0] and other.markets["epoch"][1] == 4
    assert (other.accounts["address"] == state.accounts["address"]).all()
    assert other.markets["sequence"].tolist() == [0] * 4, "nobody has read this world yet"
    again = checkpoint.take(other, False, MARKS, 3, taken().recent)
    assert again.head == taken().head and image.first_difference(again.orders, taken().orders) == -1


def test_cut_at_every_byte_it_is_refused(tmp_path):
    raw = saved(tmp_path).read_bytes()
    path = tmp_path / "cut"
    for size in [*range(0, 700), *range(700, len(raw), 37), len(raw) - 1]:
        path.write_bytes(raw[:size])
        with pytest.raises(ValueError, match="expected .*, found"):
            checkpoint.read(path)
    path.write_bytes(raw + b"\0")
    with pytest.raises(ValueError, match="expected digest"):
        checkpoint.read(path)


def test_with_any_bit_flipped_it_is_refused(tmp_path):
    raw = bytearray(saved(tmp_path).read_bytes())
    path = tmp_path / "flipped"
    for place in [*range(0, 600), *range(600, len(raw), 29), *range(len(raw) - 40, len(raw))]:
        raw[place] ^= 1 << place % 8
        path.write_bytes(raw)
        with pytest.raises(ValueError, match="expected .*, found"):
            checkpoint.read(path)
        raw[place] ^= 1 << place % 8
    path.write_bytes(raw)
    assert same(checkpoint.read(path), taken())


def test_another_layout_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path)
    monkeypatch.setattr(checkpoint, "LAYOUT", "0" * 32)
    with pytest.raises(ValueError, match=f"expected layout {'0' * 32}, found"):
        checkpoint.read(path)


def test_a_damaged_newest_one_is_passed_over_with_a_word(tmp_path):
    saved(tmp_path, 5)
    newest = saved(tmp_path, 6)
    newest.write_bytes(newest.read_bytes()[:-1])
    found, complaints = checkpoint.newest(tmp_path)
    assert found is not None and found.head.height == 5
    assert len(complaints) == 1 and newest.name in complaints[0] and "expected digest" in complaints[0]
    (tmp_path / f"{5:020d}.checkpoint").write_bytes(b"")
    found, complaints = checkpoint.newest(tmp_path)
    assert found is None and len(complaints) == 2
    assert checkpoint.newest(tmp_path / "nowhere") == (None, [])


def test_the_last_two_are_kept_in_order_of_their_heights(tmp_path):
    for height in (8, 9, 10, 11, 100):
        saved(tmp_path, height)
    assert [int(path.stem) for path in sorted(tmp_path.glob("*"))] == [11, 100]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_older_ones(call, tmp_path, monkeypatch):
    saved(tmp_path, 5)

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no space"):
        saved(tmp_path, 6)
    monkeypatch.undo()
    found, complaints = checkpoint.newest(tmp_path)
    assert found is not None and found.head.height == 5 and complaints == []
    saved(tmp_path, 6)
    assert checkpoint.newest(tmp_path)[0].head.height == 6, "what is left of it is in nobody's way"


def test_everything_is_synced_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    for call in ("fsync", "replace"):
        real = getattr(os, call)
        monkeypatch.setattr(os, call, lambda *a, real=real, call=call: (calls.append(call), real(*a))[1])
    saved(tmp_path)
    assert calls == ["fsync", "replace", "fsync"], "the file, its name, the directory that holds the name"


@pytest.mark.parametrize("table,room", [("markets", 1), ("names", 20), ("accounts", 2)])
def test_a_table_that_is_too_small_is_named(table, room):
    small = ROOM._replace(names=80)
    state = made.world(small._replace(**{table: room} if table != "names" else {}), markets=0, accounts=0)
    found = taken()
    if table == "names":
        found = found._replace(head=type(found.head)(**{**_fields(found.head), "names": 99}))
    with pytest.raises(ValueError, match=f"{table}: .* in the checkpoint, room for"):
        checkpoint.restore(found, state)


def _fields(head):
    return {name: getattr(head, name) for name in head.__struct_fields__}


def test_orders_without_room_are_counted():
    state = made.world(ROOM._replace(orders=3), markets=0, accounts=0)
    assert checkpoint.restore(taken(), state) == 3
    verify.verify(state)
