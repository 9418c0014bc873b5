"""An instance that is an exchange: what it runs, who has money at its start, and how one trades on it."""

from decimal import ROUND_UP, Decimal
from pathlib import Path

from scripts import config as configuration
from scripts import operator, serve
from scripts.config import Config, Market
from scripts.instance import Instance
from scripts.supervisor import Plan, Programs
from scripts.wallet import Unusable, Wallet
from shm.constants import PERP_DECIMALS, USD_PLACES

OURS = Programs(
    engine=("-m", "engine.exchange"),
    simulation=("-m", "scripts.simulated_exchange"),
    journaler=("-m", "engine.journal"),
    replica=("-m", "engine.replica"),
)
SOURCES = {
    "memory": "an exchange in memory: an engine that is restarted begins an empty one",
    "journaled": "an exchange, journaled: nothing is seen or answered before it is on the disk",
}
KEY = "account.key"  # below the data directory: of an account to try it out with
FIRST_USD = 100_000  # which that account has when an exchange begins
TRIED_USD = 100  # about what the order is worth that the user is shown


def run(config: Config, version: str, programs: Programs = OURS) -> int:
    """Run until a signal ends it; give the exit code (see cli). Raises config.Invalid, Busy, OSError."""
    return serve.run(config, version, lambda mine, port: plan(config, mine, port, programs))


def plan(config: Config, mine: Instance, port: int, programs: Programs = OURS) -> Plan:
    """What is run for this configuration. Raises config.Invalid."""
    wallet = wallet_of(mine.data / KEY)
    url = f"http://{serve.address_of(config.gateway.host, port)}"
    deposits = {wallet.address: FIRST_USD * 10**USD_PLACES}
    configuration.exchange_settings(config, deposits=deposits, epoch=0)  # say now what cannot be used

    def engine(epoch: int, suspect: int) -> list[str]:
        settings = configuration.exchange_settings(config, deposits=deposits, epoch=epoch, suspect=suspect)
        return [*programs.engine, "--settings", settings.to_json()]

    def journaler(epoch: int) -> list[str]:
        settings = configuration.journal_settings(config, epoch=epoch)
        return [*programs.journaler, "--settings", settings.to_json()]

    def replica() -> list[str]:
        return [*programs.replica, "--settings", configuration.replica_settings(config).to_json()]

    def gateway(index: int) -> list[str]:
        settings = configuration.gateway_settings(config, index=index, port=port, mode="exchange")
        return [*programs.gateway, "--settings", settings.to_json()]

    def simulation() -> list[str]:
        return [*programs.simulation, "--url", url, "--operator", str(mine.data / operator.NAME)]

    is_kept = config.exchange.durability == "journaled"
    return Plan(
        engine=engine,
        gateway=gateway,
        gateways=config.gateway.count,
        orphan_seconds=config.supervision.orphan_seconds,
        spare=[*engine(0, 0), "--spare", "engine"] if config.supervision.spare_engine else None,
        simulation=simulation if config.exchange.simulation else None,
        simulation_name="traders (simulated)",
        simulation_is_client=True,
        has_operator=True,
        journaler=journaler if is_kept else None,
        replica=replica if is_kept else None,
        source=SOURCES[config.exchange.durability],
        hint=first_order(mine.data / KEY, wallet.address, url, config.exchange.markets[0]),
    )


def wallet_of(path: Path) -> Wallet:
    """The key in that file, which is made at the first start. Raises config.Invalid."""
    if not path.exists():
        Wallet.new().save(path)
    try:
        return Wallet.load(path)
    except Unusable as unusable:
        raise configuration.Invalid(str(unusable)) from None


def first_order(key: Path, address: str, url: str, market: Market) -> tuple[str, ...]:
    """Lines that can be pasted into Python, where the official SDK is installed: a buy below the market."""
    price = Decimal(market.price) * Decimal("0.95")
    digits = max(price.adjusted() - 4, market.size_decimals - PERP_DECIMALS)
    price = price.quantize(Decimal(1).scaleb(digits))
    size = (TRIED_USD / price).quantize(Decimal(1).scaleb(-market.size_decimals), ROUND_UP)
    return (
        f"account {address} has {FIRST_USD:,} USDC. To trade with it, in Python:",
        "",
        "from eth_account import Account",
        "from hyperliquid.exchange import Exchange",
        f'key = open("{key}").read().strip()',
        f'exchange = Exchange(Account.from_key(key), "{url}")',
        f'print(exchange.order("{market.name}", True, {size:f}, {price:f}, {{"limit": {{"tif": "Gtc"}}}}))',
    )
