"""What a process that the supervisor starts owes it: settings, a line to it, signals, lines of its log.

Such a process ends when the supervisor says so, or when it is gone and no other comes (shm/control.py). What
the terminal says is the supervisor's affair; a second SIGTERM does not wait.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from shm import control, region
from shm.control import BECOME, SPARE, Line

Settings = TypeVar("Settings", bound=msgspec.Struct)


class Runner(Protocol):
    """The work of a process, which ends soon after `ending` is set."""

    ending: bool

    def run(self) -> None: ...


def begin(
    words: Sequence[str], kind: type[Settings], prepare: Callable[[], None] = lambda: None
) -> tuple[Settings, Line]:
    """Give the settings and the line that the command line names; pinned, if they name a core.

    A spare (`--spare`) prepares itself before, and waits until it is needed.
    """
    arguments = dict(zip(words[::2], words[1::2], strict=True))
    settings, line = msgspec.json.decode(arguments["--settings"], type=kind), Line.of(arguments)
    if "--spare" in arguments:
        prepare()
        settings = msgspec.structs.replace(settings, **_called(line))
    cpu = getattr(settings, "cpu", None)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    return settings, line


def _called(line: Line) -> dict[str, Any]:
    """Stand by until the supervisor says what to become, and give what that changes of the settings.

    With it comes the lock of the place (scripts/places.py), which is this process's for its life. Who is not
    called before the supervisor is gone has nothing to do.
    """
    line.send({"kind": SPARE})
    heard = line.receive()
    if heard is None or heard[0].get("kind") != BECOME:
        sys.exit(0)
    message, (place,) = heard
    who = f"{os.getpid()} {region.process_start_time(os.getpid())} {message['note']}"
    os.pwrite(place, who.encode(), 0)
    settings: dict[str, Any] = message["settings"]
    return settings


def run(runner: Runner) -> None:
    """Run until the end. Raises what it raises."""

    def end(*_: Any) -> None:
        if runner.ending:
            os._exit(1)
        runner.ending = True

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    runner.run()


def hear(line: Line) -> tuple[dict[str, Any], list[int]] | None:
    """Take one message of the supervisor, and its descriptors; None: it is gone, and the line is lost."""
    heard = line.receive()
    if heard is None:
        line.lose()
    return heard


def close(fds: list[int]) -> None:
    """Descriptors that nobody here wants."""
    for fd in fds:
        os.close(fd)


def log(process: str, event: str, facts: dict[str, Any]) -> None:
    """One JSON line on stderr, which is the supervisor's to keep."""
    line = {"event": event, "time_ms": time.time_ns() // 1_000_000, "process": process, **facts}
    control.say(msgspec.json.encode(line))
