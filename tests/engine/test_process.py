"""What a process owes its supervisor: it takes its settings, its end and its signals as they come."""

import json
import os
import signal
import subprocess
import sys

import msgspec
import pytest

from engine import process
from shm import control, region
from tests.recorded import ROOT

WORKS = """
import sys, time
from engine import process

class Runner:
    ending = False
    def run(self):
        print("begun", flush=True)
        while not self.ending or "deaf" in sys.argv:
            time.sleep(0.01)

process.run(Runner())
print("ended", flush=True)
"""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int
    cpu: int | None = None


def begun(theirs, **settings):
    words = ["--settings", json.dumps(settings), "--control-fd", str(theirs.detach()), "--output-fd", "7"]
    return process.begin(words, Settings)


def test_settings_and_the_line_are_those_of_the_command_line(pair):
    ours, theirs = pair
    settings, line = begun(theirs, size=3)
    assert settings == Settings(3)
    line.send({"kind": "stats"})
    assert region.receive(ours) == ({"kind": "stats"}, [])
    region.send(ours, {"kind": "drain"})
    assert process.hear(line) == ({"kind": "drain"}, [])
    ours.close()
    assert process.hear(line) is None and line.is_lost


def test_a_core_that_is_named_is_where_it_runs(pair):
    usable = os.sched_getaffinity(0)
    try:
        begun(pair[1], size=1, cpu=min(usable))
        assert os.sched_getaffinity(0) == {min(usable)}
    finally:
        os.sched_setaffinity(0, usable)


def test_what_is_no_setting_is_refused(pair):
    with pytest.raises(msgspec.ValidationError):
        begun(pair[1], size=1, colour=2)


def test_a_spare_prepares_and_becomes_what_it_is_told(pair, tmp_path):
    ours, theirs = pair
    place = os.open(tmp_path / "place", os.O_RDWR | os.O_CREAT)
    region.send(ours, {"kind": "become", "settings": {"size": 9}, "note": "7 mark"}, [place])
    words = ["--settings", '{"size":3}', "--control-fd", str(theirs.detach()), "--spare", "engine"]
    done = []
    settings, line = process.begin(words, Settings, lambda: done.append("prepared"))
    assert settings == Settings(9) and done == ["prepared"]
    assert region.receive(ours) == ({"kind": "spare"}, [])
    start_time = region.process_start_time(os.getpid())
    assert (tmp_path / "place").read_text() == f"{os.getpid()} {start_time} 7 mark"
    line.send({"kind": "stats"})
    assert region.receive(ours) == ({"kind": "stats"}, []), "the line is that of any other"


def test_a_spare_that_nobody_calls_ends_with_its_supervisor(pair):
    ours, theirs = pair
    ours.close()
    words = ["--settings", '{"size":3}', "--control-fd", str(theirs.detach()), "--spare", "engine"]
    with pytest.raises(SystemExit) as end:
        process.begin(words, Settings)
    assert end.value.code == 0


def test_a_line_of_the_log_is_one_object(monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setattr(control, "STDERR", writing)
    process.log("engine", "begun", {"height": 3, "why": "two\nlines"})
    line = os.read(reading, 4096)
    assert line.count(b"\n") == 1
    told = json.loads(line)
    assert told.pop("time_ms") > 0
    assert told == {"event": "begun", "process": "engine", "height": 3, "why": "two\nlines"}
    for fd in (reading, writing):
        os.close(fd)


@pytest.mark.parametrize(("words", "signals", "code", "said"), [
    ([], [signal.SIGINT, signal.SIGTERM], 0, "ended\n"),
    (["deaf"], [signal.SIGTERM, signal.SIGTERM], 1, ""),
])  # fmt: skip
def test_the_first_sigterm_ends_it_in_order_and_the_second_at_once(words, signals, code, said):
    with subprocess.Popen(
        [sys.executable, "-c", WORKS, *words], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as running:
        assert running.stdout.readline() == "begun\n"
        for number in signals:
            running.send_signal(number)
            until_taken(running, number)
        assert running.wait(60) == code
        assert running.stdout.read() == said


def until_taken(running, number):
    """Two that come at once would be one."""
    is_pending = True
    while is_pending and running.poll() is None:
        with open(f"/proc/{running.pid}/status") as status:
            lines = dict(line.split(":", 1) for line in status)
        is_pending = int(lines["ShdPnd"], 16) >> (number - 1) & 1
