"""A supervisor is killed; its children are taken over as they are, or ended: tried with fake ones."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from scripts import exchange, follow, instance
from scripts.places import Place, taken
from tests.scripts.test_supervisor import Run, is_running, programs, running

PURPOSES = {"exchange": exchange, "follow": follow}
TO_BE_KILLED = """
import asyncio, json, sys
from pathlib import Path
from tests.scripts import test_orphans, test_supervisor

data, traits, purpose, options = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])

async def scenario():
    fakes = test_supervisor.programs(data, **traits)
    of = test_orphans.PURPOSES[purpose]
    async with test_supervisor.running(data, fakes=fakes, purpose=of, **options):
        await asyncio.sleep(600)

asyncio.run(scenario())
"""
JOURNALED = {"durability": "journaled"}


class Orphaned(Run):
    """What a supervisor has left that was killed once `settled`."""

    def __init__(self, data, traits=None, purpose="exchange", **options):
        super().__init__(data, None, None)
        words = [str(data), *map(json.dumps, (traits or {}, purpose, options))]
        self.process = subprocess.Popen([sys.executable, "-c", TO_BE_KILLED, *words])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def pids(self, who=None):
        return [line["pid"] for line in self.told(who, "started")]

    async def end(self):
        """Whatever has become of the test, nobody is left."""
        self.kill()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.until(lambda: not any(map(is_running, self.pids())))


def orphaned(scenario, data, settled, **how):
    """Run the scenario over what a supervisor has left that was killed once `settled` said so."""

    async def run():
        left = Orphaned(data, **how)
        try:
            await left.until(lambda: settled(left))
            left.kill()
            await scenario(left)
        finally:
            await left.end()

    asyncio.run(run())


def has_keeper(run):
    return run.told("journaler", "heard", "journal") and run.told("engine", "heard", "door")


def has_door(run):
    return run.told("engine", "heard", "door")


def test_they_are_adopted_introduced_again_and_ended_in_order(tmp_path):
    async def scenario(left):
        before = left.pids()
        assert len(before) == 4 and all(map(is_running, before))
        await left.until_told(4, None, "alone")
        async with running(tmp_path, purpose=exchange, **JOURNALED) as run:
            await run.until_told(2, "engine", "heard", "door")
            await run.until_told(2, "journaler", "heard", "journal")
            assert left.pids() == before
            assert not left.told("journaler", "heard", "engine_lost")
            assert not left.told("gateway 0", "heard", "engine_lost")
            for who, kind in (("gateway 0", "world"), ("engine", "gateway"), ("engine", "journal")):
                first, again = left.told(who, "heard", kind)
                assert (first["message"], first["contents"]) == (again["message"], again["contents"])
            printed = [line["who"] for line in run.logged() if line["text"] == "alone"]
            assert sorted(printed) == ["engine", "gateway 0", "journaler", "replica"], "with nobody there"
            os.kill(left.pids("engine")[0], signal.SIGKILL)
            await run.until_told(2, "engine", "started")
            await run.until_told(1, "journaler", "heard", "engine_lost")
            await run.until_told(3, "journaler", "heard", "journal")
            (ended,) = [line for line in run.logged("warning") if line["who"] == "supervisor"]
            assert "how is not known" in ended["text"]
            epochs = [line["settings"]["epoch"] for line in left.told("engine", "started")]
            assert epochs == sorted({*epochs})
        ends = [line["who"] for line in left.told() if line["what"] in ("ended", "terminated")]
        assert ends[0] == "gateway 0" and ends[-1] == "journaler" and len(ends) == 4
        assert not taken(tmp_path / "children")

    orphaned(scenario, tmp_path, has_keeper, **JOURNALED)


def test_who_follows_a_node_is_adopted_too_and_a_second_supervisor_killed_costs_no_more(tmp_path):
    async def scenario(left):
        before = left.pids()
        second = Orphaned(tmp_path, purpose="follow")
        try:
            await left.until_told(2, "gateway 0", "heard", "world")
        finally:
            second.kill()
        async with running(tmp_path) as run:
            await run.until_told(3, "gateway 0", "heard", "world")
            await run.until(lambda: all(role.is_ready for role in run.supervisor.roles))
            assert left.pids() == before
            assert not left.told("gateway 0", "heard", "engine_lost")

    orphaned(scenario, tmp_path, lambda run: run.told("gateway 0", "heard", "world"), purpose="follow")


def test_who_was_told_something_else_is_ended_first_and_another_one_started(tmp_path):
    async def scenario(left):
        gateway, other = left.pids("gateway 0") + left.pids("gateway 1")
        (engine,) = left.pids("engine")
        limits = {"limits": {"connections_max": 7}}
        async with running(tmp_path, purpose=exchange, gateway=limits) as run:
            await run.until_told(2, "gateway 0", "started")
            assert not is_running(gateway) and not is_running(other)
            ended = [line["pid"] for line in left.told(None, "terminated")]
            assert {*ended} == {gateway, other}, "in order; nobody has asked for the second one at all"
            await run.until(lambda: left.told("engine", "heard", "door")[-1]["message"]["index"] == 0)
            assert left.pids("engine") == [engine]

    orphaned(scenario, tmp_path, lambda run: len(has_door(run)) == 2, gateways=2)


def test_who_does_not_come_is_killed_before_his_place_is_filled(tmp_path):
    async def scenario(left):
        (old,) = left.pids("engine")
        fakes = programs(tmp_path, engine=["lost"])
        async with running(tmp_path, fakes=fakes, purpose=exchange) as run:
            await run.until_told(2, "engine", "started")
            assert not is_running(old)
            (said,) = [line for line in run.logged("warning") if "has not come" in line["text"]]
            assert said["pid"] == old
            await run.until_told(2, "gateway 0", "heard", "world")
            assert len(left.pids("gateway 0")) == 1
            kinds = [line["message"]["kind"] for line in left.told("gateway 0", "heard")]
            assert kinds == ["world", "engine_lost", "world"]

    orphaned(scenario, tmp_path, has_door, traits={"engine": ["lost"]})


def test_the_keeper_is_told_of_an_engine_that_died_in_between_before_another_one_begins(tmp_path):
    async def scenario(left):
        os.kill(left.pids("engine")[0], signal.SIGKILL)
        async with running(tmp_path, purpose=exchange, **JOURNALED) as run:
            await run.until_told(2, "journaler", "heard", "journal")
            heard = [line["message"]["kind"] for line in left.told("journaler", "heard")]
            assert heard[0] == "journal" and heard[1] == "engine_lost" and heard[-1] == "journal"
            for told in left.told("engine", "heard", "journal")[1:]:
                assert told["message"]["sequence"] == 6, "not where it ended before he had kept the rest"
            assert len(left.pids("journaler")) == 1

    orphaned(scenario, tmp_path, has_keeper, **JOURNALED)


def test_who_finds_no_supervisor_ends(tmp_path):
    async def scenario(left):
        await left.until(lambda: not any(map(is_running, left.pids())))
        assert sorted(line["who"] for line in left.told(None, "ended")) == ["engine", "gateway 0"]

    orphaned(scenario, tmp_path, has_door, supervision={"orphan_seconds": 0.3})


def test_a_simulation_ends_with_its_supervisor(tmp_path):
    """It is deaf to all but the kernel."""

    async def scenario(left):
        (node,) = left.pids("simulation")
        await left.until(lambda: not is_running(node))
        async with running(tmp_path, simulated=True) as run:
            await run.until_told(2, "simulation", "started")
            await run.until_told(2, "engine", "started")  # which follows another node now

    deaf = {"simulation": ["deaf"]}
    settled = lambda run: run.told("simulation", "started") and run.told("gateway 0", "heard", "world")  # noqa: E731
    orphaned(scenario, tmp_path, settled, traits=deaf, purpose="follow", simulated=True)


def test_a_place_is_taken_once_and_as_long_as_its_process_lives(tmp_path):
    place = Place(tmp_path / "engine")
    assert not place.is_taken and place.holder() is None
    lock = place.take()
    assert place.is_taken
    with pytest.raises(BlockingIOError):
        place.take()
    inherited = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
    os.close(lock)
    assert place.is_taken and [found.name for found in taken(tmp_path)] == ["engine"]
    inherited.kill()
    inherited.wait()
    assert not place.is_taken
    os.close(place.take())


def test_the_port_of_gateways_that_live_is_held_again_and_nobody_elses(tmp_path, monkeypatch):
    monkeypatch.setattr(instance, "WAIT_SECONDS", 0.1)
    mine = instance.Instance(tmp_path)
    with mine.hold("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
    listener = instance._share("127.0.0.1", port)
    listener.listen()
    for asked in (0, port):
        with pytest.raises(instance.Busy) if asked else contextlib.nullcontext():
            with mine.hold("127.0.0.1", asked) as holder:
                assert holder.getsockname()[1] != port, "nobody has the place of a gateway"
    (tmp_path / "port").write_text(f"127.0.0.1 {port}\n")
    place = mine.place("gateway-0").take()
    for asked in (0, port):
        with mine.hold("127.0.0.1", asked) as holder:
            assert holder.getsockname()[1] == port
    os.close(place)
    listener.close()
    mine.close()
