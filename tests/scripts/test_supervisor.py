"""What the supervisor promises, tried with fake children that write down what they hear."""

import asyncio
import contextlib
import json
import os
import signal

import pytest

from scripts import config, exchange, follow, instance, log, spare
from scripts.roles import PAUSE_MAX_SECONDS, STEADY_SECONDS, Backoff, Role
from scripts.supervisor import LOST, Programs, Supervisor
from shm import stats

FAKE = ("-m", "tests.scripts.fake_children")
DEADLINE_SECONDS = 20


def programs(data, engine=(), gateway=(), simulation=(), journaler=(), replica=()):
    """Fake children at home in `data`; the arguments are traits, as "deaf"."""
    flags = {
        "engine": engine, "gateway": gateway, "simulation": simulation, "journaler": journaler,
        "replica": replica,
    }  # fmt: skip
    return Programs(
        **{
            role: (*FAKE, role, "--home", str(data), *(f"--{trait}" for trait in traits))
            for role, traits in flags.items()
        }
    )


class Run:
    """A supervisor that runs, and what its children have written down."""

    def __init__(self, data, supervisor, story):
        self.data, self.supervisor, self.story = data, supervisor, story

    def told(self, who=None, what=None, kind=None):
        """The lines of the children, in the order of their events."""
        try:
            lines = [json.loads(line) for line in (self.data / "story.jsonl").read_text().splitlines()]
        except FileNotFoundError:
            return []
        return [
            line
            for line in lines
            if who in (None, line["who"])
            and what in (None, line["what"])
            and (kind is None or line.get("message", {}).get("kind") == kind)
        ]

    async def until(self, condition):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_told(self, count, *what):
        await self.until(lambda: len(self.told(*what)) >= count)
        return self.told(*what)

    async def settle(self, gateways=1):
        """Until every gateway has a world, and the engine every bell."""
        await self.until_told(gateways, "engine", "heard", "gateway")
        for index in range(gateways):
            await self.until_told(1, f"gateway {index}", "heard", "world")

    def logged(self, level=None):
        lines = [json.loads(line) for line in self.story.path.read_text().splitlines()]
        return [line for line in lines if level in (None, line["level"])]


@contextlib.asynccontextmanager
async def running(
    data, gateways=1, fakes=None, simulated=False, purpose=follow, durability="memory", **sections
):
    """Run a supervisor over fake children below `data`, and end it in order."""
    given = {"data": str(data), "gateway": {"count": gateways}}
    given |= {"follow": {"simulated": simulated}, "exchange": {"simulation": simulated}}
    given["exchange"]["durability"] = durability
    given["supervision"] = {"spare_engine": False}
    for name, section in sections.items():
        given[name] = given.get(name, {}) | section
    mine = instance.Instance(data)
    story = log.Log(mine.directory("log"), None)
    plan = purpose.plan(config.load(None, given), mine, 1, fakes or programs(data))
    supervisor = Supervisor(plan, mine, story)
    task = asyncio.create_task(supervisor.run())
    try:
        yield Run(data, supervisor, story)
        supervisor.stop()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        story.close()
        mine.close()


