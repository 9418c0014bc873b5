"""Every event is one JSON line; people see no control characters; a full disk or a stopped terminal
stops nothing.
"""

import io
import json
import os

import pytest

from scripts import log
from scripts.log import Log


@pytest.fixture
def people():
    return io.StringIO()


@pytest.fixture
def story(tmp_path, people):
    made = Log(tmp_path, people)
    yield made
    made.close()


def lines(story):
    return [json.loads(line) for line in story.path.read_text().splitlines()]


def test_a_line_for_programs_and_one_for_people(story, people):
    story.write("engine ended", level="warning", code=-9, unshown={"settings": 1})
    (line,) = lines(story)
    facts = {"level": "warning", "who": "supervisor", "text": "engine ended", "code": -9, "settings": 1}
    assert facts.items() <= line.items()
    assert people.getvalue().endswith("supervisor: warning: engine ended code=-9\n")
    assert list(story.recent) == people.getvalue().splitlines()


def test_nothing_that_moves_a_cursor_reaches_people(story, people):
    story.forward("engine", "\x1b[2J\r\x9b\u202e\u2028ok\n")
    assert people.getvalue().splitlines()[0].endswith("engine: ?[2J????ok?")
    assert len(people.getvalue().splitlines()) == 1
    assert lines(story)[0]["text"] == "\x1b[2J\r\x9b\u202e\u2028ok\n", "the file has it as it was"


def test_a_childs_json_keeps_its_facts_and_cannot_pose_as_another(story):
    story.forward("engine", '{"event":"feed","state":"live","who":"supervisor","level":"error","time_ms":1}')
    (line,) = lines(story)
    assert (line["who"], line["text"], line["state"], line["level"]) == ("engine", "feed", "live", "info")


def test_a_childs_fault_is_an_error(story):
    story.forward("engine", '{"event":"fault","what":"KeyError"}')
    assert lines(story)[0]["level"] == "error"


NOT_EVENTS = ["{", "[]", "{}", "null", '{"event":1}', '{"event":null}', "[" * 100_000, "1e999"]


@pytest.mark.parametrize("text", NOT_EVENTS)
def test_any_other_line_is_taken_as_it_is(story, text):
    story.forward("engine", text)
    assert lines(story)[0]["text"] == text[: log.TEXT_MAX]


def test_the_file_is_bounded(story, monkeypatch, tmp_path):
    monkeypatch.setattr(log, "FILE_BYTES_MAX", 2_000)
    for number in range(200):
        story.write("line", number=number)
    kept = [*(tmp_path / "ringside.log.1").read_text().splitlines(), *story.path.read_text().splitlines()]
    numbers = [json.loads(line)["number"] for line in kept]
    assert numbers == list(range(numbers[0], 200)), "the newest, without a hole"
    assert all(path.stat().st_size <= 2_000 for path in tmp_path.iterdir())


def test_a_full_disk_is_counted_and_survived(tmp_path, people):
    (tmp_path / "ringside.log").symlink_to("/dev/full")
    story = Log(tmp_path, people)
    story.write("still here")
    assert story.lost_count == 1 and "still here" in people.getvalue()
    story.close()


def test_a_pipe_that_nobody_reads_stops_nobody():
    read, write = os.pipe()
    with os.fdopen(write, "w") as out, os.fdopen(read) as other_end:
        said = 0
        while log.say(out, "x" * 1_000) and said < 10_000:
            said += 1
        assert 0 < said < 10_000
        assert other_end.read(1) == "x"


def test_a_pipe_whose_reader_has_gone_stops_nobody():
    read, write = os.pipe()
    os.close(read)
    out = os.fdopen(write, "w")
    assert not log.say(out, "x")
    with pytest.raises(BrokenPipeError):
        out.close()
