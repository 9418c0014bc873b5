"""The operator's socket: who may open it, what may be said, and that who asks gets his own answer."""

import asyncio
import os
import socket
import stat

import pytest

from scripts import operator
from scripts.operator import Desk, Unheard, Wrong
from shm import control

ADDRESS = "0x" + "Ab" * 20
DEPOSIT = {"kind": "deposit", "address": ADDRESS, "amount": "100.25"}


@pytest.fixture
def path(tmp_path):
    """Longer than a socket's address may be."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    return folder / operator.NAME


def conversation(path, hear, *messages):
    """Ask each message in a thread of its own, all at once, of a desk whose engine is `hear`."""

    async def scenario():
        desk = Desk(path, hear)
        try:
            asked = (asyncio.to_thread(operator.ask, path, message, 20) for message in messages)
            return await asyncio.gather(*asked)
        finally:
            desk.close()

    return asyncio.run(scenario())


def test_a_command_is_checked_and_said_in_whole_numbers(path):
    heard = []

    def hear(command, answer):
        heard.append(command)
        answer({"ok": True, "sequence": 3})

    assert conversation(path, hear, DEPOSIT) == [{"ok": True, "sequence": 3}]
    assert heard == [{"kind": "deposit", "address": ADDRESS.lower(), "amount": 100_250_000}]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"kind": "oracle", "coin": "BTC", "price": "60000.5"}, {"price": "60000.5"}),
        (
            {"kind": "oracle", "coin": "BTC", "price": "60000", "external": "7"},
            {"price": "60000", "external": "7"},
        ),
        ({"kind": "halt", "coin": "BTC"}, {"kind": "mode", "amount": 2}),
        ({"kind": "cancel-only", "coin": "BTC"}, {"kind": "mode", "amount": 1}),
        ({"kind": "resume", "coin": "BTC"}, {"kind": "mode", "amount": 0}),
        (
            {"kind": "limits", "coin": "BTC", "cap": "5000000000", "band": 500, "step": 10, "impact": 20_000},
            {"amount": 5 * 10**15, "quantity": 500, "price": 10, "order": 20_000},
        ),
        (
            {"kind": "tier", "coin": "BTC", "notional": "150000000", "leverage": 20},
            {"quantity": 150 * 10**12, "amount": 20},
        ),
        ({"kind": "kill", "address": ADDRESS}, {"address": ADDRESS.lower(), "amount": 1}),
        ({"kind": "revive", "address": "all"}, {"kind": "kill", "address": "0x" + "00" * 20, "amount": 0}),
    ],
)
def test_each_word_of_the_operator_is_said_as_the_engine_takes_it(said, meant):
    coin = {name: value for name, value in said.items() if name in ("kind", "coin")}
    assert operator.command(said) == coin | meant


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "oracle", "coin": "BTC"},
        {"kind": "oracle", "coin": "BTC", "price": "-1"},
        {"kind": "oracle", "coin": "BTC", "price": "1e3"},
        {"kind": "oracle", "coin": "B C", "price": "1"},
        {"kind": "halt"},
        {"kind": "limits", "coin": "BTC", "cap": "0", "band": 0, "step": 0, "impact": 1},
        {"kind": "limits", "coin": "BTC", "cap": "0", "band": True, "step": 0, "impact": 1},
        {"kind": "limits", "coin": "BTC", "cap": "10000000001", "band": 1, "step": 0, "impact": 1},
        {"kind": "tier", "coin": "BTC", "notional": "0", "leverage": 5},
        {"kind": "tier", "coin": "BTC", "notional": "1", "leverage": 51},
        {"kind": "kill", "address": "everyone"},
    ],
)
def test_a_word_that_cannot_be_meant_is_wrong(said):
    with pytest.raises(Wrong):
        operator.command(said)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "add_market"},
        {"kind": None},
        {"address": "0x12"},
        {"address": ADDRESS + "00"},
        {"address": 5},
        {"amount": "0"},
        {"amount": "-1"},
        {"amount": "1e3"},
        {"amount": "0.0000001"},
        {"amount": "1000000000.1"},
        {"amount": None},
    ],
)
def test_what_cannot_be_meant_does_not_reach_the_engine(path, change):
    with pytest.raises(Wrong):
        operator.command(DEPOSIT | change)
    (answer,) = conversation(path, None, DEPOSIT | change)
    assert not answer["ok"] and answer["error"]


def test_answers_in_any_order_find_who_asked(path):
    waiting = []

    def hear(command, answer):
        waiting.append((command, answer))
        if len(waiting) == 3:
            for asked, to in reversed(waiting):
                to({"ok": True, "sequence": asked["amount"]})

    messages = [DEPOSIT | {"amount": f"{dollars}"} for dollars in (1, 2, 3)]
    answers = conversation(path, hear, *messages)
    assert [answer["sequence"] for answer in answers] == [1_000_000, 2_000_000, 3_000_000]


def test_only_the_owner_may_open_it_and_it_goes_with_the_desk(path):
    async def scenario():
        desk = Desk(path, None)
        mode = os.stat(path).st_mode
        desk.close()
        return mode

    path.touch()  # left behind by one that was killed
    mode = asyncio.run(scenario())
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    assert not path.exists()


def test_nobody_there_is_told_at_once(path):
    with pytest.raises(Unheard, match="no exchange runs"):
        operator.ask(path, DEPOSIT)
    with pytest.raises(Unheard, match="no exchange runs"):
        operator.ask(path.parent / "none" / operator.NAME, DEPOSIT)


def test_who_leaves_or_talks_nonsense_harms_nobody(path):
    async def scenario():
        kept = []
        desk = Desk(path, lambda command, answer: kept.append(answer))
        with control.short(path) as short:
            gone, rude = (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
            for one in (gone, rude):
                one.connect(short)
        gone.send(b'{"kind":"deposit","address":"%s","amount":"1"}' % ADDRESS.encode())
        rude.send(b"{")
        while not kept:
            await asyncio.sleep(0.01)
        gone.close()
        rude.close()
        await asyncio.sleep(0.05)
        kept[0]({"ok": True})
        answer = asyncio.create_task(asyncio.to_thread(operator.ask, path, DEPOSIT, 20))
        while len(kept) < 2:
            await asyncio.sleep(0.01)
        kept[1]({"ok": True, "sequence": 2})
        try:
            return await answer
        finally:
            desk.close()

    assert asyncio.run(scenario()) == {"ok": True, "sequence": 2}
