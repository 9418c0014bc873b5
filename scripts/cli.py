"""The `ringside` command: what it may be told, and what it answers when it cannot be done.

    ringside up [--no-simulation]               an exchange, with simulated traders
    ringside deposit ADDRESS AMOUNT             give an account of a running exchange money
    ringside withdraw ADDRESS AMOUNT            take it away
    ringside oracle COIN PRICE [...]            and what else its operator may say (operator_words.py)
    ringside feed --url URL | --file FILE       tell a running exchange its oracle's prices, from a source
    ringside verify [DIR]                       look whether its journal is whole (journal_words.py)
    ringside replay [DIR] [--account A] [...]   tell what happened
    ringside export [DIR] --csv OUT             its archive as tables
    ringside follow --simulated                 a small simulated node, and ringside following it
    ringside follow --node-data DIR [...]       the logs of a node, live or recorded
    ringside config [the same options]          print the settings in effect, as a configuration file

Exit codes: 0 ended by a signal, after everything was drained, or done; 1 a fault of ours, or the exchange has
refused it; 2 settings that cannot be used; 65 what an exchange has kept is damaged; 75 something else has the
port or the data directory, or they cannot be had, or nothing answers there: it may work later; 128 + signal:
ended at once by a second one.
"""

import argparse
import sys
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from scripts import caches, instance, journal_words, operator_words
from scripts import config as configuration
from scripts.config import Config

EXIT_NOT_DONE, EXIT_REFUSED, EXIT_BUSY = 1, 2, 75


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command; give its exit code. Raises SystemExit for --help, and for unknown options."""
    given = parser().parse_args(arguments)
    if given.command == "config":
        return _print_config(given)
    try:
        if given.command in operator_words.COMMANDS:
            return _operate(given)
        if given.command in journal_words.COMMANDS:
            return journal_words.run(given)
        if given.command == "feed":
            return _feed(given)
        config = configuration.load(given.config, sections_of(given))
        return _run_exchange(config) if given.command == "up" else _run_follow(config)
    except configuration.Invalid as error:
        print(f"ringside: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except (instance.Busy, OSError) as error:
        print(f"ringside: {error}", file=sys.stderr)
        return EXIT_BUSY


def _run_follow(config: Config) -> int:
    _check_source(config)
    from scripts import follow  # numba comes with it, which --help need not wait for

    return follow.run(config, version())


def _run_exchange(config: Config) -> int:
    from scripts import exchange

    return exchange.run(config, version())


def _operate(given: argparse.Namespace) -> int:
    """Ask a running exchange for what only its operator may, and say what it answers."""
    from scripts import operator

    message = operator_words.message_of(given)
    try:
        operator.command(message)  # what cannot be meant needs no exchange to say so
        data = configuration.load(given.config, {} if given.data is None else {"data": given.data}).data
        answer = operator.ask(Path(data) / operator.NAME, message)
    except operator.Wrong as wrong:
        raise configuration.Invalid(str(wrong)) from None
    except operator.Unheard as unheard:
        print(f"ringside: {unheard}", file=sys.stderr)
        return EXIT_BUSY
    if not answer["ok"]:
        print(f"ringside: {answer['error']}", file=sys.stderr)
        return EXIT_NOT_DONE
    print(f"{operator_words.described(message)}: done, sequence {answer['sequence']}")
    return 0


def _feed(given: argparse.Namespace) -> int:
    """Tell a running exchange its oracle's prices until the source ends, or a signal ends this."""
    import asyncio

    from scripts import operator, oracle_feed

    data = configuration.load(given.config, {} if given.data is None else {"data": given.data}).data
    try:
        moments = [] if given.file is None else oracle_feed.recording(given.file)
    except oracle_feed.Unusable as unusable:
        raise configuration.Invalid(str(unusable)) from None
    source = oracle_feed.of_url(given.url) if given.url else oracle_feed.of_recording(moments, given.speed)
    with suppress(KeyboardInterrupt):
        taken = asyncio.run(oracle_feed.run(source, given.exchange, Path(data) / operator.NAME))
        print(f"ringside feed: the source has ended; {taken:,} prices were taken")
    return 0


