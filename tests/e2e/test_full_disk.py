"""A disk without room, really: orders are refused, cancels are taken, reads are served; and it goes on when
there is room again.

The data directory is a small tmpfs, which root may mount; who may not has the same at a journaler's own disk
(tests/engine/journal/test_runner.py).
"""

import os
import subprocess
import time

import pytest

from engine.journal.writer import SEGMENT_BYTES
from gateway.errors import JOURNAL_FULL
from scripts import verify
from scripts.wallet import Wallet
from tests.e2e.instance import Exchange
from tests.e2e.load import MARKET, MIDDLE, order

ROOM = 6 * SEGMENT_BYTES
TOO_LITTLE = 2 * SEGMENT_BYTES + SEGMENT_BYTES // 2  # for the segment in use and its two spares


@pytest.fixture
def disk(tmp_path):
    """A directory that is a disk of its own."""
    data = tmp_path / "data"
    data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=0700", "ringside-test", str(data)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield data
    subprocess.run(["umount", "--lazy", str(data)], check=True)


def fill(data):
    """Leave too little room; the file that takes the rest."""
    ballast, stat = data / "ballast", os.statvfs(data)
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, stat.f_bavail * stat.f_frsize - TOO_LITTLE)
    return ballast


def act(exchange, wallet, action):
    nonce = time.time_ns() // 1_000_000
    return exchange.post(
        "/exchange", {"action": action, "nonce": nonce, "signature": wallet.sign(action, nonce)}
    )


def place(exchange, wallet):
    """An order that rests; the answer."""
    orders = [order(True, MIDDLE // 2, "0.01", "Gtc")]
    return act(exchange, wallet, {"type": "order", "orders": orders, "grouping": "na"})


def rests(answer):
    return answer["status"] == "ok" and "resting" in answer["response"]["data"]["statuses"][0]


def test_a_full_disk_refuses_orders_takes_cancels_serves_reads_and_resumes(disk, tmp_path):
    wallet = Wallet.new()
    asked = {"type": "openOrders", "user": wallet.address}
    with Exchange(tmp_path) as exchange:
        exchange.deposit(wallet.address)
        assert rests(place(exchange, wallet)) and rests(place(exchange, wallet))
        assert exchange.end() == 0
        ballast = fill(disk)
        exchange.start()
        exchange.wait_until_serving()
        refusal = {"status": "err", "response": JOURNAL_FULL}
        exchange.wait(lambda: place(exchange, wallet) == refusal, "orders that are refused")
        assert exchange.logged("full") and exchange.health()["state"] == "full"
        first, *others = exchange.info(asked)
        cancel = {"type": "cancel", "cancels": [{"a": MARKET, "o": first["oid"]}]}
        assert act(exchange, wallet, cancel)["response"]["data"]["statuses"] == ["success"]
        assert exchange.info(asked) == others != []
        assert place(exchange, wallet) == refusal
        ballast.unlink()
        exchange.wait(lambda: rests(place(exchange, wallet)), "orders that are accepted again")
        assert exchange.logged("room_again") and len(exchange.logged("engine ended")) == 1, (
            "when it was told to"
        )
        assert len(exchange.info(asked)) == len(others) + 1
        assert exchange.end() == 0
    assert verify.verify(disk / "journal", disk / "snapshots", lambda done, total: None).is_good
