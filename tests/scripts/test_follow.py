"""One instance as its user meets it: it says where it is, refuses a second one, and ends by signals."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from scripts import follow, places
from tests.scripts.test_supervisor import is_running

DEADLINE_SECONDS = 20
COMMAND = """
import sys
from scripts import config, follow, instance
from tests.scripts import test_supervisor as t

given = {"data": sys.argv[1], "gateway": {"port": int(sys.argv[2])}, "follow": {"simulated": True}}
traits = sys.argv[3:]
try:
    sys.exit(follow.run(config.load(None, given), "0", t.programs(sys.argv[1], traits, traits)))
except instance.Busy as busy:
    sys.exit(str(busy))
"""


class Command:
    """The command with fake children, its lines collected in files."""

    def __init__(self, home, data, port=0, traits=()):
        self.out, self.err, self.data = home / "out", home / "err", data
        with self.out.open("w") as out, self.err.open("w") as err:
            arguments = [sys.executable, "-c", COMMAND, str(data), str(port), *traits]
            self.popen = subprocess.Popen(arguments, stdout=out, stderr=err)

    def until(self, condition):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited in vain; it said:\n{self.out.read_text()}{self.err.read_text()}")
            time.sleep(0.02)

    def until_up(self):
        self.until(lambda: "gateways 1/1" in self.out.read_text())
        return self

    def pids(self):
        story = (self.data / "story.jsonl").read_text().splitlines()
        return [line["pid"] for line in map(json.loads, story) if line["what"] == "started"]


@pytest.fixture
def command(tmp_path):
    made = []

    def start(data="data", **more):
        home = tmp_path / str(len(made))
        home.mkdir()
        made.append(Command(home, tmp_path / data, **more))
        return made[-1]

    yield start
    for one in made:
        one.popen.kill()
        one.popen.wait()
        for place in places.taken(one.data / places.DIRECTORY):
            os.kill(place.holder().pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_order(command, number):
    one = command().until_up()
    one.popen.send_signal(number)
    assert one.popen.wait(DEADLINE_SECONDS) == 0
    assert not any(map(is_running, one.pids()))
    assert "Traceback" not in one.err.read_text()


def test_a_second_signal_ends_it_at_once(command):
    one = command(traits=["deaf"]).until_up()
    one.popen.send_signal(signal.SIGTERM)
    one.until(lambda: "SIGTERM" in one.err.read_text())
    one.popen.send_signal(signal.SIGINT)
    assert one.popen.wait(DEADLINE_SECONDS) == 128 + signal.SIGINT
    one.until(lambda: not any(map(is_running, one.pids())))


def test_it_says_where_it_is_and_that_it_is_a_simulation(command):
    first = command().until_up().out.read_text().splitlines()[0]
    assert first.startswith("http://127.0.0.1:") and "SIMULATION" in first


def test_a_second_instance_is_refused_by_directory_and_by_port(command):
    one = command().until_up()
    port = one.out.read_text().split("//127.0.0.1:")[1].split()[0]
    same_directory, same_port = command(), command(data="other", port=port)
    assert same_directory.popen.wait(DEADLINE_SECONDS) == 1
    assert same_port.popen.wait(DEADLINE_SECONDS) == 1
    told = same_directory.err.read_text()
    assert "--data" in told and f"process {one.popen.pid}" in told
    assert "--port" in same_port.err.read_text()
    other = command(data="other").until_up()
    assert one.popen.poll() is None and other.popen.poll() is None, "two side by side"


def test_a_killed_one_is_replaced_by_the_next_start(command):
    one = command().until_up()
    port = int(one.out.read_text().split("//127.0.0.1:")[1].split()[0])
    one.popen.kill()
    command(port=port).until_up()
    assert int((one.data / "epoch").read_text()) == 2


def test_a_directory_without_logs_is_doubted_and_waited_for(tmp_path):
    assert "waiting" in follow.doubts_about(tmp_path / "nothing")
    below = tmp_path / "hl" / "data"
    (below / "node_order_statuses_streaming").mkdir(parents=True)
    assert str(below) in follow.doubts_about(tmp_path)
    assert follow.doubts_about(below) == ""
    os.rmdir(below / "node_order_statuses_streaming")
    (below / "node_fills_by_block").mkdir()
    assert follow.doubts_about(below) == ""
