"""One instance, from start to end: its data directory, port, log, signals, supervisor and screen.

What it is there for, following a node or being an exchange, is the caller's, as a `Plan`.
"""

import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts import caches, log, operator, screen
from scripts.config import Config
from scripts.instance import Instance
from scripts.supervisor import Plan, Supervisor

EXIT_FAULT = 1

Prepare = Callable[[Instance, int], Plan]  # with the port that was reserved


def run(config: Config, version: str, prepare: Prepare) -> int:
    """Run until a signal ends it; give the exit code (see cli). Raises instance.Busy, OSError."""
    os.umask(0o077)
    caches.settle()
    mine = Instance(Path(config.data))
    try:
        with mine.hold(config.gateway.host, config.gateway.port) as holder:
            people = None if sys.stdout.isatty() and sys.stderr.isatty() else sys.stderr
            port = holder.getsockname()[1]
            plan = prepare(mine, port)
            story = log.Log(mine.directory("log"), people)
            try:
                return asyncio.run(_run(config, version, plan, mine, story, port))
            finally:
                story.close()
    finally:
        mine.close()


async def _run(config: Config, version: str, plan: Plan, mine: Instance, story: log.Log, port: int) -> int:
    supervisor = Supervisor(plan, mine, story)
    faults: list[str] = []
    _watch_signals(supervisor, story)
    _watch_faults(supervisor, story, faults)
    story.write("start", pid=os.getpid(), version=version, unshown={"settings": config})
    if plan.doubt:
        story.write(plan.doubt, level="warning")
    desk = operator.Desk(mine.data / operator.NAME, supervisor.operate) if plan.has_operator else None
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(supervisor.run(), name="supervisor")
            group.create_task(_show(supervisor, plan, config, story, port), name="screen")
    except BaseExceptionGroup as error:
        faults.append("".join(traceback.format_exception(error)))
        story.write("a fault of the supervisor", level="error", fault=faults[-1])
    finally:
        if desk is not None:
            desk.close()
    story.write("end", faults=len(faults))
    for fault in faults:
        print(fault, file=sys.stderr)
    return EXIT_FAULT if faults else 0


def _watch_signals(supervisor: Supervisor, story: log.Log) -> None:
    """The first signal drains, the second ends at once."""

    def on_signal(number: int) -> None:
        if supervisor.is_stopping.is_set():
            supervisor.kill()
            screen.Screen(sys.stdout).close()
            os._exit(128 + number)
        story.write(f"{signal.Signals(number).name}: ending")
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


def _watch_faults(supervisor: Supervisor, story: log.Log, faults: list[str]) -> None:
    """A fault in a callback of the loop ends this process too: who started it starts it again."""

    def on_fault(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        fault = "".join(traceback.format_exception(error)) if error else str(context.get("message"))
        faults.append(fault)
        story.write("a fault of the supervisor", level="error", fault=fault)
        supervisor.stop()

    asyncio.get_running_loop().set_exception_handler(on_fault)


def address_of(host: str, port: int) -> str:
    """As it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _show(supervisor: Supervisor, plan: Plan, config: Config, story: log.Log, port: int) -> None:
    """Keep the screen up to date until everything has ended."""
    watcher = screen.Watcher(
        supervisor,
        address=address_of(config.gateway.host, port),
        source=plan.source,
        hint=plan.hint,
        data=config.data,
        is_recording=plan.is_recording,
    )
    shown = screen.Screen(sys.stdout)
    try:
        while True:
            shown.show(watcher.look(), story.recent, time.monotonic())
            if supervisor.is_stopping.is_set():
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(screen.REFRESH_SECONDS):
                    await supervisor.is_stopping.wait()
    finally:
        shown.close()
