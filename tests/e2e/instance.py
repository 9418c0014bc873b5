"""A whole instance, started as a user starts it, below a folder of the test's.

    with Instance(folder, "--snapshot", path) as ringside:
        ringside.health()["height"]
        ringside.info({"type": "meta"})
        os.kill(ringside.pids()["engine"], signal.SIGKILL)

Its logs are what the test writes below `node_data`; an `Exchange` has none. It listens on a free port, and
what it prints is kept in `output`, which a failed wait shows. Waits have bounds so long that only a fault
meets them.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from scripts import instance, operator, places

ROOT = Path(__file__).parents[2]
START_SECONDS = 240  # kernels may have to be compiled first
WAIT_SECONDS = 60
POLL_SECONDS = 0.02
SHOWN_CHARACTERS = 6_000  # of what an instance has printed, when something was waited for in vain


def until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Wait until the condition gives something true, and give that; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {what}")
        time.sleep(POLL_SECONDS)
    return found


class Instance:
    """folder: node_data and data lie in it, unless told otherwise. arguments: more options of its command."""

    def __init__(
        self, folder: Path, *arguments: str, node_data: Path | None = None, data: Path | None = None
    ) -> None:
        self.node_data, self.data = node_data or folder / "node", data or folder / "data"
        self.node_data.mkdir(parents=True, exist_ok=True)
        self.port = instance.free_port()
        self.output = folder / "output"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    # --- its life -------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        self.wait_until_serving()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill_all()

    def command(self) -> list[str]:
        """What `ringside` is told to do. Another kind of instance says something else here."""
        if "--simulated" in self._arguments:
            return ["follow"]
        return ["follow", "--node-data", str(self.node_data)]

    def start(self) -> None:
        """Start the supervisor; return at once."""
        places = ["--data", str(self.data), "--port", str(self.port)]
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scripts.cli", *self.command(), *places, *self._arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_until_serving(self) -> None:
        """Return once a gateway has a world with a height."""
        self.wait(lambda: self.health()["height"], "an instance that serves a height", START_SECONDS)

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
        """Wait as `until` does; a failure shows the instance's last lines, and so does its early end."""

        def alive() -> Any:
            code = self.supervisor.poll()
            assert code is None, f"the instance has ended with code {code} before {what}: {self.printed()}"
            return condition()

        try:
            return until(alive, what, seconds)
        except pytest.fail.Exception as failure:
            pytest.fail(f"{failure}\n{self.printed()}")

    def end(self, number: int = signal.SIGTERM, seconds: float = WAIT_SECONDS) -> int:
        """Signal the supervisor, wait for its end, and give its exit code."""
        self.supervisor.send_signal(number)
        return self.supervisor.wait(seconds)

    # --- its processes --------------------------------------------------------------------------------------

    @property
    def supervisor(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def pids(self) -> dict[str, int]:
        """Processes that live now: `engine`, `gateway 0`, ... -> process number; whoever has started them."""
        found = {}
        for place in (self.data / places.DIRECTORY).glob("*"):
            holder = places.Place(place).holder()
            if holder is not None and lives(holder.pid) and (role := _role(holder.pid)):
                found[role] = holder.pid
        return found

    def pid(self, role: str) -> int:
        """Of the process that fills a role, as soon as there is one."""
        pid: int = self.wait(lambda: self.pids().get(role), f"a process for the {role}")
        return pid

    def kill(self, role: str) -> int:
        """SIGKILL the process of a role; give what its number was."""
        pid = self.pid(role)
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_supervisor(self) -> None:
        """SIGKILL the supervisor alone: the others go on."""
        self.supervisor.kill()
        self.supervisor.wait()

    def kill_all(self) -> None:
        """SIGKILL the supervisor and all the others, as the end of a machine does."""
        self.kill_supervisor()
        for process in self.left_behind():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        until(lambda: not self.left_behind(), "the end of all processes of the instance")

    def left_behind(self) -> list[psutil.Process]:
        """Processes of this data directory, whoever is their parent."""
        return [process for process in psutil.process_iter() if _mentions(process, str(self.data))]

    # --- what it serves -------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def health(self) -> dict[str, Any]:
        """What GET /health says; a height of None while nobody answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                health: dict[str, Any] = json.load(answer)
                return health
        except OSError:
            return {"state": "unreachable", "height": None, "lagMs": None, "staleMarkets": None}

    def info(self, request: dict[str, Any]) -> Any:
        """POST /info. Raises urllib.error.HTTPError for a refusal."""
        return self.post("/info", request)

    def post(self, path: str, request: dict[str, Any]) -> Any:
        body = json.dumps(request).encode()
        asked = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.load(answer)

    def wait_for_height(self, height: int) -> None:
        self.wait(lambda: (self.health()["height"] or 0) >= height, f"height {height}")

    # --- what it says ---------------------------------------------------------------------------------------

    def printed(self) -> str:
        return self.output.read_text(errors="replace")[-SHOWN_CHARACTERS:]

    def logged(self, text: str) -> list[dict[str, Any]]:
        """Lines of its log that begin with this text."""
        lines = (self.data / "log" / "ringside.log").read_bytes().splitlines()
        return [line for line in map(json.loads, lines) if line["text"].startswith(text)]


class Exchange(Instance):
    """`ringside up`, and its operator. Without simulated traders, unless told otherwise."""

    def __init__(self, folder: Path, *arguments: str, simulation: bool = False) -> None:
        super().__init__(folder, *arguments)
        self._simulation = simulation

    def command(self) -> list[str]:
        return ["up", *([] if self._simulation else ["--no-simulation"])]

    def deposit(self, address: str, amount: str = "100000") -> None:
        """Give an account money, in USDC."""
        self._operate({"kind": "deposit", "address": address, "amount": amount})

    def oracle(self, coin: str, price: str) -> None:
        """Say what a market's underlying is worth. While its book has one side alone, that is its mark."""
        self._operate({"kind": "oracle", "coin": coin, "price": price})

    def _operate(self, message: dict[str, Any]) -> None:
        answer = operator.ask(self.data / operator.NAME, message)
        assert answer["ok"], answer


def lives(pid: int) -> bool:
    """Whether the process has not ended; one that nobody has waited for yet has."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _role(pid: int) -> str | None:
    """What a process is there for, once it has become that."""
    try:
        words = _words(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return None
    if "-c" in words:
        return None
    if "engine.follow" in words or "engine.exchange" in words:
        return "engine"
    if "gateway" in words:
        return f"gateway {json.loads(words[words.index('--settings') + 1])['index']}"
    if "engine.journal" in words:
        return "journaler"
    if "engine.replica" in words:
        return "replica"
    return "traders" if "scripts.simulated_exchange" in words else None


def _words(process: psutil.Process) -> list[str]:
    try:
        words: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return words


def _mentions(process: psutil.Process, text: str) -> bool:
    return process.pid != os.getpid() and any(text in word for word in _words(process))
