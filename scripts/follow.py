"""One instance, from start to end: its data directory, port, log, signals, supervisor and screen."""

import asyncio
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts import instance, log, screen, warm
from scripts.config import Config
from scripts.supervisor import OURS, Programs, Supervisor

EXIT_FAULT = 1
STREAMS = ("node_order_statuses", "node_raw_book_diffs", "node_fills")
FORMS = ("by_block", "streaming")


def run(config: Config, version: str, programs: Programs = OURS) -> int:
    """Run until a signal ends it; give the exit code (see cli). Raises instance.Busy, OSError."""
    os.umask(0o077)
    if (warm.ROOT / "pyproject.toml").exists():  # a checkout, which has a place for compiled kernels
        os.environ.setdefault("NUMBA_CACHE_DIR", str(warm.cache_directory()))
    mine = instance.Instance(Path(config.data))
    try:
        with instance.reserve(config.gateway.host, config.gateway.port) as holder:
            people = None if sys.stdout.isatty() and sys.stderr.isatty() else sys.stderr
            story = log.Log(mine.directory("log"), people)
            try:
                port = holder.getsockname()[1]
                return asyncio.run(_run(config, version, programs, mine, story, port))
            finally:
                story.close()
    finally:
        mine.close()


async def _run(
    config: Config, version: str, programs: Programs, mine: instance.Instance, story: log.Log, port: int
) -> int:
    node_data, node_info, node_port = _node(config, mine)
    supervisor = Supervisor(
        config,
        mine,
        story,
        port=port,
        node_data=node_data,
        node_info=node_info,
        node_port=node_port,
        programs=programs,
    )
    faults: list[str] = []
    _watch_signals(supervisor, story)
    _watch_faults(supervisor, story, faults)
    story.write("start", pid=os.getpid(), version=version, unshown={"settings": config})
    if node_port is None and (doubt := doubts_about(node_data)):
        story.write(doubt, level="warning")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(supervisor.run(), name="supervisor")
            group.create_task(_show(supervisor, config, story, port), name="screen")
    except BaseExceptionGroup as error:
        faults.append("".join(traceback.format_exception(error)))
        story.write("a fault of the supervisor", level="error", fault=faults[-1])
    story.write("end", faults=len(faults))
    for fault in faults:
        print(fault, file=sys.stderr)
    return EXIT_FAULT if faults else 0


def _node(config: Config, mine: instance.Instance) -> tuple[Path, str | None, int | None]:
    """Where the node's logs are, where it answers, and on which port the simulated one shall."""
    if config.follow.simulated:
        port = instance.free_port()
        return mine.directory("simulated"), f"http://127.0.0.1:{port}", port
    return Path(config.follow.node_data or ""), config.follow.node_info, None


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


async def _show(supervisor: Supervisor, config: Config, story: log.Log, port: int) -> None:
    """Keep the screen up to date until everything has ended."""
    host = config.gateway.host
    watcher = screen.Watcher(
        supervisor,
        address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        source="a simulated node" if config.follow.simulated else str(config.follow.node_data),
        data=config.data,
        is_recording=config.follow.replay_speed is not None,
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


def doubts_about(node_data: Path) -> str:
    """Say what looks wrong with the directory of a node's logs, or nothing. Files may still appear: it is
    no error.
    """
    wanted = [f"{stream}_{form}" for form in FORMS for stream in STREAMS]
    if any((node_data / name).is_dir() for name in wanted):
        return ""
    for pattern in ("*", "*/*", "*/*/*"):
        for below in node_data.glob(f"{pattern}/{STREAMS[0]}_*"):
            return (
                f"no node logs in {node_data} yet, but there are some in {below.parent}: did you mean that?"
            )
    return f"no node logs in {node_data} yet (expected {wanted[0]} and its like): waiting for them"
