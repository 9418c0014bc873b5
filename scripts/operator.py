"""What only the exchange's operator may say: deposits and withdrawals, over a socket in the data directory.

    {"kind": "deposit", "address": "0x...", "amount": "100.25"}    ->  {"ok": true, "sequence": 17}
    {"kind": "withdraw", "address": "0x...", "amount": "1"}        ->  {"ok": false, "error": "..."}

One message of a SOCK_SEQPACKET unix socket each way, amounts in USDC as decimal text, as many in turn as one
likes. Who may open the socket's file is the operator: it has mode 0600. `Desk` is the supervisor's end, `ask`
that of everyone else.
"""

import asyncio
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shm import region, units
from shm.constants import USD_PLACES

NAME = "operator.sock"  # below the data directory
ANSWER_SECONDS = 10.0
AMOUNT_MAX = 10**15  # 10**-USD_PLACES USDC
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")

Message = dict[str, Any]
Answer = Callable[[Message], None]


class Unheard(Exception):
    """Nobody has answered: nothing runs there, or it ended first. The text is for the user."""


class Wrong(ValueError):
    """What was asked for cannot be meant. The text is for the user."""


def command(message: Mapping[str, Any]) -> Message:
    """Check what the operator asks for, and say it as the engine takes it: the amount in 10**-USD_PLACES.

    Raises Wrong.
    """
    kind, address, amount = (message.get(name) for name in ("kind", "address", "amount"))
    if kind not in ("deposit", "withdraw"):
        raise Wrong(f"{kind!r}: expected deposit or withdraw")
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
        raise Wrong(f"{address!r} is no address: expected 0x and 40 hex digits")
    try:
        micros = units.parse_decimal(str(amount).encode(), USD_PLACES)
    except units.NotADecimal:
        raise Wrong(f"{amount!r} is no amount: expected USDC with at most {USD_PLACES} decimals") from None
    if not 0 < micros <= AMOUNT_MAX:
        raise Wrong(f"{amount} USDC: expected more than nothing, at most {AMOUNT_MAX // 10**USD_PLACES:,}")
    return {"kind": kind, "address": address.lower(), "amount": micros}


# --- who asks -----------------------------------------------------------------------------------------------


def ask(path: Path, message: Message, seconds: float = ANSWER_SECONDS) -> Message:
    """Say one message at the socket `path` and wait for the answer. Raises Unheard."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.settimeout(seconds)
        try:
            with _short(path) as short:
                asking.connect(short)
        except OSError:
            raise Unheard(f"no exchange runs on {path.parent}: start `ringside up`, or give --data") from None
        try:
            region.send(asking, message)
            answer, fds = region.receive(asking)
        except (OSError, region.Refused) as error:
            raise Unheard(f"no answer ({error}): whether it was done is not known") from None
        for fd in fds:
            os.close(fd)
        return answer


# --- who answers --------------------------------------------------------------------------------------------


class Desk:
    """Listens in the running loop. `hear` gets each checked command, and what to call with the answer."""

    def __init__(self, path: Path, hear: Callable[[Message, Answer], None]):
        self._path, self._hear = path, hear
        self._loop = asyncio.get_running_loop()
        self._asking: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path.unlink(missing_ok=True)  # the instance's lock says that nobody listens there
        before = os.umask(0o177)
        try:
            with _short(path) as short:
                self._listener.bind(short)
        finally:
            os.umask(before)
        self._listener.setblocking(False)
        self._listener.listen()
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        for one in [*self._asking]:
            self._forget(one)
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        with suppress(OSError):
            one, _ = self._listener.accept()
            one.setblocking(False)
            self._asking.add(one)
            self._loop.add_reader(one, self._receive, one)

    def _receive(self, one: socket.socket) -> None:
        try:
            message, fds = region.receive(one)
        except BlockingIOError:
            return
        except (OSError, region.Refused):
            self._forget(one)
            return
        for fd in fds:
            os.close(fd)
        try:
            self._hear(command(message), lambda answer: self._answer(one, answer))
        except Wrong as wrong:
            self._answer(one, {"ok": False, "error": str(wrong)})

    def _answer(self, one: socket.socket, answer: Message) -> None:
        if one in self._asking:
            try:
                region.send(one, answer)
            except OSError:  # who does not take its answers has gone, or might as well
                self._forget(one)

    def _forget(self, one: socket.socket) -> None:
        self._asking.discard(one)
        self._loop.remove_reader(one)
        one.close()


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Another name of `path`, that fits the 108 bytes of a socket's address wherever the directory lies."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