def _print_config(given: argparse.Namespace) -> int:
    try:
        print(configuration.to_toml(configuration.load(given.config, sections_of(given))), end="")
    except configuration.Invalid as error:
        print(f"ringside: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


# --- options ------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="ringside",
        description="An exchange of your own, or the books of a Hyperliquid node, over HTTP and WebSocket.",
    )
    top.add_argument("--version", action="version", version=f"ringside {version()}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="be an exchange, with simulated traders")
    _add_exchange_options(up)
    _add_options(up)
    operator_words.add_parsers(commands, _add_places)
    _add_feed(commands.add_parser("feed", help="tell a running exchange its oracle's prices, from a source"))
    journal_words.add_parsers(commands)
    follow = commands.add_parser("follow", help="rebuild the books from a node's logs, and serve them")
    config = commands.add_parser("config", help="print the settings in effect, as a configuration file")
    for command in (follow, config):
        _add_source_options(command)
        _add_options(command)
    _add_exchange_options(config)
    return top


def _add_feed(command: argparse.ArgumentParser) -> None:
    source = command.add_mutually_exclusive_group(required=True).add_argument
    source("--url", help="the middles of the books of who speaks the wire there: another ringside, a venue")
    source("--file", type=Path, help="a recording: lines of SECONDS COIN PRICE [EXTERNAL]")
    command.add_argument("--speed", type=float, default=1.0, help="of a recording (default 1: its own pace)")
    command.add_argument(
        "--exchange", metavar="URL", default="http://127.0.0.1:3001", help="that is told (default: 3001 here)"
    )
    _add_places(command)


def _add_exchange_options(command: argparse.ArgumentParser) -> None:
    exchange = command.add_argument_group("who trades").add_argument
    exchange(
        "--no-simulation", dest="simulation", action="store_false", default=None, help="no simulated traders"
    )


def _add_source_options(command: argparse.ArgumentParser) -> None:
    source = command.add_argument_group("what is followed").add_argument
    source("--node-data", metavar="DIR", help="directory that holds node_order_statuses_* and its like")
    source("--simulated", action="store_true", default=None, help="start a simulated node and follow that")
    source("--snapshot", metavar="FILE", help="start from this L4 snapshot")
    source("--node-info", metavar="URL", help="or ask the node for snapshots, at its info server")
    source("--replay-speed", metavar="real|N|max", help="DIR is a recording: feed it at this pace")


def _add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--host", help="address to listen on (default 127.0.0.1: this machine alone)")
    add("--port", type=int, help="for HTTP and WebSocket (default 3001; 0: a free one)")
    add("--gateways", type=int, metavar="N", help="processes that serve clients (default 1)")
    add("--cores", metavar="auto|none|E,G,...", help="pin the engine to core E and the gateways to G,...")
    _add_places(command)


def _add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        metavar="DIR",
        help=f"what is kept (default {configuration.DEFAULT_DATA}); one instance each",
    )
    command.add_argument("--config", metavar="FILE.toml", help="settings; options given here are stronger")


def sections_of(given: argparse.Namespace) -> dict[str, Any]:
    """Sort the options that were given into the sections of the configuration file. Raises config.Invalid."""

    def options(*names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(given, name, None)) is not None}

    follow = options("node_data", "simulated", "snapshot", "node_info", "replay_speed")
    exchange = options("simulation")
    gateway = {
        name: value
        for name, value in (("host", given.host), ("port", given.port), ("count", given.gateways))
        if value is not None
    }
    sections = {"follow": follow, "exchange": exchange, "gateway": gateway, "cores": _cores(given.cores)}
    found: dict[str, Any] = {name: section for name, section in sections.items() if section}
    return found | ({} if given.data is None else {"data": given.data})


def _cores(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if text in ("auto", "none"):
        return {"auto": text == "auto"}
    try:
        engine, *gateways = [int(part) for part in text.split(",")]
    except ValueError:
        raise configuration.Invalid(
            f"--cores {text}: expected auto, none, or core numbers as 3,1,2"
        ) from None
    return {"engine": engine, "gateways": gateways}


def version() -> str:
    """Of the checkout this runs from, or else of the installed package."""
    with suppress(OSError, KeyError):
        return str(tomllib.loads((caches.ROOT / "pyproject.toml").read_text())["project"]["version"])
    with suppress(metadata.PackageNotFoundError):
        return metadata.version("ringside")
    return "of unknown version"


def _check_source(config: Config) -> None:
    """Raises config.Invalid when there is nothing to follow, which `ringside config` need not mind."""
    follow = config.follow
    if not follow.simulated and follow.node_data is None:
        raise configuration.Invalid("nothing to follow: give --node-data DIR, or --simulated to try it out")
    if follow.snapshot is not None and not Path(follow.snapshot).is_file():
        raise configuration.Invalid(f"--snapshot {follow.snapshot}: no such file")


if __name__ == "__main__":
    main()
