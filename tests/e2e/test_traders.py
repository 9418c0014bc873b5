"""Simulated traders on a real exchange: what must be true of it after thousands of their actions.

Money and positions are only passed on, to the last 10^-6 USD; who leaves takes all orders along; a gateway
that is killed is not the end of anything.
"""

import signal
import subprocess
import sys
from collections import Counter
from decimal import Decimal

import pytest

from scripts import operator
from scripts.simulated_exchange import GIFT_USD, Scene, accounts_of
from tests.e2e.instance import ROOT, Exchange, until

pytestmark = pytest.mark.timeout(280)

SEED, RATE = 5, 300
VOLUME_USD = 500_000
FEES = "0x" + "fe" * 20  # the account that fees go to


@pytest.fixture
def exchange(tmp_path):
    with Exchange(tmp_path) as exchange:
        yield exchange


@pytest.fixture
def traders(exchange):
    line = [sys.executable, "-m", "scripts.simulated_exchange", "--url", exchange.url]
    line += ["--operator", str(exchange.data / operator.NAME), "--seed", str(SEED), "--rate", str(RATE)]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def volume(exchange):
    """What was traded in all markets, in USD."""
    _, contexts = exchange.info({"type": "metaAndAssetCtxs"})
    return sum(Decimal(context["dayNtlVlm"]) for context in contexts)


def books(exchange):
    meta, _ = exchange.info({"type": "metaAndAssetCtxs"})
    return [
        exchange.info({"type": "l2Book", "coin": market["name"]})["levels"] for market in meta["universe"]
    ]


def test_they_pass_on_money_and_positions_and_leave_no_order_behind(exchange, traders):
    exchange.wait(lambda: volume(exchange) > VOLUME_USD, "trades")
    assert all(bids or asks for bids, asks in books(exchange)), "they quote every market"
    exchange.kill("gateway 0")
    exchange.wait_until_serving()
    before = volume(exchange)
    assert before > VOLUME_USD
    exchange.wait(lambda: volume(exchange) > before + VOLUME_USD, "more trades")

    traders.send_signal(signal.SIGTERM)
    said, _ = traders.communicate(timeout=60)
    assert traders.returncode == 0, said
    until(lambda: not any(bids or asks for bids, asks in books(exchange)), "empty books")

    accounts = accounts_of(Scene(SEED, []), SEED, RATE)
    users = [account.wallet.address for account in accounts]
    states = [exchange.info({"type": "clearinghouseState", "user": user}) for user in [*users, FEES]]
    assert sum(Decimal(state["marginSummary"]["accountValue"]) for state in states) == len(users) * GIFT_USD
    assert Decimal(states[-1]["marginSummary"]["accountValue"]) > 0, "fees were paid"
    held = Counter()
    for state in states:
        for entry in state["assetPositions"]:
            held[entry["position"]["coin"]] += Decimal(entry["position"]["szi"])
    assert held and not any(held.values()), "for each long there is a short"
