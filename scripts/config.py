"""One TOML file and the command line become frozen settings, checked once; the command line wins.

Every knob stands here with its default, its unit and its bounds, and a key that is not here is an error.
The engine and the gateways get the part that concerns them as JSON on their command line
(`engine_settings`, `gateway_settings`), and read it with definitions of their own: they do not import
scripts.
"""

import os
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from shm import constants

DEFAULT_DATA = "~/.local/state/ringside"
SPEEDS = "real, max, or how many times as fast as it was recorded"

Port = Annotated[int, Meta(ge=0, le=65_535)]
Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1, le=1 << 40)]
Core = Annotated[int, Meta(ge=0)]


class Invalid(ValueError):
    """The file or the command line cannot be used. The text says where and why, for the user."""


class Follow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[follow]: where the state comes from. Exactly one of node_data and simulated must be given."""

    node_data: str | None = None  # the directory that holds node_order_statuses_by_block and its like
    simulated: bool = False
    snapshot: str | None = None  # file; or ask the node itself:
    node_info: str | None = None  # URL of the node's info server
    replay_speed: str | int | float | None = None  # of a recorded directory; none: it is live
    check_seconds: Seconds = 60.0  # between two comparisons with a new snapshot
    checkpoint_seconds: Seconds = 5.0
    silent_ms: Annotated[int, Meta(ge=1)] = 2_000  # without a block, before the source is called silent


Bps = Annotated[str, Meta(pattern=r"^-?[0-9]{1,3}(\.[0-9]{1,2})?$")]


class Tier(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[exchange.markets.tiers]]: larger positions are allowed less leverage."""

    notional: Annotated[int, Meta(ge=1, le=10**10)]  # USD, from which on
    max_leverage: Annotated[int, Meta(ge=1, le=49)]


