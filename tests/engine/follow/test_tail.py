"""What is read of growing files is what was written, whole lines, wherever they are cut, moved, replaced."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.follow import tail as tails
from engine.follow.tail import DISORDER_BLOCKS, LINGER_NS, LIST_NS, Mark, Tail, line_height

DAY = "20260505"


def write(directory, name, content, mode="ab"):
    path = Path(directory) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode) as file:
        file.write(content)
    return path


def read(tail, now_ns=1, polls=1):
    """The lines that come in some polls, a listing's time apart."""
    chunks = []
    for turn in range(polls):
        found, _ = tail.poll(now_ns + turn * (LIST_NS + 1))
        chunks += found
    return b"".join(chunk.lines for chunk in chunks)


def drain(tail, now_ns=1):
    """All the lines there are."""
    out = b""
    while True:
        chunks, _ = tail.poll(now_ns)
        now_ns += LIST_NS + 1
        if not chunks:
            return out
        out += b"".join(chunk.lines for chunk in chunks)


class Writer(RuleBasedStateMachine):
    """A node that writes, rotates, renames, copies, shrinks and rewrites; the model is the list of lines."""

    @initialize()
    def begin(self):
        self.folder = TemporaryDirectory()
        self.directory = Path(self.folder.name) / "hourly"
        self.tail, self.now_ns, self.hour, self.count = Tail(self.directory), 1, 0, 0
        self.content = {0: b""}  # hour -> what its file holds
        self.expected: list[bytes] = []  # lines written whole, each once
        self.got: list[bytes] = []
        self.late: tuple[int, bytes] | None = None  # the end of an old file's last line
        self.kept: list[Path] = []
        self.turns = 0

    def teardown(self):
        if hasattr(self, "folder"):
            self.tail.close()
            self.folder.cleanup()

    def line(self, length):
        self.count += 1
        line = b'{"block_number":%d,%s}\n' % (self.count, b"x" * length)
        self.expected.append(line)
        return line

    def append(self, content, hour=None):
        hour = self.hour if hour is None else hour
        self.content[hour] = self.content.get(hour, b"") + content
        write(self.directory, f"{DAY}/{hour}", content)

    def poll(self):
        self.now_ns += LIST_NS // 3
        chunks, _ = self.tail.poll(self.now_ns)
        for chunk in chunks:
            assert chunk.lines.endswith(b"\n") and chunk.lines, "whole lines only"
            hour = int(chunk.name.partition("/")[2])
            there = self.content[hour][chunk.start : chunk.start + len(chunk.lines)]
            assert there == chunk.lines, "a chunk says where it stands"
            self.got += chunk.lines.splitlines(keepends=True)
        return bool(chunks)

    def poll_out(self):
        for _ in range(6):
            while self.poll():
                pass

    @rule(length=st.integers(0, 90), pieces=st.lists(st.integers(1, 40), max_size=3))
    def lines_in_pieces(self, length, pieces):
        content = self.line(length) + self.line(length // 2)
        for piece in pieces:
            self.append(content[:piece])
            content = content[piece:]
            self.poll()
        self.append(content)

    @rule()
    def look(self):
        self.poll()

    @precondition(lambda self: self.late is None and self.hour < 20)
    @rule(cut=st.integers(1, 15))
    def rotate_within_a_line(self, cut):
        line = self.line(10)
        self.append(line[:cut])
        self.poll()
        self.late = (self.hour, line[cut:])
        self.hour += 1
        self.append(b"")

    @precondition(lambda self: self.late is not None)
    @rule()
    def finish_the_old_file(self):
        self.append(self.late[1], self.late[0])
        self.late = None

    @precondition(lambda self: self.content[self.hour])
    @rule()
    def replace_by_a_copy(self):
        path = self.directory / f"{DAY}/{self.hour}"
        self.kept.append(path.with_name(f"copy{len(self.kept)}"))
        self.kept[-1].write_bytes(path.read_bytes())
        os.replace(self.kept[-1], path)

    @precondition(lambda self: self.content[self.hour])
    @rule(keep=st.integers(0, 200))
    def shrink_and_write_again(self, keep):
        self.poll_out()
        path = self.directory / f"{DAY}/{self.hour}"
        os.truncate(path, min(keep, path.stat().st_size))
        self.poll()
        path.write_bytes(self.content[self.hour][: path.stat().st_size])
        write(self.directory, f"{DAY}/{self.hour}", self.content[self.hour][path.stat().st_size :])

    @precondition(lambda self: self.content[self.hour].endswith(b"\n"))
    @rule()
    def rename_and_begin_anew(self):
        self.poll_out()
        path = self.directory / f"{DAY}/{self.hour}"
        self.turns += 1
        path.rename(path.with_name(f"old-{self.turns}"))
        self.content[self.hour] = b""
        self.append(self.line(5))

    @rule()
    def kill_and_go_on(self):
        self.poll()
        marks = [self.tail.sealed(mark) for mark in self.tail.marks()]
        self.tail.close()
        self.tail = Tail(self.directory)
        self.tail.start_at(marks)

    @invariant()
    def nothing_is_invented(self):
        if hasattr(self, "expected"):
            assert set(self.got) <= set(self.expected)

    @precondition(lambda self: self.late is None)
    @rule()
    def all_is_read(self):
        """Every line, in order; whole files may have been read again, and then all of them is told again."""
        self.poll_out()
        assert set(self.got) == set(self.expected)
        first = list(dict.fromkeys(self.got))
        numbers = [line_height(line) for line in first]
        disorder = sum(1 for one, other in zip(numbers, numbers[1:], strict=False) if one > other)
        assert disorder <= self.hour, "only the end of an hour's file can come behind newer lines"
        assert self.tail.cut == 0 or self.tail.rewinds


Writer.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestWriter = Writer.TestCase


# --- one by one ---------------------------------------------------------------------------------------------


def test_without_rewrites_each_line_is_read_once(tmp_path):
    tail = Tail(tmp_path)
    for hour in (9, 10, 11):
        for number in range(3):
            write(tmp_path, f"{DAY}/{hour}", b"%d-%d\n" % (hour, number))
    assert drain(tail) == b"".join(b"%d-%d\n" % (hour, n) for hour in (9, 10, 11) for n in range(3))
    assert drain(tail, 10**12) == b"" and tail.rewinds == 0


def test_half_a_line_is_no_line(tmp_path):
    tail = Tail(tmp_path)
    for byte in b"whole":
        write(tmp_path, f"{DAY}/1", bytes([byte]))
        assert read(tail) == b""
    write(tmp_path, f"{DAY}/1", b"\nhal")
    assert read(tail) == b"whole\n"
    assert tail.marks() == [Mark(f"{DAY}/1", tail.marks()[0].inode, 6)]


def test_other_names_are_not_read(tmp_path):
    for name in ("notaday/1", f"{DAY}/24", f"{DAY}/1.old", f"{DAY}/x", "2026050/1", f"{DAY}/012"):
        write(tmp_path, name, b"foreign\n")
    write(tmp_path, f"{DAY}/23", b"ours\n")
    assert drain(Tail(tmp_path)) == b"ours\n"


def test_a_directory_that_comes_late(tmp_path):
    tail = Tail(tmp_path / "later" / "hourly")
    assert read(tail, polls=3) == b""
    write(tmp_path / "later" / "hourly", f"{DAY}/0", b"here\n")
    assert read(tail, 10**11) == b"here\n"


def test_hours_are_ordered_as_numbers_and_days_before_them(tmp_path):
    for name in ("20260506/0", f"{DAY}/10", f"{DAY}/9", f"{DAY}/2"):
        write(tmp_path, name, name.encode() + b"\n")
    assert drain(Tail(tmp_path)).split() == [b"20260505/2", b"20260505/9", b"20260505/10", b"20260506/0"]


def test_a_copy_in_its_place_is_not_read_again(tmp_path):
    tail, path = Tail(tmp_path), write(tmp_path, f"{DAY}/1", b"one\ntwo\nthr")
    assert read(tail) == b"one\ntwo\n"
    copy = write(tmp_path, "copy", b"one\ntwo\nthree\n")
    os.replace(copy, path)
    assert drain(tail, 10**11) == b"three\n" and tail.rewinds == 0 and tail.cut == 0


def test_another_content_in_its_place_is_read_from_its_top(tmp_path):
    tail, path = Tail(tmp_path), write(tmp_path, f"{DAY}/1", b"one\n")
    assert read(tail) == b"one\n"
    os.replace(write(tmp_path, "other", b"two\nthree\n"), path)
    assert drain(tail, 10**11) == b"two\nthree\n"


def test_half_a_line_in_a_file_that_went_away_is_counted(tmp_path):
    tail, path = Tail(tmp_path), write(tmp_path, f"{DAY}/1", b"one\nhal")
    assert read(tail) == b"one\n"
    os.replace(write(tmp_path, "other", b"two\n"), path)
    assert drain(tail, 10**11) == b"two\n" and tail.cut == 1


@pytest.mark.parametrize("size", [0, 3, 7])
def test_a_file_that_shrank_is_read_again(size, tmp_path):
    tail, path = Tail(tmp_path), write(tmp_path, f"{DAY}/1", b"one\ntwo\n")
    assert read(tail) == b"one\ntwo\n"
    os.truncate(path, size)
    read(tail)
    write(tmp_path, f"{DAY}/1", b"one\ntwo\n"[size:] + b"three\n")
    assert drain(tail).endswith(b"three\n") and tail.rewinds >= 1


def test_copytruncate_that_grew_past_the_offset_is_noticed(tmp_path):
    tail, path = Tail(tmp_path), write(tmp_path, f"{DAY}/1", b"one\ntwo\n")
    assert read(tail) == b"one\ntwo\n"
    path.write_bytes(b"three\nfour\nfive\n")
    assert drain(tail) == b"three\nfour\nfive\n" and tail.rewinds == 1


def test_a_line_beyond_the_limit_is_dropped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(tails, "LINE_BYTES_MAX", 50)
    monkeypatch.setattr(tails, "READ_BYTES", 16)
    tail = Tail(tmp_path)
    write(tmp_path, f"{DAY}/1", b"before\n" + b"x" * 200 + b"\nafter\n")
    assert drain(tail) == b"before\nafter\n" and tail.oversized == 1


@pytest.mark.parametrize("read_bytes", [1, 2, 3, 7, 64])
def test_lines_are_gathered_over_several_reads(read_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(tails, "READ_BYTES", read_bytes)
    lines = b"".join(b"line %d\n" % number for number in range(12))
    write(tmp_path, f"{DAY}/1", lines + b"half")
    assert drain(Tail(tmp_path)) == lines


def test_an_old_file_is_let_go_but_not_with_half_a_line(tmp_path):
    tail = Tail(tmp_path)
    write(tmp_path, f"{DAY}/1", b"one\n")
    write(tmp_path, f"{DAY}/2", b"two\nha")
    write(tmp_path, f"{DAY}/3", b"three\n")
    drain(tail)
    assert tail.waits, "a half line before the newest file may still get its end"
    drain(tail, 10**11)
    drain(tail, 10**11 + LINGER_NS + 10**10)
    assert [mark.name for mark in tail.marks()] == [f"{DAY}/2", f"{DAY}/3"]
    write(tmp_path, f"{DAY}/2", b"lf\n")
    assert drain(tail, 10**12) == b"half\n" and not tail.waits


# --- beginning somewhere ----------------------------------------------------------------------------------


def numbered(heights):
    return b"".join(b'{"local_time":"t","block_number":%d,"events":[%s]}\n' % (h, b" " * 99) for h in heights)


@pytest.mark.parametrize("height", [0, 99, 100, 170, 199, 260, 500, 899, 900, 5000])
@pytest.mark.parametrize("read_bytes", [256, 4096, 1 << 22])
def test_all_lines_after_a_height_are_read(height, read_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(tails, "READ_BYTES", read_bytes)
    for hour, first in ((1, 100), (2, 200), (3, 300), (10, 400)):
        heights = list(range(first, first + 100 if hour < 10 else 900))
        for place in range(0, len(heights), 10):
            heights[place : place + 8] = heights[place : place + 8][::-1]  # out of order within a few
        write(tmp_path, f"{DAY}/{hour}", numbered(heights))
    tail = Tail(tmp_path)
    tail.start_before(height)
    found = {line_height(line) for line in drain(tail).splitlines()}
    assert set(range(max(height + 1, 100), 900)) <= found
    if 400 < height < 1000 and read_bytes == 256:
        assert min(found) > height - DISORDER_BLOCKS - 50, "not all of the past is read"


def marks_of(tail):
    return [tail.sealed(mark) for mark in tail.marks()]


def test_a_mark_is_known_again(tmp_path):
    tail, path = Tail(tmp_path), write(tmp_path, f"{DAY}/1", b"one\ntwo\nhal")
    read(tail)
    marks = marks_of(tail)
    write(tmp_path, f"{DAY}/1", b"f\n")
    later = Tail(tmp_path)
    later.start_at(marks)
    assert drain(later) == b"half\n"
    path.write_bytes(b"six\nten\nhalf\nnew\n")  # the same inode, at least as long, another content
    later = Tail(tmp_path)
    later.start_at(marks)
    assert drain(later) == b"six\nten\nhalf\nnew\n"


@pytest.mark.parametrize("content", [b"", b"one\n", b"one\ntwx\nmore\n"])
def test_a_mark_in_a_file_that_changed_is_not_believed(content, tmp_path):
    tail, path = Tail(tmp_path), write(tmp_path, f"{DAY}/1", b"one\ntwo\n")
    read(tail)
    marks = marks_of(tail)
    path.write_bytes(content)
    later = Tail(tmp_path)
    later.start_at(marks)
    assert drain(later) == content


def test_a_mark_of_another_inode_is_not_believed(tmp_path):
    tail, path = Tail(tmp_path), write(tmp_path, f"{DAY}/1", b"one\ntwo\n")
    read(tail)
    marks = marks_of(tail)
    os.replace(write(tmp_path, "copy", b"one\ntwo\n"), path)
    later = Tail(tmp_path)
    later.start_at(marks)
    assert drain(later) == b"one\ntwo\n", "its repeats are the join's to drop"


def test_files_before_the_first_mark_are_done_with(tmp_path):
    for hour in (1, 2, 3):
        write(tmp_path, f"{DAY}/{hour}", b"%d\n" % hour)
    tail = Tail(tmp_path)
    tail.start_at([Mark(f"{DAY}/2", 1, 0)])
    assert drain(tail) == b"2\n3\n"


@pytest.mark.parametrize(
    "head,height",
    [(b'{"block_number":17,', 17), (b'{"block_number":-17,', None), (b"", None), (b'"block_number":', None),
     (b"x" * 600 + b'"block_number":1,', None), (b'"block_number":12345678901234567890}', None)],
)  # fmt: skip
def test_a_line_tells_its_block(head, height):
    assert line_height(head) == height
