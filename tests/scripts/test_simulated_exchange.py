"""Simulated traders at the door of an exchange: they come, they come back, and they leave nothing behind."""

import asyncio
import signal
import sys
from contextlib import asynccontextmanager

import pytest

from scripts import instance, simulated_exchange
from scripts.simulated_exchange import Scene, accounts_of
from scripts.simulated_market import SPECS
from scripts.simulated_quotes import Market
from scripts.trading_client import Refused, connect
from scripts.wallet import Wallet
from tests.e2e.instance import ROOT
from tests.scripts.fake_exchange import FakeExchange, until

RATE = "100"
KINDS = {"order", "modify", "batchModify"}  # that come in quiet times too


@asynccontextmanager
async def traders(exchange, *more):
    """The process of the traders, at an exchange that need not be there yet; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.simulated_exchange", "--url", exchange.url),
        *("--operator", str(exchange.operator), "--rate", RATE, *more),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def end(process):
    """Its exit code, and what it has said."""
    process.send_signal(signal.SIGTERM)
    said, _ = await process.communicate()
    return process.returncode, said.decode()


def test_they_trade_come_back_and_end(tmp_path):
    async def play():
        async with FakeExchange(tmp_path, instance.free_port()) as exchange, traders(exchange) as process:
            await until(lambda: exchange.fills > 20)
            assert set(exchange.oracles) == {"BTC", "ETH"}, "what it trades around is the oracle's price"
            assert set(exchange.deposits.values()) == {1}
            assert exchange.deposits.keys() == exchange.logins.keys()
            exchange.forget_all()
            before = exchange.fills
            await until(lambda: exchange.fills > before + 20)
            assert set(exchange.deposits.values()) == {2}, "an account that is gone is given money again"
            assert exchange.connections == len(exchange.deposits) + 1
            code, said = await end(process)
            await until(lambda: exchange.connections == 0)
            assert code == 0
            assert not any(market.book.orders for market in exchange.markets)
            assert "SIMULATED traders: 5 accounts in BTC, ETH" in said and " fills" in said

    asyncio.run(play())


def test_they_wait_for_an_exchange_and_seldom_do_what_is_refused(tmp_path):
    async def play():
        exchange = FakeExchange(tmp_path, instance.free_port())
        async with traders(exchange, "--seed", "3") as process:
            await asyncio.sleep(0.5)
            async with exchange:
                await until(lambda: exchange.kinds >= KINDS)
                assert (await end(process))[0] == 0
        statuses = [status for market in exchange.markets for status in market.statuses]
        refused = [status for status in statuses if status.endswith("Rejected")]
        assert len(refused) < len(statuses) / 10

    asyncio.run(play())


def test_they_end_although_nobody_is_there(tmp_path):
    async def play():
        async with traders(FakeExchange(tmp_path, instance.free_port())) as process:
            await asyncio.sleep(1)
            return await end(process)

    assert asyncio.run(play())[0] in (0, -signal.SIGTERM)  # the latter: before it could hear


def test_accounts_follow_from_the_seed():
    scene = Scene(1, [Market(SPECS["BTC"], 0)])
    one, again, other = (
        [(account.role, account.wallet.address) for account in accounts_of(scene, seed, 200)]
        for seed in (1, 1, 2)
    )
    assert one == again
    assert not set(one) & set(other)
    assert {role for role, _ in one} == {"maker", "noise", "informed"}
    assert len(set(one)) == len(one) == 200 / simulated_exchange.RATE_OF_ONE_MAX


def test_who_is_not_known_cannot_log_in(tmp_path):
    async def play():
        async with FakeExchange(tmp_path) as exchange, connect(exchange.url) as client:
            with pytest.raises(Refused, match="does not exist"):
                await client.login(Wallet.new(), 1)
            with pytest.raises(Refused, match="No signature"):
                await client.act({"type": "noop"})

    asyncio.run(play())


def test_what_waits_for_an_answer_is_told_that_the_connection_is_lost(tmp_path):
    async def play():
        async with FakeExchange(tmp_path) as exchange, connect(exchange.url) as client:
            exchange._take = lambda connection, message: exchange.forget_all()
            with pytest.raises(ConnectionError):
                await client.info({"type": "metaAndAssetCtxs"})
            with pytest.raises(ConnectionError):
                await client.act({"type": "noop"})

    asyncio.run(play())


def test_quotes_of_the_tape_are_seen_by_all():
    scene = Scene(1, [Market(SPECS["BTC"], 0)])
    level = {"px": "81300.5", "sz": "1.0", "n": 1}
    scene.hear("bbo", {"coin": "BTC", "time": 1, "bbo": [level, None]})
    assert (scene.view("BTC").bid, scene.view("BTC").ask) == (813_005, 0)
    scene.forget_quotes()
    assert scene.view("BTC").bid == 0