class Market(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[exchange.markets]]: a perp that trading begins with."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9]{1,16}$")]
    price: Annotated[str, Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$")]  # in USD, until something is traded
    size_decimals: Annotated[int, Meta(ge=0, le=constants.PERP_DECIMALS)]
    max_leverage: Annotated[int, Meta(ge=1, le=50)] = 10
    tiers: Annotated[tuple[Tier, ...], Meta(max_length=constants.TIERS_MAX - 1)] = ()
    impact_notional: Annotated[int, Meta(ge=1, le=10**6)] = (
        constants.IMPACT_USD
    )  # by which premiums are sampled
    maker_rate: Bps = "1.5"  # of a notional, in 10**-4; negative: a rebate
    taker_rate: Bps = "4.5"


class ExchangeCapacity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[exchange.capacity]: rows of each table. Who would need one more is refused; memory is taken as it is
    used. The rings of what has happened have the sizes of [capacity]."""

    markets: Count = constants.EXCHANGE_MARKETS_MAX
    accounts: Count = constants.EXCHANGE_ACCOUNTS_MAX
    orders: Count = constants.EXCHANGE_ORDERS_MAX
    levels: Count = constants.LEVELS_MAX
    agents: Count = constants.AGENTS_MAX


def _perp(name: str, price: str, size_decimals: int, max_leverage: int, millions: int, then: int) -> Market:
    """millions: of USD, from which on there is no more leverage than `then`; 0: there is one tier."""
    return Market(
        name=name,
        price=price,
        size_decimals=size_decimals,
        max_leverage=max_leverage,
        tiers=(Tier(notional=millions * 10**6, max_leverage=then),) if millions else (),
        impact_notional=20_000 if name in ("BTC", "ETH") else 6_000,
    )


PERPS = (
    _perp("BTC", "100000", 5, 40, 150, 20),
    _perp("ETH", "3500", 4, 25, 100, 15),
    _perp("SOL", "180", 2, 20, 70, 10),
    _perp("HYPE", "40", 2, 10, 20, 5),
    _perp("XRP", "2.4", 0, 20, 40, 10),
    _perp("DOGE", "0.2", 0, 10, 20, 5),
    _perp("BNB", "900", 3, 10, 3, 5),
    _perp("AVAX", "25", 2, 10, 3, 5),
    _perp("LINK", "18", 1, 10, 3, 5),
    _perp("SUI", "3", 1, 10, 20, 5),
    _perp("LTC", "100", 2, 10, 3, 5),
    _perp("PURR", "0.15", 0, 3, 0, 0),
)


class Exchange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[exchange]: what `ringside up` begins with."""

    block_ms: Annotated[int, Meta(ge=1, le=1_000)] = 1  # the longest that a block may take to fill
    # journaled: nothing is seen or answered before its commands are on the disk. memory: lost with the engine
    durability: Literal["journaled", "memory"] = "journaled"
    snapshot_seconds: Annotated[float, Meta(gt=0)] = 30.0  # between two, if anything has happened
    simulation: bool = True  # invented traders
    # The networks whose signatures are taken: b is the test network, a the public one. What is signed for a
    # network is good on every exchange that takes it.
    sources: Literal["a", "b", "ab"] = "b"
    markets: Annotated[tuple[Market, ...], Meta(min_length=1)] = PERPS
    capacity: ExchangeCapacity = ExchangeCapacity()


class Gateway(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[gateway]: the processes that clients talk to. [gateway.limits] goes to them as it is."""

    host: str = "127.0.0.1"
    port: Port = 3001  # 0: a free one
    count: Annotated[int, Meta(ge=1, le=constants.GATEWAYS_MAX)] = 1
    limits: dict[str, int | float] = {}


class Capacity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[capacity]: rows of each table of the world. Rings and
    indexes are rounded up to powers of two; memory is taken as it is used."""

    markets: Count = constants.MARKETS_MAX
    accounts: Count = constants.ACCOUNTS_MAX
    orders: Count = constants.ORDERS_MAX
    levels: Count = constants.LEVELS_MAX
    names: Count = constants.NAMES_MAX
    events: Count = constants.EVENTS_MAX
    trades: Count = constants.TRADES_MAX
    fills: Count = constants.FILLS_MAX
    closed: Count = constants.CLOSED_MAX
    rejected: Count = constants.REJECTED_MAX
    buckets: Count = constants.BUCKETS_MAX


class Cores(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[cores]: who runs where, and how it waits.

    Named cores are used as given. Without any, each process gets one of its own if `auto` and if there are
    two more cores than gateways; else none is pinned.
    """

    auto: bool = True
    engine: Core | None = None
    gateways: list[Core] = []  # one for each gateway, or none
    wait: Literal["park", "spin"] = "park"  # spin: never sleep, on a whole core each


class Supervision(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[supervision]: what becomes of the processes when something dies."""

    orphan_seconds: Seconds = 60.0  # how long they serve on without a supervisor; then they end in order
    spare_engine: bool = True  # of an exchange: one more process, which is the engine at once when that dies


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    data: str = DEFAULT_DATA
    follow: Follow = Follow()
    exchange: Exchange = Exchange()
    gateway: Gateway = Gateway()
    capacity: Capacity = Capacity()
    cores: Cores = Cores()
    supervision: Supervision = Supervision()


class EngineSettings(Struct, frozen=True, kw_only=True):
    node_data: str
    snapshot: str | None
    node_info: str | None
    data: str  # a directory of the engine's own
    replay_speed: str | float  # "live", "max", or how many times as fast as it was recorded
    epoch: int  # higher than that of any engine before it
    capacity: Capacity
    wait: str
    cpu: int | None
    check_seconds: float
    checkpoint_seconds: float
    silent_ms: int

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()


class ExchangeSettings(Struct, frozen=True, kw_only=True):
    """For engine.exchange; its markets as in engine.exchange.runner."""

    epoch: int
    journal: str  # directories; empty: nothing is kept
    snapshots: str
    suspect: int  # a command that may have ended an engine; 0: none has
    markets: list[dict[str, str | int]]
    deposits: dict[str, int]  # address -> 10**-USD_PLACES USD
    block_ms: int
    capacity: ExchangeCapacity
    rings: dict[str, int]
    wait: str
    cpu: int | None

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()


class JournalSettings(Struct, frozen=True, kw_only=True):
    """For engine.journal."""

    epoch: int
    data: str

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()


class ReplicaSettings(Struct, frozen=True, kw_only=True):
    """For engine.replica."""

    journal: str
    snapshots: str
    archive: str
    capacity: ExchangeCapacity
    rings: dict[str, int]
    snapshot_seconds: float

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()


class GatewaySettings(Struct, frozen=True, kw_only=True):
    host: str
    port: int
    index: int  # 0..count-1
    count: int
    wait: str
    cpu: int | None
    limits: dict[str, int | float]
    mode: str  # "follow" or "exchange"
    sources: str
    durability: str
    archive: str | None
    data: str

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()


_SECTIONS = {"follow", "exchange", "gateway", "capacity", "cores", "supervision"}


def load(file: str | None, given: dict[str, Any]) -> Config:
    """Merge defaults, the TOML file and `given`, in rising order of strength. Raises Invalid.

    given: the same sections as the file, without what the command line did not say. A source given on the
    command line (node_data or simulated; snapshot or node_info) replaces the file's other one.
    """
    tree = read_toml(file) if file is not None else {}
    for name, section in given.items():
        if isinstance(section, dict):
            old = tree.get(name, {})
            if not isinstance(old, dict):
                raise Invalid(f"{file}: [{name}] must be a section")
            tree[name] = {key: old[key] for key in old if key not in _replaced_by(section)} | section
        else:
            tree[name] = section
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise Invalid(f"{file or 'command line'}: {_in_toml_words(str(error))}") from None
    _check(config)
    return msgspec.structs.replace(
        config, data=_absolute(config.data), follow=_with_absolute_paths(config.follow)
    )


def read_toml(file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{file}: {error}") from None


def _replaced_by(section: dict[str, Any]) -> set[str]:
    pairs = [("node_data", "simulated"), ("snapshot", "node_info")]
    return {ours for pair in pairs for ours in pair if set(pair) & set(section)}


def _in_toml_words(text: str) -> str:
    """`Expected int, got str - at $.gateway.port` becomes `[gateway] port: Expected int, got str`."""
    found = re.fullmatch(r"(.*) - at `\$(?:\.(\w+))?(?:\.(.+?))?`", text, re.DOTALL)
    if found is None:
        return text
    what, section, key = found.groups()
    names = [f"[{section}]" if section in _SECTIONS else section, key]
    where = " ".join(name for name in names if name)
    return f"{where}: {what}" if where else what


def _check(config: Config) -> None:
    """Refuse what the types allow and the programs cannot use. Raises Invalid."""
    follow, cores = config.follow, config.cores
    if follow.snapshot is not None and follow.node_info is not None:
        raise Invalid("give one of --snapshot and --node-info: the first state comes from one place")
    if follow.simulated and follow.node_data is not None:
        raise Invalid("give one of --node-data and --simulated")
    if follow.simulated and (follow.snapshot or follow.node_info or follow.replay_speed is not None):
        raise Invalid("--simulated brings its own node: leave out --snapshot, --node-info and --replay-speed")
    if follow.node_info is not None and not follow.node_info.startswith(("http://", "https://")):
        raise Invalid(f"--node-info {follow.node_info!r}: expected a URL, as http://127.0.0.1:3001")
    replay_speed(follow.replay_speed)
    names = [market.name for market in config.exchange.markets]
    if len({*names}) != len(names) or len(names) > config.exchange.capacity.markets:
        raise Invalid(f"[exchange] markets: each name once, and at most {config.exchange.capacity.markets}")
    if cores.gateways and len(cores.gateways) != config.gateway.count:
        raise Invalid(f"[cores] gateways: {len(cores.gateways)} cores for {config.gateway.count} gateways")
    named = [core for core in (cores.engine, *cores.gateways) if core is not None]
    if missing := set(named) - os.sched_getaffinity(0):
        raise Invalid(f"[cores]: this process may not use core {min(missing)}")


def replay_speed(given: str | float | None) -> str | float:
    """What the engine calls it: "live", "max", or a factor above 0. Raises Invalid."""
    if given is None or given in ("live", "max"):
        return "live" if given is None else str(given)
    if given == "real":
        return 1.0
    try:
        factor = float(given)
    except ValueError:
        factor = 0.0
    if not 0 < factor < 1e6:
        raise Invalid(f"--replay-speed {given}: expected {SPEEDS}")
    return factor


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _with_absolute_paths(follow: Follow) -> Follow:
    """Children keep working when the user's directory is another one; a URL is no path."""
    paths = {name: path for name in ("node_data", "snapshot") if (path := getattr(follow, name)) is not None}
    return msgspec.structs.replace(follow, **{name: _absolute(path) for name, path in paths.items()})


def placed(cores: Cores, gateway_count: int, usable: set[int]) -> tuple[int | None, list[int | None]]:
    """Give the core of the engine and those of the gateways; None: wherever the kernel puts it.

    The highest cores are taken: low ones serve most interrupts.
    """
    named: list[int | None] = [*cores.gateways] or [None] * gateway_count
    if cores.engine is not None or cores.gateways:
        return cores.engine, named
    if not cores.auto or len(usable) < gateway_count + 2:
        return None, named
    engine, *others = sorted(usable, reverse=True)
    return engine, [*others[:gateway_count]]


def engine_settings(config: Config, *, node_data: str, node_info: str | None, epoch: int) -> EngineSettings:
    """node_data and node_info: of the node that is followed, which may be a simulated one."""
    follow = config.follow
    engine, _ = placed(config.cores, config.gateway.count, os.sched_getaffinity(0))
    return EngineSettings(
        node_data=node_data,
        snapshot=follow.snapshot,
        node_info=node_info,
        data=str(Path(config.data) / "follow"),
        replay_speed=replay_speed(follow.replay_speed),
        epoch=epoch,
        capacity=config.capacity,
        wait=config.cores.wait,
        cpu=engine,
        check_seconds=follow.check_seconds,
        checkpoint_seconds=follow.checkpoint_seconds,
        silent_ms=follow.silent_ms,
    )


def exchange_settings(
    config: Config, *, deposits: dict[str, int], epoch: int, suspect: int = 0
) -> ExchangeSettings:
    """deposits: address -> 10**-USD_PLACES USD, of the first block. Raises Invalid."""
    is_kept = config.exchange.durability == "journaled"
    engine, _ = placed(config.cores, config.gateway.count, os.sched_getaffinity(0))
    return ExchangeSettings(
        epoch=epoch,
        journal=str(journal_directory(config)) if is_kept else "",
        snapshots=str(snapshot_directory(config)) if is_kept else "",
        suspect=suspect,
        markets=[_engine_market(market) for market in config.exchange.markets],
        deposits=deposits,
        block_ms=config.exchange.block_ms,
        capacity=config.exchange.capacity,
        rings=_rings(config),
        wait=config.cores.wait,
        cpu=engine,
    )


def _rings(config: Config) -> dict[str, int]:
    """How much an exchange's world remembers of what has happened."""
    names = ("names", "events", "trades", "fills", "closed", "rejected", "buckets")
    return {name: getattr(config.capacity, name) for name in names}


def journal_directory(config: Config) -> Path:
    return Path(config.data) / "journal"


def snapshot_directory(config: Config) -> Path:
    return Path(config.data) / "snapshots"


def archive_file(config: Config) -> Path:
    from shm import archived  # numpy comes with it, which --help need not wait for

    return Path(config.data) / archived.FILE


def journal_settings(config: Config, *, epoch: int) -> JournalSettings:
    return JournalSettings(epoch=epoch, data=str(journal_directory(config)))


def replica_settings(config: Config) -> ReplicaSettings:
    return ReplicaSettings(
        journal=str(journal_directory(config)),
        snapshots=str(snapshot_directory(config)),
        archive=str(archive_file(config)),
        capacity=config.exchange.capacity,
        rings=_rings(config),
        snapshot_seconds=config.exchange.snapshot_seconds,
    )


def _engine_market(market: Market) -> dict[str, Any]:
    """In whole numbers: the price in the market's own places, rates in 10**-6. Raises Invalid."""
    from shm import units  # numba comes with it, which --help need not wait for

    def whole(name: str, text: str, places: int) -> int:
        try:
            return units.parse_decimal(text.encode(), places)
        except units.NotADecimal:
            raise Invalid(
                f"[exchange] market {market.name}, {name} {text}: {places} decimals at most"
            ) from None

    steps = [(0, market.max_leverage), *((tier.notional, tier.max_leverage) for tier in market.tiers)]
    if any(a[0] >= b[0] or a[1] <= b[1] for a, b in pairwise(steps)):
        raise Invalid(f"[exchange] market {market.name}, tiers: each starts later and allows less leverage")
    return {
        "name": market.name,
        "tiers": [(notional * 10**constants.USD_PLACES, leverage) for notional, leverage in steps[1:]],
        "impact_notional": market.impact_notional,
        "size_decimals": market.size_decimals,
        "price": whole("price", market.price, constants.PERP_DECIMALS - market.size_decimals),
        "max_leverage": market.max_leverage,
        "maker_rate": whole("maker_rate", market.maker_rate, 2),
        "taker_rate": whole("taker_rate", market.taker_rate, 2),
    }


def gateway_settings(config: Config, *, index: int, port: int, mode: str) -> GatewaySettings:
    """port: the one that was reserved, which is never 0."""
    has_archive = mode == "exchange" and config.exchange.durability == "journaled"
    _, gateways = placed(config.cores, config.gateway.count, os.sched_getaffinity(0))
    return GatewaySettings(
        host=config.gateway.host,
        port=port,
        index=index,
        count=config.gateway.count,
        wait=config.cores.wait,
        cpu=gateways[index],
        limits=config.gateway.limits,
        mode=mode,
        sources=config.exchange.sources,
        durability=config.exchange.durability,
        archive=str(archive_file(config)) if has_archive else None,
        data=config.data,
    )


def to_toml(config: Config) -> str:
    """Write the settings in effect as the file that would give them. What is not set has no line."""
    tree = msgspec.to_builtins(config)
    lines = [f"data = {_toml_value(tree.pop('data'))}"]
    for name, section in tree.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {_toml_value(value)}" for key, value in section.items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_toml_value(key)} = {_toml_value(item)}" for key, item in value.items()) + "}"
        )
    if isinstance(value, list | tuple):
        between = ",\n    " if value and isinstance(value[0], dict) else ", "
        return "[" + between.join(map(_toml_value, value)) + "]"
    return msgspec.json.encode(value).decode()  # a JSON scalar is a TOML scalar; there is no null here
