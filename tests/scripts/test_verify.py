"""`ringside verify` calls good what is, and names what is damaged, where, and what was expected there."""

import io
import shutil

import numpy as np
import pytest

from engine.exchange import snapshot
from engine.journal import record
from engine.journal.disk import Disk
from engine.journal.reader import path_of
from engine.journal.record import HEADER, SECTOR, Kind
from scripts import cli, journal_words, progress, verify
from tests.engine.journal.made import write
from tests.scripts.kept import kept


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    data = tmp_path_factory.mktemp("whole")
    return data, kept(data)


@pytest.fixture
def exchange(whole, tmp_path):
    data, commands = whole
    shutil.copytree(data, tmp_path / "data")
    return tmp_path / "data", commands


def judged(data, show=lambda done, total: None):
    return verify.verify(data / "journal", data / "snapshots", show)


def segments(data):
    return sorted((data / "journal").iterdir())


def size_of(path):
    return path.stat().st_size


def change(path, at, bit=1):
    text = bytearray(path.read_bytes())
    text[at] ^= bit
    path.write_bytes(text)


def test_a_whole_journal_is_good(exchange):
    data, commands = exchange
    shown = []
    verdict = judged(data, lambda *how_far: shown.append(how_far))
    assert verdict.is_good and (verdict.first, verdict.commands) == (1, len(commands))
    assert verdict.blocks > 10 and verdict.end.torn == "" and verdict.end.sequence == len(commands) + 1
    assert len(verdict.snapshots) == 2
    done, total = shown[-1]
    assert 0.9 * total < done <= total == verdict.bytes == sum(map(size_of, segments(data)))


def records(path):
    """Where each record of a segment begins, and its kind. A MARK may be damaged: others say more."""
    headers = np.frombuffer(path.read_bytes(), HEADER)[:: SECTOR // HEADER.itemsize]
    at = (headers["magic"] == record.MAGIC).nonzero()[0]
    return [(int(sector) * SECTOR, headers["kind"][sector]) for sector in at]


def test_every_damaged_record_is_named(exchange):
    data, _ = exchange
    before, seen = None, 0
    for path in segments(data):
        for at in [at for at, kind in records(path) if kind != Kind.MARK]:
            change(path, at + 200)
            (damage,) = judged(data).damages
            place = f"{path}, offset {at}: "
            if at == 0 and before is not None:  # nothing says which segment that is
                place = f"{before}, offset {before.stat().st_size}: "
            assert damage.startswith(place) and "expected" in damage and "found" in damage
            change(path, at + 200)
            seen += 1
        before = path
    assert judged(data).is_good and seen == judged(data).blocks + len(segments(data))


def test_a_missing_segment_is_named_and_so_is_a_missing_beginning(exchange):
    data, _ = exchange
    first, second, third, *_ = segments(data)
    third.unlink()
    (damage,) = judged(data).damages
    assert str(second) in damage and "durable up to" in damage
    shutil.rmtree(data / "snapshots")
    first.unlink()
    (data / "snapshots").mkdir()
    assert "found" in judged(data).damages[0]


def test_older_segments_may_be_gone_if_a_snapshot_goes_on_from_there(exchange):
    data, commands = exchange
    segments(data)[0].unlink()
    verdict = judged(data)
    assert verdict.is_good and verdict.first + verdict.commands == len(commands) + 1 and verdict.first > 1
    for path in (data / "snapshots").iterdir():
        path.unlink()
    (damage,) = judged(data).damages
    assert f"begins with sequence {verdict.first}; found no good snapshot" in damage


def test_a_damaged_snapshot_is_named(exchange):
    data, _ = exchange
    path = max((data / "snapshots").iterdir())
    change(path, path.stat().st_size - 3)
    verdict = judged(data)
    assert len(verdict.snapshots) == 1
    assert [damage.startswith(f"{path}: checksum: found") for damage in verdict.damages] == [True]


def test_a_snapshot_that_is_removed_meanwhile_is_not_missed(exchange, monkeypatch):
    data, _ = exchange
    newest, examine = max((data / "snapshots").iterdir()), snapshot.examine

    def removed_at_that_moment(path):
        if path == newest:
            path.unlink()
        return examine(path)

    monkeypatch.setattr(snapshot, "examine", removed_at_that_moment)
    verdict = judged(data)
    assert verdict.is_good and len(verdict.snapshots) == 1


def test_a_snapshot_of_another_exchange_is_told(exchange, monkeypatch):
    data, _ = exchange
    good = snapshot.examine
    monkeypatch.setattr(snapshot, "examine", lambda path: good(path)._replace(digest=7))
    (damage,) = judged(data).damages
    assert "its digest is 0000000000000007; sequence" in damage


def test_a_snapshot_that_knows_more_than_the_journal_is_told(exchange):
    data, commands = exchange
    newest = max((data / "snapshots").iterdir())
    for path in segments(data)[4:]:
        path.unlink()
    (damage,) = judged(data).damages
    assert f"expected sequence {int(newest.stem)}, of which there is a snapshot" in damage


def test_a_journal_that_begins_with_another_chain_is_told(exchange):
    data, _ = exchange
    path = path_of(data / "journal", 1)
    text = bytearray(path.read_bytes())
    head = np.frombuffer(text, np.uint8)[:SECTOR]
    head[: HEADER.itemsize].view(HEADER)["chain"][0, 0] = 1
    record.seal(head, 1, 0, 0)
    path.write_bytes(text)
    (damage,) = judged(data).damages
    assert "expected sequence 1 and chain 00" in damage


def test_a_write_that_was_torn_is_no_damage_and_neither_is_an_empty_journal(tmp_path):
    write(Disk(), 3, 5, directory=tmp_path / "journal").drop()
    path = path_of(tmp_path / "journal", 1)
    change(path, SECTOR + record.length_of(3) + 200)
    verdict = judged(tmp_path)
    assert verdict.is_good and verdict.commands == 3
    assert "was being written when it stopped: no damage" in verify.told(tmp_path / "journal", verdict)
    path.write_bytes(bytes(SECTOR))
    for other in segments(tmp_path)[1:]:
        other.unlink()
    assert judged(tmp_path).is_good and judged(tmp_path).commands == 0


def test_the_command_says_so_and_its_exit_code_does(exchange, capsys, tmp_path):
    data, commands = exchange
    for directory in (data, data / "journal"):
        assert cli.run(["verify", str(directory)]) == 0
        said = capsys.readouterr()
        assert f"{data / 'journal'}: good" in said.out and f"to {len(commands):,} in" in said.out
        assert said.out.count("snapshot of sequence") == 2
    change(segments(data)[2], SECTOR + 300)
    assert cli.run(["verify", str(data)]) == journal_words.EXIT_DAMAGED
    assert "DAMAGED" in (said := capsys.readouterr().out) and f"{segments(data)[2]}, offset {SECTOR}" in said
    assert cli.run(["verify", str(tmp_path)]) == cli.EXIT_REFUSED
    assert f"no journal in {tmp_path}" in capsys.readouterr().err


def test_a_terminal_has_a_bar_and_nothing_else_has(monkeypatch):
    out = io.StringIO()
    progress.Bar("reading", out).show(1, 2, "MB")
    assert out.getvalue() == ""
    monkeypatch.setattr(out, "isatty", lambda: True)
    bar = progress.Bar("reading", out)
    bar.show(1, 2, "MB")
    bar.clear()
    half = "#" * (progress.CELLS // 2) + "." * (progress.CELLS // 2)
    assert out.getvalue() == f"{progress.CLEAR}reading [{half}] 1 of 2 MB{progress.CLEAR}"
