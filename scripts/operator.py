"""What only the exchange's operator may say, over a socket in the data directory.

    {"kind": "deposit", "address": "0x...", "amount": "100.25"}    ->  {"ok": true, "sequence": 17}
    {"kind": "withdraw", "address": "0x...", "amount": "1"}        ->  {"ok": false, "error": "..."}
    {"kind": "oracle", "coin": "BTC", "price": "60000"}            also "external": a perp's price elsewhere
    {"kind": "halt", "coin": "BTC"}                                cancel-only, resume
    {"kind": "limits", "coin": "BTC", "cap": "5000000000", "band": 800, "step": 0, "impact": 20000}
    {"kind": "tier", "coin": "BTC", "notional": "150000000", "leverage": 20}
    {"kind": "kill", "address": "0x..."}                           revive; the address "all": everyone

One message of a SOCK_SEQPACKET unix socket each way, amounts in USDC as decimal text, as many in turn as one
likes. Who may open the socket's file is the operator: it has mode 0600. `Desk` is the supervisor's end, `ask`
that of everyone else.
"""

import asyncio
import os
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from shm import region, units
from shm.codes import Trading
from shm.constants import INTEREST_VALUE_MAX as VALUE_MAX
from shm.constants import USD_PLACES
from shm.control import short

NAME = "operator.sock"  # below the data directory
ANSWER_SECONDS = 10.0
AMOUNT_MAX = 10**15  # 10**-USD_PLACES USDC
EVERYONE = "0x" + "00" * 20  # stands for all accounts
MODES = {"resume": Trading.OPEN, "cancel-only": Trading.CANCEL_ONLY, "halt": Trading.HALTED}
SWITCHES = {"kill": 1, "revive": 0}
KINDS = ("deposit", "withdraw", "oracle", *MODES, "limits", "tier", *SWITCHES)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_COIN = re.compile(r"[A-Za-z0-9]{1,16}")
_PRICE = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")

Message = dict[str, Any]
Answer = Callable[[Message], None]


class Unheard(Exception):
    """Nobody has answered: nothing runs there, or it ended first. The text is for the user."""


class Wrong(ValueError):
    """What was asked for cannot be meant. The text is for the user."""


def command(message: Mapping[str, Any]) -> Message:
    """Check what the operator asks for, and say it as the engine takes it (engine/exchange/operating.py).

    Raises Wrong.
    """
    kind = message.get("kind")
    if kind in ("deposit", "withdraw"):
        return {
            "kind": kind,
            "address": _address(message),
            "amount": _micros(message, "amount", 1, AMOUNT_MAX),
        }
    if kind in SWITCHES:
        named = message.get("address")
        address = EVERYONE if named == "all" else _address(message)
        return {"kind": "kill", "address": address, "amount": SWITCHES[kind]}
    if kind in MODES:
        return {"kind": "mode", "coin": _coin(message), "amount": int(MODES[kind])}
    if kind == "oracle":
        prices = {name: _price(message, name) for name in ("price", "external") if name in message}
        return {"kind": kind, "coin": _coin(message), "price": _price(message, "price"), **prices}
    if kind == "limits":
        band, step = _count(message, "band", 1, 1000), _count(message, "step", 0, 1000)
        cap, impact = _micros(message, "cap", 0, VALUE_MAX), _count(message, "impact", 1, 10**6)
        fields = {"amount": cap, "quantity": band, "price": step, "order": impact}
        return {"kind": kind, "coin": _coin(message), **fields}
    if kind == "tier":
        notional, leverage = _micros(message, "notional", 1, VALUE_MAX), _count(message, "leverage", 1, 50)
        return {"kind": kind, "coin": _coin(message), "quantity": notional, "amount": leverage}
    raise Wrong(f"{kind!r}: expected one of {', '.join(KINDS)}")


def _address(message: Mapping[str, Any]) -> str:
    address = message.get("address")
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
        raise Wrong(f"{address!r} is no address: expected 0x and 40 hex digits")
    return address.lower()


def _coin(message: Mapping[str, Any]) -> str:
    coin = message.get("coin")
    if not isinstance(coin, str) or not _COIN.fullmatch(coin):
        raise Wrong(f"{coin!r} is no market: expected a name, as BTC")
    return coin


def _micros(message: Mapping[str, Any], name: str, least: int, most: int) -> int:
    """An amount of money, in 10**-USD_PLACES USDC."""
    amount = message.get(name)
    try:
        micros = units.parse_decimal(str(amount).encode(), USD_PLACES)
    except units.NotADecimal:
        raise Wrong(f"{amount!r} is no amount: expected USDC with at most {USD_PLACES} decimals") from None
    if not least <= micros <= most:
        few = "more than nothing" if least else "nothing or more"
        raise Wrong(f"{amount} USDC: expected {few}, at most {most // 10**USD_PLACES:,}")
    return micros


def _price(message: Mapping[str, Any], name: str) -> str:
    """A price as it was written: how many decimals it may have depends on its market."""
    price = str(message.get(name))
    if not _PRICE.fullmatch(price):
        raise Wrong(f"{price!r} is no price: expected USD, as 60000.5")
    return price


def _count(message: Mapping[str, Any], name: str, least: int, most: int) -> int:
    count = message.get(name)
    if type(count) is not int or not least <= count <= most:
        raise Wrong(f"{name} {count!r}: expected a whole number, {least} to {most}")
    return count


# --- who asks -----------------------------------------------------------------------------------------------


def ask(path: Path, message: Message, seconds: float = ANSWER_SECONDS) -> Message:
    """Say one message at the socket `path` and wait for the answer. Raises Unheard."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.settimeout(seconds)
        try:
            with short(path) as name:
                asking.connect(name)
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
            with short(path) as name:
                self._listener.bind(name)
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
