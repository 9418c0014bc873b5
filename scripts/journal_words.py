"""What one may ask of an exchange's files: is the journal whole, what happened, and give me all of it.

ringside verify [DIR]      DIR: the data directory of an exchange, which may be running; or a journal
ringside replay [DIR]
ringside export [DIR]
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from scripts import caches, progress
from scripts import config as configuration

EXIT_DAMAGED = 65
MEGABYTE = 1_000_000


class Places(NamedTuple):
    """Where the files of an exchange are."""

    journal: Path
    snapshots: Path


def add_parsers(commands: Any) -> None:
    """Add a parser for each command to the subparsers `commands`."""
    verify = commands.add_parser("verify", help="look whether a journal is whole, or where it is damaged")
    _add_places(verify)


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

    def show(done: int, total: int) -> None:
        bar.show(done // MEGABYTE, total // MEGABYTE, "MB")

    try:
        verdict = verify.verify(*places, show)
    except verify.Absent as absent:
        raise configuration.Invalid(str(absent)) from None
    finally:
        bar.clear()
    sys.stdout.write(verify.told(places.journal, verdict))
    return 0 if verdict.is_good else EXIT_DAMAGED


COMMANDS: dict[str, Callable[[argparse.Namespace, configuration.Config], int]] = {"verify": _verify}