def is_running(pid):
    """A zombie is not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_everyone_is_introduced(tmp_path):
    async def scenario():
        async with running(tmp_path, gateways=2) as run:
            await run.settle(gateways=2)
            await run.until_told(1, "gateway 0", "rung")
            await run.until_told(1, "gateway 1", "rung")
            for index in range(2):
                (world,) = run.told(f"gateway {index}", "heard", "world")
                assert world["message"] == {"kind": "world", "epoch": 1}
                assert world["contents"] == ["world 1"]
            bells = run.told("engine", "heard", "gateway")
            assert {bell["message"]["index"]: bell["contents"][0] for bell in bells} == {
                0: "stats 0",
                1: "stats 1",
            }
            await run.until(lambda: all(gateway.is_ready for gateway in run.supervisor.gateways))

    asyncio.run(scenario())


def test_a_killed_gateway_comes_back_and_is_introduced_again(tmp_path):
    async def scenario():
        async with running(tmp_path) as run:
            await run.settle()
            os.kill(run.told("gateway 0", "started")[0]["pid"], signal.SIGKILL)
            await run.until_told(2, "gateway 0", "heard", "world")
            await run.until_told(2, "engine", "heard", "gateway")
            pid = run.told("gateway 0", "started")[1]["pid"]
            await run.until(lambda: pid in [line["pid"] for line in run.told("gateway 0", "rung")])
            assert len(run.told("engine", "started")) == 1, "nobody else is disturbed"

    asyncio.run(scenario())


def test_a_killed_engine_is_missed_and_comes_back_with_a_higher_epoch(tmp_path):
    async def scenario():
        async with running(tmp_path, gateways=2) as run:
            await run.settle(gateways=2)
            os.kill(run.told("engine", "started")[0]["pid"], signal.SIGKILL)
            await run.until_told(2, "gateway 0", "heard", "world")
            await run.until_told(4, "engine", "heard", "gateway")
            kinds = [line["message"]["kind"] for line in run.told("gateway 0", "heard")]
            assert kinds == ["world", "engine_lost", "world"]
            worlds = [line["contents"] for line in run.told("gateway 0", "heard", "world")]
            assert worlds == [["world 1"], ["world 2"]]
            assert len(run.told("gateway 0", "started")) == 1

    asyncio.run(scenario())


def test_a_gateway_that_starts_without_an_engine_gets_the_last_world_and_the_bad_news(tmp_path):
    async def scenario():
        async with running(tmp_path) as run:
            await run.settle()
            pause = run.supervisor._pause

            async def pause_the_engine_for_ever(seconds):
                is_engine = asyncio.current_task().get_name() == "engine"
                await pause(3_600 if is_engine else seconds)

            run.supervisor._pause = pause_the_engine_for_ever
            os.kill(run.told("engine", "started")[0]["pid"], signal.SIGKILL)
            await run.until(lambda: run.supervisor.engine.child is None)
            os.kill(run.told("gateway 0", "started")[0]["pid"], signal.SIGKILL)
            await run.until_told(2, "gateway 0", "started")
            pid = run.told("gateway 0", "started")[1]["pid"]
            await run.until(lambda: len([a for a in run.told("gateway 0", "heard") if a["pid"] == pid]) >= 2)
            first, second = [line for line in run.told("gateway 0", "heard") if line["pid"] == pid]
            assert (first["message"]["kind"], first["contents"]) == ("world", ["world 1"])
            assert second["message"]["kind"] == "engine_lost"

    asyncio.run(scenario())


def test_gateways_are_drained_before_the_engine_is_stopped(tmp_path):
    async def scenario():
        async with running(tmp_path, gateways=2, simulated=True) as run:
            await run.settle(gateways=2)
        ends = [line["who"] for line in run.told() if line["what"] in ("ended", "terminated")]
        assert sorted(ends[:2]) == ["gateway 0", "gateway 1"]
        assert sorted(ends[2:]) == ["engine", "simulation"]
        assert not run.logged("warning") and not run.logged("error")

    asyncio.run(scenario())


def test_who_does_not_end_is_killed(tmp_path):
    async def scenario():
        async with running(tmp_path, fakes=programs(tmp_path, engine=["deaf"], gateway=["deaf"])) as run:
            await run.settle()
        pids = [line["pid"] for line in run.told(what="started")]
        assert len(pids) == 2 and not any(map(is_running, pids))
        assert ["killed" in line["text"] for line in run.logged("warning")] == [True, True]

    asyncio.run(scenario())


def test_a_child_that_keeps_crashing_is_tried_on_and_told_of(tmp_path):
    async def scenario():
        async with running(tmp_path, fakes=programs(tmp_path, engine=["crash"])) as run:
            await run.until_told(4, "engine", "started")
            assert ["ended with code 3" in line["text"] for line in run.logged("warning")] == [True, True]
            assert "3 times in a row" in run.logged("error")[0]["text"]

    asyncio.run(scenario())


def test_the_pause_doubles_and_a_steady_life_resets_it():
    backoff = Backoff()
    assert [backoff.after(0) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.after(STEADY_SECONDS) == 0.1
    assert backoff.after(0) == 0.1
    assert all(backoff.after(0) <= PAUSE_MAX_SECONDS for _ in range(2_000))


def test_what_nobody_asked_for_is_refused_and_harms_nothing(tmp_path):
    async def scenario():
        fakes = programs(tmp_path, engine=["rude"], gateway=["rude"])
        async with running(tmp_path, fakes=fakes) as run:
            await run.settle()
            refused = [line for line in run.logged("warning") if "nobody asked for" in line["text"]]
            assert len(refused) == 4, "a nonsense and a world without an epoch, from each"
            assert any("not JSON" in line["text"] for line in run.logged())

    asyncio.run(scenario())


def test_restarts_leave_no_descriptor_behind(tmp_path):
    async def scenario():
        async with running(tmp_path, fakes=programs(tmp_path, engine=["rude"])) as run:
            await run.settle()
            before = sorted(os.listdir("/proc/self/fd"))
            for again in (2, 3):
                os.kill(run.told("engine", "started")[-1]["pid"], signal.SIGKILL)
                os.kill(run.told("gateway 0", "started")[-1]["pid"], signal.SIGKILL)
                await run.until_told(again, "engine", "started")
                await run.until_told(again, "gateway 0", "started")
                pids = {run.told(who, "started")[-1]["pid"] for who in ("engine", "gateway 0")}
                await run.until(lambda pids=pids: pids <= {line["pid"] for line in run.told(what="heard")})
                await run.until(lambda: all(role.is_ready for role in run.supervisor.roles))
            assert len(os.listdir("/proc/self/fd")) == len(before)

    asyncio.run(scenario())


def test_a_child_holds_nothing_but_what_it_was_given(tmp_path):
    async def scenario():
        secret = os.open(tmp_path / "secret", os.O_RDWR | os.O_CREAT)
        async with running(tmp_path, simulated=True) as run:
            await run.settle()
            await run.until_told(1, "simulation", "started")
        os.close(secret)
        held, places = {}, tmp_path / "children"
        for line in run.told(what="started"):
            held[line["who"]] = sorted(fd.partition(":")[0] for fd in line["fds"])
            assert line["group"] == line["pid"], "a ^C is for the supervisor"
        assert held == {
            "engine": [str(places / "engine"), "pipe", "socket"],
            "gateway 0": [str(places / "gateway-0"), "pipe", "socket"],
            "simulation": [str(places / "node")],
        }

    asyncio.run(scenario())


@pytest.mark.parametrize("role", ["engine", "gateway"])
def test_who_closes_its_control_socket_and_lives_on_is_killed(tmp_path, role):
    async def scenario():
        async with running(tmp_path, fakes=programs(tmp_path, **{role: ["mute"]})) as run:
            await run.until(lambda: len([line for line in run.told(role_name, "started")]) >= 2)
            assert any("SIGKILL" in line["text"] for line in run.logged("warning"))

    role_name = role if role == "engine" else "gateway 0"
    asyncio.run(scenario())


def test_what_a_child_prints_is_logged(tmp_path):
    async def scenario():
        async with running(tmp_path, fakes=programs(tmp_path, engine=["babble", "crash"])) as run:
            await run.until(lambda: run.logged("warning"))
            texts = [line["text"] for line in run.logged() if line["who"] == "engine"]
            assert texts[:2] == ["plain", "\x1b[2Jhidden"]
            assert texts[2].startswith("x") and "no newline" in texts[-1]
            assert not any("\x1b" in line for line in run.story.recent)

    asyncio.run(scenario())


def test_a_gateway_of_an_exchange_gets_the_bell_and_its_door_is_handed_on(tmp_path):
    async def scenario():
        async with running(tmp_path, gateways=2, purpose=exchange) as run:
            await run.until_told(2, "engine", "heard", "door")
            doors = run.told("engine", "heard", "door")
            assert {door["message"]["index"]: door["contents"] for door in doors} == {
                0: ["door 0 of 1"],
                1: ["door 1 of 1"],
            }
            os.kill(run.told("engine", "started")[0]["pid"], signal.SIGKILL)
            await run.until_told(4, "engine", "heard", "door")
            assert {door["message"]["epoch"] for door in run.told("engine", "heard", "door")[2:]} == {2}
            for world in run.told("gateway 0", "heard", "world"):
                assert world["contents"][1] == "engine stats" and len(world["contents"]) == 3

    asyncio.run(scenario())


def test_the_operator_is_answered_once_and_told_when_nobody_can_know(tmp_path):
    async def scenario():
        async with running(tmp_path, purpose=exchange) as run:
            answers = []
            run.supervisor.operate({"kind": "deposit"}, answers.append)
            await run.until(lambda: run.supervisor.engine.is_ready)
            for kind in ("deposit", "withdraw", "silence"):
                run.supervisor.operate({"kind": kind}, answers.append)
            await run.until_told(3, "engine", "heard", "operator")
            await run.until(lambda: len(answers) == 3)
            os.kill(run.told("engine", "started")[0]["pid"], signal.SIGKILL)
            await run.until(lambda: len(answers) == 4)
            not_up, done, refused, lost = answers
            assert not not_up["ok"] and "not up" in not_up["error"]
            assert done == {"ok": True, "sequence": 17}
            assert not refused["ok"] and "less than that" in refused["error"]
            assert lost == {"ok": False, "error": LOST}
            await run.until_told(2, "engine", "started")
        assert len(answers) == 4

    asyncio.run(scenario())


def test_the_simulated_traders_go_before_those_whom_they_trade_with(tmp_path):
    async def scenario():
        async with running(tmp_path, simulated=True, purpose=exchange) as run:
            await run.settle()
            await run.until_told(1, "simulation", "started")
        ends = [line["who"] for line in run.told() if line["what"] in ("ended", "terminated")]
        assert ends[-1] == "engine" and {*ends[:2]} == {"gateway 0", "simulation"}

    asyncio.run(scenario())


def test_the_engine_and_the_keeper_of_its_journal_are_introduced_again_after_either_has_died(tmp_path):
    async def scenario():
        async with running(tmp_path, purpose=exchange, durability="journaled") as run:
            await run.until_told(1, "journaler", "heard", "journal")
            (told,) = run.told("engine", "heard", "journal")
            assert told["message"] == {"kind": "journal", "sequence": 5}
            assert told["contents"][0] == "journaler stats"
            (told,) = run.told("journaler", "heard", "journal")
            assert (told["message"], told["contents"]) == (
                {"kind": "journal", "epoch": run.told("engine", "started")[0]["settings"]["epoch"]},
                ["ring", "stats", "bell"],
            )
            os.kill(run.told("engine", "started")[0]["pid"], signal.SIGKILL)
            await run.until_told(1, "journaler", "heard", "engine_lost")
            await run.until_told(2, "journaler", "heard", "journal")
            assert run.told("engine", "heard", "journal")[1]["message"]["sequence"] == 6
            os.kill(run.told("journaler", "started")[0]["pid"], signal.SIGKILL)
            await run.until_told(3, "journaler", "heard", "journal")
            assert len(run.told("engine", "started")) == 2, "the engine goes on"
            settings = [
                line["settings"]["epoch"]
                for line in run.told(what="started")
                if line["who"] in ("engine", "journaler")
            ]
            assert len({*settings}) == 4, "no epoch is given twice"
        ends = [line["who"] for line in run.told(what="terminated")]
        assert ends.index("engine") < ends.index("journaler")

    asyncio.run(scenario())


def test_a_replica_that_dies_is_started_again_and_hurts_nobody(tmp_path):
    async def scenario():
        async with running(tmp_path, purpose=exchange, durability="journaled") as run:
            await run.settle()
            (first,) = await run.until_told(1, "replica", "started")
            assert first["settings"]["journal"] == run.told("engine", "started")[0]["settings"]["journal"]
            os.kill(first["pid"], signal.SIGKILL)
            await run.until_told(2, "replica", "started")
            assert len(run.told("engine", "started")) == len(run.told("journaler", "started")) == 1
            assert not run.told("gateway 0", "heard", "engine_lost")

    asyncio.run(scenario())


def test_what_no_restart_mends_is_not_started_again(tmp_path):
    async def scenario():
        fakes = programs(tmp_path, journaler=("corrupt",))
        async with running(tmp_path, fakes=fakes, purpose=exchange, durability="journaled") as run:
            await run.until(lambda: run.supervisor.halted)
            await asyncio.sleep(0.3)
            assert len(run.told("journaler", "started")) == 1
            (line,) = run.logged("error")
            assert "ended with code 65; halted: the journaler cannot go on" in line["text"]

    asyncio.run(scenario())


def test_a_command_at_which_the_engine_crashes_again_and_again_ends_it(tmp_path):
    async def scenario():
        async with running(tmp_path) as run:
            supervisor, page = run.supervisor, stats.Stats(["applying"])
            engine = Role("engine", list, fds={"stats": [page.region.fd]})

            def ends(code, applying):
                page.set("applying", applying)
                engine.code = code
                supervisor._note_crash(engine)

            for code, applying in (
                (1, 700),
                (1, 712),
                (-signal.SIGKILL, 712),
                (-signal.SIGSEGV, 712),
                (1, 0),
            ):
                ends(code, applying)
            assert not supervisor._halts(supervisor.engine)
            assert supervisor._suspect == 712
            ends(1, 712)
            assert supervisor._halts(supervisor.engine)
            assert "crashed 3 times at command 712" in supervisor.halted
            supervisor.halted = ""

    asyncio.run(scenario())


# --- a spare engine ----------------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(spare, "CALM_SECONDS", 0.05)
    monkeypatch.setattr(spare, "LOOK_SECONDS", 0.01)


def spared(data):
    return running(data, purpose=exchange, supervision={"spare_engine": True})


@pytest.mark.usefixtures("soon")
def test_a_spare_is_the_engine_when_that_dies_and_another_one_stands_by_for_it(tmp_path):
    async def scenario():
        async with spared(tmp_path) as run:
            for count in (1, 2, 3):
                (*_, ready) = await run.until_told(count, "engine", "stands by")
                await run.until(lambda: run.supervisor._spare._is_ready)
                await run.until_told(count, "gateway 0", "heard", "world")
                assert len(run.told("engine", "started")) == count, "who stands by does nothing"
                os.kill(run.supervisor.engine.child.pid, signal.SIGKILL)
                (*_, called) = await run.until_told(count, "engine", "called")
                (*_, before, now) = await run.until_told(count + 1, "engine", "started")
                assert called["pid"] == now["pid"] == ready["pid"]
                assert called["place"] == str(tmp_path / "children" / "engine")
                assert now["settings"]["epoch"] > before["settings"]["epoch"]
                assert now["settings"]["markets"] == before["settings"]["markets"]
                (*_, bell) = await run.until_told(count + 1, "engine", "heard", "gateway")
                assert bell["pid"] == now["pid"], "it is introduced like any other"
            (*_, last) = await run.until_told(4, "engine", "stands by")
        assert not os.path.exists(f"/proc/{last['pid']}"), "it has not outlived the stop"

    asyncio.run(scenario())


@pytest.mark.usefixtures("soon")
def test_without_a_spare_that_is_ready_an_engine_is_started(tmp_path):
    async def scenario():
        async with spared(tmp_path) as run:
            (ready,) = await run.until_told(1, "engine", "stands by")
            os.kill(ready["pid"], signal.SIGKILL)
            os.kill(run.supervisor.engine.child.pid, signal.SIGKILL)
            await run.until_told(2, "engine", "started")
            assert run.told("engine", "called") == []
            await run.until_told(2, "engine", "stands by")

    asyncio.run(scenario())
