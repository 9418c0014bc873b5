"""An exchange as its user runs it: what it shows can be pasted, its operator gives money, both ways in
lead to one book, and what dies comes back.
"""

import json
import os
import signal
import subprocess
import sys
import time

import eth_account
import pytest
from hyperliquid.exchange import Exchange as Sdk
from hyperliquid.utils.error import ServerError
from hyperliquid.utils.signing import order_request_to_order_wire, order_wires_to_order_action, sign_l1_action

from tests.e2e.client import Client
from tests.e2e.instance import ROOT, Exchange, lives, until

pytestmark = pytest.mark.timeout(280)

GTC, IOC = ({"limit": {"tif": tif}} for tif in ("Gtc", "Ioc"))
BOOK = {"type": "l2Book", "coin": "BTC"}
DONE, REFUSED, NOTHING_THERE = 0, 1, 75


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    with Exchange(tmp_path_factory.mktemp("exchange")) as made:
        yield made


class Trader:
    """Somebody with a key of his own, and money."""

    def __init__(self, exchange, dollars="100000"):
        self.exchange, self.wallet = exchange, eth_account.Account.create()
        self.address = self.wallet.address.lower()
        exchange.deposit(self.address, dollars)
        self.sdk = Sdk(self.wallet, exchange.url)
        self._nonce = 0

    def streams(self):
        return [{"type": kind, "user": self.address} for kind in ("orderUpdates", "userFills", "openOrders")]

    def order(self, is_buy, size, price, kind=GTC):
        """Place an order over HTTP; give its status."""
        answer = self.sdk.order("BTC", is_buy, size, price, kind)
        assert answer["status"] == "ok", answer
        return answer["response"]["data"]["statuses"][0]

    def posted(self, number, is_buy, size, price):
        """An order as a message of the WebSocket, signed."""
        self._nonce = max(self._nonce + 1, time.time_ns() // 10**6)
        asked = {"coin": "BTC", "is_buy": is_buy, "sz": size, "limit_px": price}
        wire = order_request_to_order_wire({**asked, "order_type": GTC, "reduce_only": False}, 0)
        action = order_wires_to_order_action([wire])
        signature = sign_l1_action(self.wallet, action, None, self._nonce, None, False)
        payload = {"action": action, "nonce": self._nonce, "signature": signature}
        return {"method": "post", "id": number, "request": {"type": "action", "payload": payload}}

    def ask(self, kind):
        return self.exchange.info({"type": kind, "user": self.address})

    def open(self):
        return {order["oid"]: (order["limitPx"], order["sz"]) for order in self.ask("openOrders")}

    def value(self):
        return self.ask("clearinghouseState")["marginSummary"]["accountValue"]


def command(exchange, *arguments):
    """Run `ringside`, for the same data directory; give its exit code and what it said."""
    ended = subprocess.run(
        [sys.executable, "-m", "scripts.cli", *arguments, "--data", str(exchange.data)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, (ended.stdout + ended.stderr).strip()


def shown_lines(exchange):
    """The Python that the user is shown."""
    lines = exchange.printed().splitlines()
    first = lines.index("from eth_account import Account")
    return "\n".join(lines[first : first + 5])


def test_the_lines_that_are_shown_place_an_order(exchange):
    ended = subprocess.run(
        [sys.executable, "-c", shown_lines(exchange)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "'resting'" in ended.stdout, ended.stdout + ended.stderr
    account = eth_account.Account.from_key((exchange.data / "account.key").read_text().strip())
    (order,) = exchange.info({"type": "openOrders", "user": account.address.lower()})
    assert (order["coin"], order["side"], order["limitPx"]) == ("BTC", "B", "95000.0")
    assert os.stat(exchange.data / "account.key").st_mode & 0o777 == 0o600


def test_the_operator_gives_and_takes_money(exchange):
    someone = Trader(exchange, "50.5")
    assert someone.value() == "50.5"
    assert command(exchange, "deposit", someone.address, "0.25")[0] == DONE
    assert command(exchange, "withdraw", someone.address, "20.75")[0] == DONE
    code, told = command(exchange, "withdraw", someone.address, "30.01")
    assert code == REFUSED and "less than that" in told
    assert someone.value() == "30.0"
    kinds = [entry["delta"]["type"] for entry in someone.ask("userNonFundingLedgerUpdates")]
    assert sorted(kinds) == ["deposit", "deposit", "withdraw"]


def test_both_ways_in_lead_to_one_book(exchange):
    maker, taker = Trader(exchange), Trader(exchange)
    with Client(exchange.port, *maker.streams()) as ear, Client(exchange.port, BOOK) as mouth:
        until(lambda: len(ear.of("subscriptionResponse")) == 3 and mouth.of("l2Book"), "subscriptions")
        mouth.send(maker.posted(7, False, 0.02, 101_000))
        (answer,) = until(lambda: mouth.of("post"), "the answer")
        assert (answer["id"], answer["response"]["type"]) == (7, "action")
        status = answer["response"]["payload"]["response"]["data"]["statuses"][0]
        sold = status["resting"]["oid"]
        assert maker.open() == {sold: ("101000.0", "0.02")}, "an answer is never ahead of the book"
        assert maker.sdk.modify_order(sold, "BTC", False, 0.02, 101_100, GTC)["status"] == "ok"
        ((moved, kept),) = maker.open().items()
        assert moved > sold and kept == ("101100.0", "0.02")

        filled = taker.order(True, 0.005, 102_000, IOC)["filled"]
        assert (filled["totalSz"], filled["avgPx"]) == ("0.005", "101100.0")
        assert maker.open() == {moved: ("101100.0", "0.015")}
        assert maker.sdk.cancel("BTC", moved)["response"]["data"]["statuses"] == ["success"]

        def told():
            updates = [update for batch in ear.of("orderUpdates") for update in batch]
            return [(update["order"]["oid"], update["status"]) for update in updates]

        ends = [(sold, "open"), (sold, "canceled"), (moved, "open"), (moved, "canceled")]
        until(lambda: [pair for pair in told() if pair[1] != "filled"] == ends, "the story of both orders")
        fills = [fill for data in ear.of("userFills") for fill in data["fills"]]
        assert [(fill["oid"], fill["px"], fill["sz"]) for fill in fills] == [(moved, "101100.0", "0.005")]
        until(lambda: any(book["levels"][1] for book in mouth.of("l2Book")), "the book with an offer")
    (position,) = maker.ask("clearinghouseState")["assetPositions"]
    assert position["position"]["szi"] == "-0.005"
    assert [fill["crossed"] for fill in taker.ask("userFills")] == [True]


def test_two_gateways_are_one_exchange(tmp_path):
    with Exchange(tmp_path, "--gateways", "2") as exchange:
        exchange.wait(lambda: {"gateway 0", "gateway 1"} <= {*exchange.pids()}, "two gateways")
        until(lambda: len(exchange.logged("gateway")) >= 4, "two gateways that are ready")
        served = set()
        traders = [Trader(exchange) for _ in range(12)]  # each with a connection of its own
        for number, trader in enumerate(traders):
            served |= serving(exchange, trader)
            trader.order(True, 0.001, 90_000 - number)
        assert served == {"gateway 0", "gateway 1"}, "the kernel deals the connections out"
        levels = exchange.info(BOOK)["levels"][0]
        assert [level["px"] for level in levels] == [f"{90_000 - number}.0" for number in range(12)]
        for trader in traders:
            (oid,) = trader.open()
            assert Sdk(trader.wallet, exchange.url).cancel("BTC", oid)["status"] == "ok"
        assert exchange.info(BOOK)["levels"][0] == []


def serving(exchange, trader):
    """Which gateway has the trader's connection: a gateway that answers him has it open."""
    import psutil

    trader.sdk.info.meta()
    adapter = trader.sdk.info.session.get_adapter(exchange.url)
    (pool,) = [adapter.poolmanager.pools[key] for key in adapter.poolmanager.pools.keys()]
    port = pool.pool.queue[-1].sock.getsockname()[1]
    return {
        role
        for role, pid in exchange.pids().items()
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.raddr and connection.raddr.port == port
    }


def test_a_killed_gateway_takes_no_order_with_it(tmp_path):
    with Exchange(tmp_path) as exchange:
        trader = Trader(exchange)
        oid = trader.order(True, 0.001, 90_000)["resting"]["oid"]
        for _ in range(2):
            pid = exchange.kill("gateway 0")
            until(lambda pid=pid: exchange.pid("gateway 0") != pid, "its successor")
            exchange.wait_until_serving()
            assert trader.open() == {oid: ("90000.0", "0.001")}
        assert Sdk(trader.wallet, exchange.url).cancel("BTC", oid)["status"] == "ok"
        assert trader.open() == {}


def test_in_memory_a_killed_engine_begins_an_empty_exchange_and_clients_are_told(tmp_path):
    config = tmp_path / "exchange.toml"
    config.write_text('[exchange]\ndurability = "memory"\n')
    with Exchange(tmp_path, "--config", str(config)) as exchange:
        assert exchange.health()["durability"] == "memory"
        trader = Trader(exchange)
        trader.order(True, 0.001, 90_000)
        with Client(exchange.port, BOOK) as client:
            until(lambda: client.of("l2Book"), "a book")
            exchange.kill("engine")
            until(lambda: "stale" in client.statuses(), "the bad news")
            until(lambda: client.statuses()[-1] == "live", "the good news")
            until(lambda: client.of("l2Book")[-1]["levels"] == [[], []], "an empty book")
            assert client.connections == 1
        assert trader.open() == {} and trader.value() == "0.0"
        key = eth_account.Account.from_key((exchange.data / "account.key").read_text().strip())
        funded = exchange.info({"type": "clearinghouseState", "user": key.address.lower()})
        assert funded["marginSummary"]["accountValue"] == "100000.0"
        assert len(exchange.logged("empty_exchange")) == 2
        exchange.deposit(trader.address)
        with Client(exchange.port, {"type": "orderUpdates", "user": trader.address}) as client:
            until(lambda: client.of("subscriptionResponse"), "a subscription")
            assert "resting" in trader.order(True, 0.001, 90_000)
            until(lambda: client.of("orderUpdates"), "heights of a new exchange are not old news")


def test_an_order_that_the_engine_is_silent_about_is_called_unknown_and_can_be_looked_up(exchange):
    trader = Trader(exchange)
    pid = exchange.pid("engine")
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(ServerError, match="outcome unknown"):
            trader.order(True, 0.001, 90_000)
    finally:
        os.kill(pid, signal.SIGCONT)
    ((oid, _),) = until(lambda: [*trader.open().items()], "the order, that was executed late")
    assert exchange.pid("engine") == pid
    assert trader.sdk.cancel("BTC", oid)["response"]["data"]["statuses"] == ["success"]


def test_simulated_traders_make_a_market_and_all_end_in_order(tmp_path):
    with Exchange(tmp_path, simulation=True) as exchange:
        trades = {"type": "trades", "coin": "BTC"}
        with Client(exchange.port, BOOK, trades) as client:
            exchange.wait(lambda: all(exchange.info(BOOK)["levels"]), "a book with two sides")
            exchange.wait(lambda: client.of("trades"), "trades", seconds=120)
        trader = Trader(exchange)
        bought = trader.order(True, 0.001, 110_000, IOC)
        assert "filled" in bought, bought
        pids = [*exchange.pids().values()]
        assert len(pids) == 5, "engine, journaler, replica, gateway, traders"
        assert "SIMULATION" in exchange.printed()
        assert exchange.end(signal.SIGINT) == 0
        assert not any(map(lives, pids))
        told = [
            json.loads(line) for line in (exchange.data / "log" / "ringside.log").read_text().splitlines()
        ]
        assert [line["text"] for line in told if line["level"] != "info"] == []
    assert command(exchange, "deposit", trader.address, "1")[0] == NOTHING_THERE
