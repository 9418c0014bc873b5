"""Starts the engine, the gateways and the simulation, introduces them to each other, and starts them again.

The supervisor holds what a newcomer needs: the engine's world and the gateways' bells, as file descriptors.
Every process that starts, and every one that hears of another's new start, gets them over its control
socket; ARCHITECTURE.md lists the messages. What the processes of an exchange say to each other (a door, an
answer to the operator) is passed on.

It decides nothing about markets, and can be killed: the others go on without it. Its caller starts it again,
and it takes them over as they are (scripts/orphans.py); each tells it then what it has told the one before,
so that the same code hears the one and the other. Only a simulation ends with its supervisor.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from scripts import child, orphans
from scripts.child import Afterlife, Child
from scripts.instance import Instance
from scripts.log import Log
from scripts.places import DIRECTORY
from scripts.roles import STEADY_SECONDS, Arguments, Backoff, Message, Role, mark_of
from scripts.spare import Spare
from shm import region, stats

QUICK_ENDS_TOLD = 3
DRAIN_SECONDS = 1.2  # for gateways to finish what is in flight
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}
LOST = "the engine ended before it answered: whether it was done is not known"
REFUSALS = {  # what the engine may answer its operator
    "balance": "there is no such account, or it has less than that free",
    "table_full": "there is no room for another one",
    "amount": "such an amount cannot be",
    "unknown_market": "there is no such market",
}
CRASHES_MAX = 3  # of the engine at one command: it would crash there for ever
EXIT_CORRUPT = 65  # of engine and journaler: no restart mends that
CLOSE_SECONDS = 5.0  # for the journaler to sync what the engine has left; a slow disk may need some of it
STOP_SECONDS = 0.8  # for the engine to write its checkpoint, and whatever the gateways have left over

Answer = Callable[[Message], None]


@dataclass(frozen=True)
class Programs:
    """What is run for each role, as arguments of the interpreter. Tests put in their own."""

    engine: Sequence[str]
    simulation: Sequence[str]
    gateway: Sequence[str] = ("-m", "gateway")
    journaler: Sequence[str] = ()
    replica: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """What one instance runs, as arguments of the interpreter, and what is said of it."""

    engine: Callable[[int, int], list[str]]  # of an epoch, and of a command that may have ended the last one
    gateway: Callable[[int], list[str]]  # of an index
    gateways: int
    orphan_seconds: float  # how long they all live on without a supervisor
    source: str  # where what is served comes from, for the screen
    spare: list[str] | None = None  # what stands by to be the engine
    journaler: Callable[[int], list[str]] | None = None  # of an epoch
    replica: Arguments | None = None
    simulation: Arguments | None = None
    simulation_name: str = "simulation"
    simulation_is_client: bool = False  # of the gateways; else it is what the engine reads from
    has_operator: bool = False  # there is someone who may deposit and withdraw
    is_recording: bool = False
    hint: tuple[str, ...] = ()  # lines for the user
    doubt: str = ""  # what looks wrong


class Supervisor:
    """Runs one plan.

    `engine`, `gateways`, `simulation`, `world_epoch` and `is_stopping` are for the screen to look at.
    """

    def __init__(self, plan: Plan, instance: Instance, log: Log):
        self._plan, self._instance, self._log = plan, instance, log
        self.world_epoch = 0  # of the newest world that was announced
        self.halted = ""  # why the exchange is not started again
        self._recorded: Message = {}  # where the journal ends, as its keeper has announced it
        self._suspect, self._crashes = 0, 0  # the command at which the engine crashed, so many times in a row
        self.is_stopping = asyncio.Event()
        self._meta: tuple[Message, list[int]] | None = None
        self._asked: dict[int, Answer] = {}  # of the operator, and without an answer yet
        self._asked_ever = time.time_ns()  # an engine may yet answer what an earlier supervisor has asked
        self.engine = Role(
            "engine",
            self._engine_arguments,
            self._hear_engine,
            self._greet_engine,
            self._mourn_engine,
            mark_of(plan.engine(0, 0)),
        )
        self.journaler = (
            Role(
                "journaler",
                self._journaler_arguments,
                self._hear_journaler,
                mourn=self._mourn_journaler,
                mark=mark_of(plan.journaler(0)),
            )
            if plan.journaler
            else None
        )
        self.replica = (
            Role("replica", plan.replica, self._refuse, mark=mark_of(plan.replica()))
            if plan.replica
            else None
        )
        self.gateways = [
            Role(
                f"gateway {index}",
                partial(plan.gateway, index),
                self._hear_gateway,
                self._greet_gateway,
                self._mourn_gateway,
                mark_of(plan.gateway(index)),
            )
            for index in range(plan.gateways)
        ]
        self.simulation = Role(plan.simulation_name, plan.simulation) if plan.simulation else None
        self._afterlife = Afterlife(instance.data / orphans.NAME, plan.orphan_seconds)
        self._spare = Spare(plan.spare, self._afterlife, log) if plan.spare else None

    @property
    def roles(self) -> list[Role]:
        others = [role for role in (self.simulation, self.journaler, self.replica) if role is not None]
        return [*others, self.engine, *self.gateways]

    async def run(self) -> None:
        """Keep every role filled until `stop`; then end them in order. Whatever happens here, no child is
        left.
        """
        try:
            await self._take_over()
            async with asyncio.TaskGroup() as group:
                for role in self.roles:
                    group.create_task(self._fill(role), name=role.name)
                if self._spare is not None:
                    group.create_task(self._spare.stand_by(lambda: self.engine.is_ready, self.is_stopping))
                group.create_task(self._end_in_order(), name="end in order")
        finally:
            self.kill()

    def stop(self) -> None:
        """Begin to end: drain the gateways, then stop the engine and the simulation. `run` returns within two
        seconds.
        """
        self.is_stopping.set()

    def kill(self) -> None:
        for role in self.roles:
            if role.child is not None:
                role.child.signal(signal.SIGKILL)
        if self._spare is not None:
            self._spare.kill()

    async def _take_over(self) -> None:
        """Fill roles with those whom a killed supervisor has left. Nobody is heard before all are here."""
        wanted = {role.place: role.mark for role in self.roles if role.mark}
        places, path = self._instance.directory(DIRECTORY), self._instance.data / orphans.NAME
        by_place = {role.place: role for role in self.roles}
        adopted = await orphans.take_over(places, path, wanted, self._log.write)
        for found in adopted:
            role = by_place[found.orphan.name]
            role.starts, role.epoch = 1, found.orphan.epoch
            role.child = child.adopt(found, *self._ears_of(role))
            self._log.write(f"{role.name} adopted", pid=role.child.pid)
        if self.journaler is not None and self.engine.child is None:
            self.journaler.send({"kind": "engine_lost"})
        for role in self.roles:
            if role.child is not None and role.greet:
                role.greet(role)

    # --- one role, over the lives of its processes ----------------------------------------------------------

    async def _fill(self, role: Role) -> None:
        backoff, clock = Backoff(), asyncio.get_running_loop()
        while not self.is_stopping.is_set():
            started = clock.time()
            how = await self._live(role)
            if self.is_stopping.is_set():
                self._log.write(f"{role.name} {how}")
                return
            if role in (self.engine, self.journaler) and self._halts(role):
                self._log.write(f"{role.name} {how}; halted: {self.halted}", level="error")
                return
            pause = backoff.after(clock.time() - started)
            self._tell_end(role, how, pause, backoff.quick_ends)
            await self._pause(pause)

    async def _live(self, role: Role) -> str:
        """Run one process from its start to its end; say how it ended."""
        try:
            code = await (role.child or self._start(role)).ended()
        except OSError as error:  # no process, no descriptor, no disk: the next try may find some
            return f"could not start: {error}"
        role.child, role.is_ready, role.code = None, False, code
        if role.mourn:
            role.mourn(role)
        if code is None:
            return "ended, and how is not known: an earlier supervisor had started it"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def _start(self, role: Role) -> Child:
        """Raises OSError, also while the one before it lives: no role is filled twice."""
        role.starts += 1
        place = self._instance.place(role.place).take()
        try:
            arguments, ears = role.arguments(), self._ears_of(role)
            note = f"{role.epoch} {role.mark or '-'}"
            ready = self._called(place, note, *ears) if role is self.engine else None
            afterlife = self._afterlife if role.mark else None
            role.child = ready or child.start(arguments, *ears, place, note, afterlife)
        finally:
            os.close(place)
        how = "called, who stood by" if ready else "started"
        self._log.write(f"{role.name} {how}", pid=role.child.pid)
        if role.greet:
            role.greet(role)
        return role.child

    def _called(
        self, place: int, note: str, on_line: child.OnLine, on_message: child.OnMessage
    ) -> Child | None:
        """The engine, if one has stood by."""
        if self._spare is None:
            return None
        changes = {"epoch": self.engine.epoch, "suspect": self._suspect}
        return self._spare.call(changes, place, note, on_line, on_message)

    def _ears_of(self, role: Role) -> tuple[child.OnLine, child.OnMessage]:
        """Who gets what its process prints, and what it says."""
        on_line = partial(self._log.forward, role.name)
        return on_line, partial(role.hear, role) if role.hear else None

    def _tell_end(self, role: Role, how: str, pause: float, quick_ends: int) -> None:
        is_again = quick_ends >= QUICK_ENDS_TOLD
        text = f"{role.name} {how}; next start in {pause:.1f} s"
        if is_again:
            text += f" ({quick_ends} times in a row within {STEADY_SECONDS:.0f} s: its own lines say why)"
        self._log.write(text, level="error" if is_again else "warning")

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.is_stopping.wait()
        except TimeoutError:
            pass

    async def _end_in_order(self) -> None:
        """First those who talk to clients, then those whom they read from; before all a client of ours."""
        await self.is_stopping.wait()
        if self._spare is not None:
            await self._spare.end()
        keepers = [self.journaler] if self.journaler else []
        sources = [role for role in self.roles if role not in self.gateways + keepers]
        if self.simulation and self._plan.simulation_is_client:
            sources.remove(self.simulation)
            self._terminate([self.simulation])
        for role in self.gateways:
            role.send({"kind": "drain"})
        clock = asyncio.get_running_loop()
        began = clock.time()
        await self._ended([role for role in self.roles if role not in sources + keepers], DRAIN_SECONDS)
        self._terminate(sources)
        await self._ended(sources, max(STOP_SECONDS, DRAIN_SECONDS + STOP_SECONDS - (clock.time() - began)))
        self._terminate(keepers)
        await self._ended(keepers, CLOSE_SECONDS)

    def _terminate(self, roles: list[Role]) -> None:
        for role in roles:
            if role.child is not None:
                role.child.signal(signal.SIGTERM)

    async def _ended(self, roles: list[Role], seconds: float) -> None:
        """Wait until the processes have ended, at most `seconds`; then kill those that have not."""
        children = [role.child for role in roles if role.child is not None]
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(child.ended() for child in children))
        except TimeoutError:
            for role in roles:
                if role.child is not None and role.child.is_alive:
                    self._log.write(f"{role.name} did not end in {seconds:.1f} s: killed", level="warning")
                    role.child.signal(signal.SIGKILL)
            await asyncio.gather(*(child.ended() for child in children))

    def _engine_arguments(self) -> list[str]:
        self.engine.epoch = self._instance.next_epoch()
        return self._plan.engine(self.engine.epoch, self._suspect)

    def _journaler_arguments(self) -> list[str]:
        assert self._plan.journaler is not None and self.journaler is not None
        self.journaler.epoch = self._instance.next_epoch()
        return self._plan.journaler(self.journaler.epoch)

    # --- what no restart mends ------------------------------------------------------------------------------

    def _halts(self, role: Role) -> bool:
        """Whether that was the last process of this role: the next one would end in the same way."""
        if role.code == EXIT_CORRUPT:
            self.halted = f"the {role.name} cannot go on with the journal; its own lines say why"
        elif role is self.engine and self._crashes >= CRASHES_MAX:
            self.halted = (
                f"the engine has crashed {self._crashes} times at command {self._suspect}, "
                "and would do so for ever"
            )
        return bool(self.halted)

    def _note_crash(self, engine: Role) -> None:
        """Remember at which command the engine has crashed, if it was at one."""
        applying = self._applying(engine)
        is_crash = engine.code is not None and (engine.code > 0 or -engine.code in CRASHES)
        if not is_crash or applying == 0:
            return
        self._crashes = self._crashes + 1 if applying == self._suspect else 1
        self._suspect = applying

    def _applying(self, engine: Role) -> int:
        """The command that the engine has said that it applies."""
        if not engine.fds.get("stats"):
            return 0
        fd = os.dup(engine.fds["stats"][0])
        try:
            page = stats.attach(fd)
        except (region.Refused, OSError):
            os.close(fd)
            return 0
        return int(stats.read(page)["counters"].get("applying", 0))

    # --- the operator ---------------------------------------------------------------------------------------

    def operate(self, command: Message, answer: Answer) -> None:
        """Have the engine do what its operator wants; `answer` is called once, now or later."""
        if not self.engine.is_ready:
            answer({"ok": False, "error": "the exchange is not up: try again in a moment"})
            return
        self._asked_ever += 1
        self._asked[self._asked_ever] = answer
        self.engine.send({"kind": "operator", "id": self._asked_ever, "command": command})

    def _answer_operator(self, request: int, message: Message) -> None:
        if answer := self._asked.pop(request, None):
            refusal = message.get("refusal", "")
            error = {} if message.get("ok") else {"error": REFUSALS.get(refusal, f"refused: {refusal}")}
            answer({"ok": bool(message.get("ok")), "sequence": message.get("sequence"), **error})

    # --- who is told what -----------------------------------------------------------------------------------

    def _hear_engine(self, engine: Role, message: Message, fds: list[int]) -> None:
        match message:
            case {"kind": "world", "epoch": int(epoch)} if len(fds) == 1:
                bell = engine.fds["stats"] if len(engine.fds.get("stats", [])) == 2 else []
                engine.keep("world", [*fds, *map(os.dup, bell)])
                self.world_epoch, engine.is_ready = epoch, True
                self._log.write("the engine has a world", epoch=epoch, height=message.get("height"))
                for gateway in self.gateways:
                    self._tell_world(gateway)
            case {"kind": "stats"} if len(fds) in (1, 2):  # of an exchange: what wakes it, too
                engine.keep("stats", fds)
            case {"kind": "journal", "epoch": int()} if len(fds) == 3 and self.journaler is not None:
                self.journaler.send(message, fds)
                for fd in fds:
                    os.close(fd)
            case {"kind": "operator", "id": int(request)} if not fds:
                self._answer_operator(request, message)
            case {"kind": "meta"}:
                engine.keep("meta", fds)
                self._meta = (message, fds)
                for gateway in self.gateways:
                    gateway.send(*self._meta)
            case _:
                self._refuse(engine, message, fds)

    def _hear_gateway(self, gateway: Role, message: Message, fds: list[int]) -> None:
        match message:
            case {"kind": "gateway"} if len(fds) == 2:
                gateway.keep("gateway", fds)
                self._introduce(gateway)
            case {"kind": "door", "epoch": int(epoch)} if len(fds) == 1:
                index = self.gateways.index(gateway)
                self.engine.send({"kind": "door", "index": index, "epoch": epoch}, fds)
                os.close(fds[0])
            case {"kind": "ready"} if not fds:
                gateway.is_ready = True
                self._log.write(f"{gateway.name} is ready", port=message.get("port"))
            case _:
                self._refuse(gateway, message, fds)

    def _hear_journaler(self, journaler: Role, message: Message, fds: list[int]) -> None:
        match message:
            case {"kind": "journal", "sequence": int()} if len(fds) == 2:
                journaler.keep("journal", fds)
                journaler.is_ready, self._recorded = True, message
                self._introduce_keeper()
            case _:
                self._refuse(journaler, message, fds)

    def _mourn_journaler(self, journaler: Role) -> None:
        """The engine goes on, and shows and answers nothing until another one has taken what waits."""
        journaler.drop("journal")

    def _refuse(self, role: Role, message: Message, fds: list[int]) -> None:
        self._log.write(
            f"{role.name} sent what nobody asked for", level="warning", kind=message.get("kind"), fds=len(fds)
        )
        for fd in fds:
            os.close(fd)

    def _greet_engine(self, engine: Role) -> None:
        for gateway in self.gateways:
            self._introduce(gateway)
        self._introduce_keeper()

    def _mourn_engine(self, engine: Role) -> None:
        """Gateways keep the last world, and call it stale. So does a gateway that starts in the meantime."""
        self._note_crash(engine)
        engine.drop("stats")
        if self.journaler is not None:
            self.journaler.drop("journal")  # it announces itself anew when it has kept what is left
            self.journaler.send({"kind": "engine_lost"})
        for request in [*self._asked]:
            self._asked.pop(request)({"ok": False, "error": LOST})
        for gateway in self.gateways:
            gateway.send({"kind": "engine_lost"})

    def _greet_gateway(self, gateway: Role) -> None:
        self._tell_world(gateway)
        if self._meta is not None:
            gateway.send(*self._meta)
        if self.engine.child is None:
            gateway.send({"kind": "engine_lost"})

    def _mourn_gateway(self, gateway: Role) -> None:
        gateway.drop("gateway")

    def _introduce(self, gateway: Role) -> None:
        """Tell the engine which bell to ring for this gateway."""
        if fds := gateway.fds.get("gateway"):
            self.engine.send({"kind": "gateway", "index": self.gateways.index(gateway)}, fds)

    def _introduce_keeper(self) -> None:
        """Tell the engine who keeps its commands, and where the journal ends.

        Not while he holds the ring of another one: what is in there comes first. He lets go of it, and says
        then where the journal ends.
        """
        if self.journaler is None or not (fds := self.journaler.fds.get("journal")):
            return
        if self._recorded.get("holds", self.engine.epoch) != self.engine.epoch:
            self.journaler.drop("journal")
            self.journaler.send({"kind": "engine_lost"})
        else:
            self.engine.send({"kind": "journal", "sequence": self._recorded["sequence"]}, fds)

    def _tell_world(self, gateway: Role) -> None:
        if fds := self.engine.fds.get("world"):
            gateway.send({"kind": "world", "epoch": self.world_epoch}, fds)
