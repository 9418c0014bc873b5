"""A process that stands by: it has loaded all that an engine needs, and one message makes it the engine.

Python, its modules and the machine code of the kernels are a good part of the time that an exchange is away
when its engine dies. A spare has them. It has no place and writes nothing, so it is in nobody's way, and it
ends with its supervisor. It is started when an engine has served for a while: until then it would only take
time from it.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from scripts import child
from scripts.child import Afterlife, Child, OnLine, OnMessage
from scripts.log import Log
from shm.control import BECOME, SPARE

CALM_SECONDS = 5.0  # that the engine has served
LOOK_SECONDS = 0.5
NAME = "spare engine"


class Spare:
    """arguments: of the interpreter. The process lives on as `afterlife` says, once it is called."""

    def __init__(self, arguments: list[str], afterlife: Afterlife, log: Log):
        self._arguments, self._afterlife, self._log = arguments, afterlife, log
        self._child: Child | None = None
        self._is_ready = False

    async def stand_by(self, is_served: Callable[[], bool], stopping: asyncio.Event) -> None:
        """Until then, have a process ready whenever the engine has served for CALM_SECONDS."""
        clock = asyncio.get_running_loop()
        since = clock.time()
        while not stopping.is_set():
            if self._child is not None and not self._child.is_alive:
                self._log.write(f"{NAME} ended", level="warning")
                self._child, self._is_ready = None, False
            if self._child is not None or not is_served():
                since = clock.time()
            elif clock.time() - since >= CALM_SECONDS:
                self._start()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await stopping.wait()

    def call(
        self, settings: dict[str, Any], place: int, note: str, on_line: OnLine, on_message: OnMessage
    ) -> Child | None:
        """The process, which is the engine from now on, with these settings changed; None: none is ready.

        place, note, on_line, on_message: as child.start has them
        """
        called = self._child
        if called is None or not self._is_ready:
            return None
        self._child, self._is_ready = None, False
        called.become(on_line, on_message)
        if called.send({"kind": BECOME, "settings": settings, "note": note}, [place]):
            return called
        called.signal(signal.SIGKILL)
        return None

    def kill(self) -> None:
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    async def end(self) -> None:
        self.kill()
        if self._child is not None:
            await self._child.ended()

    def _start(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            on_line = partial(self._log.forward, NAME)
            self._child = child.start(self._arguments, on_line, self._hear, nowhere, "", self._afterlife)
            self._log.write(f"{NAME} started", pid=self._child.pid)
        except OSError as error:
            self._log.write(f"{NAME} could not start: {error}", level="warning")
        finally:
            os.close(nowhere)

    def _hear(self, message: dict[str, Any], fds: list[int]) -> None:
        self._is_ready = message.get("kind") == SPARE
        self._log.write(f"{NAME} stands by" if self._is_ready else f"{NAME} sent what nobody asked for")
        for fd in fds:
            os.close(fd)
