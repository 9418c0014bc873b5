"""The recorded log, and what the naive follower makes of it, worked out once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import recorded
from tests.reference_book import Level, ReferenceBook, read_blocks


class Story(NamedTuple):
    """The capture, and what is true of it.

    at: height -> best bid, best ask, resting orders at the block's end; time_ms: height -> block time;
    spoken: heights of blocks in which there was a status or a diff.
    """

    logs: dict[str, Path]  # by form
    snapshot: Path
    at: dict[int, tuple[Level | None, Level | None, int]]
    time_ms: dict[int, int]
    spoken: set[int]
    end: ReferenceBook


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("recorded")
    logs = {form: recorded.extract(folder, form) for form in ("by_block", "streaming")}
    snapshot = recorded.snapshot_path(folder)
    book = ReferenceBook()
    book.load(json.loads(snapshot.read_bytes()))
    at: dict[int, Any] = {book.height: (*book.best("BTC"), len(book.orders))}
    time_ms, spoken = {}, set()
    for block in read_blocks(logs["by_block"], "by_block"):
        book.apply(block)
        at[book.height] = *book.best("BTC"), len(book.orders)
        time_ms[book.height] = book.time_ms
        if block["order_statuses"] or block["raw_book_diffs"]:
            spoken.add(book.height)
    return Story(logs, snapshot, at, time_ms, spoken, book)


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Compile the kernels first: an instance serves nothing while it does that."""
    subprocess.run([sys.executable, "-m", "scripts.warm"], cwd=recorded.ROOT, check=True, capture_output=True)
