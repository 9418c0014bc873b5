"""How soon are orders accepted again when the engine of a large exchange is killed? In seconds.

Some 100,000 accounts with ten open orders each are written as a journal, with a snapshot of their end, as an
exchange would have left them. `ringside up` goes on from there; its engine is killed again and again, and a
client asks without a pause until an order of its own rests.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import msgspec
import numpy as np

from engine.exchange.state import Capacity
from engine.journal.writer import Writer
from engine.replica.copy import Copy, blocks
from scripts import config as configuration
from scripts.wallet import Wallet
from shm.codes import Ask, Command, Side, Tif
from shm.layout import COMMAND
from tests.e2e.instance import Exchange, until

ACCOUNTS, ORDERS_EACH = 99_000, 10
BLOCK, RECORD = 4096, 512
MIDDLE, WAYS = 100_000, 2_000  # USD; whole dollars on either side that have orders
KILLS = 20
SETTLED_SECONDS = 11  # of life, after which a restart does not wait
CONFIG = """
[exchange]
[[exchange.markets]]
name = "BTC"
price = "100000"
size_decimals = 5
max_leverage = 40

[gateway.limits]
actions_per_minute_max = 100_000_000
"""


def commands() -> np.ndarray:
    """A market, the accounts with their money, and their orders, which do not meet; in blocks."""
    market = np.zeros(1, COMMAND)
    market["kind"], market["side"], market["amount"], market["price"] = Command.ADD_MARKET, 5, 40, MIDDLE * 10
    market["quantity"], market["order"] = 150, 450
    market["text"][0, :3] = np.frombuffer(b"BTC", np.uint8)
    deposits = np.zeros(ACCOUNTS, COMMAND)
    deposits["kind"], deposits["amount"] = Command.DEPOSIT, 10**12
    addresses = np.random.default_rng(1).integers(1, 255, (ACCOUNTS, 20), np.uint8)
    deposits["other"] = addresses
    orders = np.zeros(ACCOUNTS * ORDERS_EACH, COMMAND)
    at = np.arange(len(orders))
    orders["kind"], orders["tif"], orders["flags"] = Command.ORDER, Tif.ALO, Ask.SESSION
    orders["count"], orders["quantity"] = 1, 100
    orders["signer"] = addresses[at % ACCOUNTS]
    orders["side"] = np.where(at // ACCOUNTS % 2 == 0, Side.BUY, Side.SELL)
    away = (1 + at % WAYS) * np.where(orders["side"] == Side.BUY, -1, 1)
    orders["price"] = (MIDDLE + away) * 10
    return _in_blocks(np.concatenate([each.view("i8") for each in (market, deposits, orders)]).view(COMMAND))


def _in_blocks(asked: np.ndarray) -> np.ndarray:
    """With an END_BLOCK after every BLOCK commands and at the end, numbered and timed."""
    ends = -(-len(asked) // BLOCK)
    made = np.zeros(len(asked) + ends, COMMAND)
    is_end = np.zeros(len(made), bool)
    is_end[BLOCK :: BLOCK + 1] = is_end[-1] = True
    made["kind"][is_end] = Command.END_BLOCK
    made.view("i8").reshape(len(made), -1)[~is_end] = asked.view("i8").reshape(len(asked), -1)
    made["sequence"] = np.arange(1, len(made) + 1)
    made["time_ns"] = time.time_ns() - 10**12 + made["sequence"]
    return made


def write(data: Path, config: configuration.Config) -> None:
    """The journal, and a snapshot of its end."""
    made = commands()
    writer = Writer(data / "journal", 1)
    for at in range(0, len(made), RECORD):
        writer.write(made[at : at + RECORD])
        writer.sync()
        writer.make_spares()
    writer.close()
    settings = configuration.replica_settings(config)
    copy = Copy(Capacity(**msgspec.to_builtins(settings.capacity)), settings.rings)
    for block in blocks(made)[0]:
        copy.take(block, lambda world, sequence: None)
    status = copy.core.status[0]
    print(f"{status['order_count']:,} open orders of {status['account_count']:,} accounts", flush=True)
    path = copy.save(data / "snapshots")
    (data / "epoch").write_text("1\n")
    print(f"snapshot of {path.stat().st_size / 1e6:.0f} MB", flush=True)


def accepted(exchange: Exchange, wallet: Wallet) -> bool:
    """Whether an order rests."""
    order = {"a": 0, "b": True, "p": "50000", "s": "0.01", "r": False, "t": {"limit": {"tif": "Gtc"}}}
    action, nonce = {"type": "order", "orders": [order], "grouping": "na"}, time.time_ns() // 10**6
    signature = wallet.sign(action, nonce)
    try:
        answer = exchange.post("/exchange", {"action": action, "nonce": nonce, "signature": signature})
    except OSError:
        return False
    return answer["status"] == "ok" and "resting" in answer["response"]["data"]["statuses"][0]


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    with tempfile.TemporaryDirectory() as name:
        folder, spent = Path(name), []
        file = folder / "exchange.toml"
        file.write_text(CONFIG)
        write(folder / "data", configuration.load(str(file), {"data": str(folder / "data")}))
        with Exchange(folder, "--config", str(file)) as exchange:
            wallet = Wallet.new()
            exchange.deposit(wallet.address, "10000000")
            for _ in range(kills):
                until(lambda: accepted(exchange, wallet), "orders that are accepted")
                time.sleep(SETTLED_SECONDS)
                began = time.perf_counter()
                os.kill(exchange.pid("engine"), signal.SIGKILL)
                until(lambda: accepted(exchange, wallet), "orders that are accepted again")
                spent.append(time.perf_counter() - began)
            exchange.end()
        tail = quantiles(spent, n=100)[98] if len(spent) > 1 else spent[0]
        print(
            f"orders accepted again after {median(spent):.2f} s (median), {tail:.2f} s (p99) of {kills} kills"
        )


if __name__ == "__main__":
    main()
