"""What one may ask of an exchange's files: is the journal whole, what happened, and all of it as tables.

ringside verify [DIR]    DIR: the data directory of an exchange, which may be running; or a journal
ringside replay [DIR]    --since SEQ, --until SEQ, --account ADDRESS, --market COIN, --json
    ringside export [DIR]    --csv OUT, --parquet OUT
"""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from scripts import caches, progress
from scripts import config as configuration

EXIT_DAMAGED = 65
MEGABYTE = 1_000_000
ADDRESS = re.compile(r"0x[0-9a-f]{40}")


class Places(NamedTuple):
    """Where the files of an exchange are that say what has happened."""

    journal: Path
    snapshots: Path


def add_parsers(commands: Any) -> None:
    """Add a parser for each command to the subparsers `commands`."""
    verify = commands.add_parser("verify", help="look whether a journal is whole, or where it is damaged")
    _add_places(verify)
    replay = commands.add_parser("replay", help="tell what happened: each outcome of a journal, in a line")
    _add_places(replay)
    add = replay.add_argument
    add(
        "--since",
        metavar="SEQ",
        type=int,
        default=0,
        help="from this sequence on (default: the first)",
    )
    add("--until", metavar="SEQ", type=int, default=None, help="up to this sequence")
    add("--account", metavar="ADDRESS", help="what concerns this account alone")
    add("--market", metavar="COIN", help="what concerns this market alone")
    add("--json", action="store_true", help="a line of JSON each")
    export = commands.add_parser("export", help="write what an exchange's archive holds as tables")
    _add_places(export)
    form = export.add_mutually_exclusive_group(required=True).add_argument
    form("--csv", metavar="OUT", type=Path, help="a directory, for a CSV file of each table")
    form("--parquet", metavar="OUT", type=Path, help="likewise for Parquet; needs pyarrow")


def _add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "data",
        metavar="DIR",
        nargs="?",
        help="the data directory of an exchange, or a journal by itself (default: that of the settings)",
    )
    command.add_argument("--config", metavar="FILE.toml", help="the settings of the exchange")


def run(given: argparse.Namespace) -> int:
    """Answer; the exit code. Raises config.Invalid, OSError."""
    caches.settle()
    config = configuration.load(given.config, {} if given.data is None else {"data": given.data})
    return COMMANDS[given.command](given, config)


def _places(config: configuration.Config) -> Places:
    """In the data directory; or of a journal that was named itself."""
    places = Places(configuration.journal_directory(config), configuration.snapshot_directory(config))
    if places.journal.is_dir():
        return places
    journal = Path(config.data)
    return Places(journal, journal.parent / places.snapshots.name)


def _verify(given: argparse.Namespace, config: configuration.Config) -> int:
    from scripts import verify

    places, bar = _places(config), progress.Bar("reading", sys.stderr)
    try:
        verdict = verify.verify(*places, _in_megabytes(bar))
    except verify.Absent as absent:
        raise configuration.Invalid(str(absent)) from None
    finally:
        bar.clear()
    sys.stdout.write(verify.told(places.journal, verdict))
    return 0 if verdict.is_good else EXIT_DAMAGED


def _replay(given: argparse.Namespace, config: configuration.Config) -> int:
    from engine.exchange.recovery import Diverged
    from engine.journal.reader import Corrupt
    from scripts import outcome_words, replay
    from scripts.verify import Absent

    account = None if given.account is None else given.account.lower()
    if account is not None and not ADDRESS.fullmatch(account):
        raise configuration.Invalid(f"--account {given.account}: expected 0x and 40 hex digits")
    asked = replay.Asked(given.since, given.until or replay.EVER, account, given.market)
    settings, places = configuration.replica_settings(config), _places(config)
    empty = replay.empty(msgspec.to_builtins(settings.capacity), settings.rings)
    bar = progress.Bar("applying", io.StringIO() if sys.stdout.isatty() else sys.stderr)
    try:
        for facts in replay.replay(*places, *empty, asked, _in_megabytes(bar)):
            said = msgspec.json.encode(facts).decode() if given.json else outcome_words.line(facts)
            sys.stdout.write(said + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # who reads it has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Absent as absent:
        raise configuration.Invalid(str(absent)) from None
    except (Corrupt, Diverged) as damage:
        bar.clear()
        print(f"ringside: {damage}", file=sys.stderr)
        return EXIT_DAMAGED
    finally:
        bar.clear()
    return 0


def _export(given: argparse.Namespace, config: configuration.Config) -> int:
    from scripts import export

    sink: type[export.Sink] = export.Csv if given.csv is not None else export.Parquet
    out, archive = given.csv or given.parquet, configuration.archive_file(config)
    bar = progress.Bar("writing", sys.stderr)
    try:
        counts = export.export(archive, out, sink, lambda done, total: bar.show(done, total, "rows"))
    except export.Unusable as unusable:
        raise configuration.Invalid(str(unusable)) from None
    finally:
        bar.clear()
    print(f"{out}: {', '.join(f'{count:,} {name}' for name, count in counts.items())}")
    return 0


def _in_megabytes(bar: progress.Bar) -> Callable[[int, int], None]:
    return lambda done, total: bar.show(done // MEGABYTE, total // MEGABYTE, "MB")


Answer = Callable[[argparse.Namespace, configuration.Config], int]
COMMANDS: dict[str, Answer] = {"verify": _verify, "replay": _replay, "export": _export}
