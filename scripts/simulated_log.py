"""The hourly log files of the simulated node: where a line goes, when a file ends, what an earlier run left.

A directory belongs to a simulation when it holds the file `SIMULATION`. Another directory that already has
node logs is refused, because this module deletes old hours.
"""

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

STREAMS = ("node_order_statuses", "node_raw_book_diffs", "node_fills")  # by simulated_market.STATUSES...
FORMS = ("by_block", "streaming")
MARKER = "SIMULATION"
HOURS_KEPT = 2
TAIL_BYTES = 1 << 22  # looked at for the last height of a file


class ForeignDirectory(Exception):
    """The directory holds node logs that no simulation wrote."""


class LogFiles:
    """One open file a stream. Each line is one write, so that a reader sees it at once."""

    def __init__(self, root: Path, form: str):
        assert form in FORMS, form
        self._folders = [root / f"{stream}_{form}" / "hourly" for stream in STREAMS]
        self._open: list[tuple[Path, int] | None] = [None] * len(STREAMS)
        claim(root)

    def write(self, stream: int, line: bytes, time_ns: int) -> None:
        """Append a line (with its newline) to the file of the hour that `time_ns` is in."""
        path = self._folders[stream] / hour_path(time_ns)
        current = self._open[stream]
        if current is None or current[0] != path:
            current = self._rotate(stream, path, time_ns)
        written = 0
        while written < len(line):
            written += os.write(current[1], line[written:])

    def close(self) -> None:
        for stream, current in enumerate(self._open):
            if current is not None:
                os.close(current[1])
                self._open[stream] = None

    def _rotate(self, stream: int, path: Path, time_ns: int) -> tuple[Path, int]:
        current = self._open[stream]
        if current is not None:
            os.close(current[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        end_half_line(descriptor)
        self._open[stream] = path, descriptor
        prune(self._folders[stream], time_ns)
        return path, descriptor


def hour_path(time_ns: int) -> str:
    """`YYYYMMDD/H`, in UTC, the hour without a leading zero."""
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    return f"{moment:%Y%m%d}/{moment.hour}"


def claim(root: Path) -> None:
    """Mark a directory as a simulation's. Raises ForeignDirectory if another program's logs are in it."""
    marker = root / MARKER
    if not marker.exists() and any(root.glob("node_*")):
        raise ForeignDirectory(f"{root} holds node logs but no file {MARKER}: refusing to write there")
    root.mkdir(parents=True, exist_ok=True)
    marker.write_text("Written by scripts.simulated_node. Old hours in here are deleted.\n")


def end_half_line(descriptor: int) -> None:
    """Close a line that an earlier run left half written: the next line must not join it."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")


def prune(folder: Path, time_ns: int) -> None:
    """Delete all hours but the one that `time_ns` is in and the HOURS_KEPT before it."""
    now = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    oldest = now.replace(minute=0, second=0) - timedelta(hours=HOURS_KEPT)
    for path in hour_files(folder):
        hour = datetime.strptime(f"{path.parent.name} {path.name}", "%Y%m%d %H").replace(tzinfo=UTC)
        if hour < oldest:
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def hour_files(folder: Path) -> list[Path]:
    """The hour files below `.../hourly`, oldest first."""
    named = re.compile(r"\d{8}/\d{1,2}")
    files = [path for path in folder.glob("*/*") if named.fullmatch(f"{path.parent.name}/{path.name}")]
    return sorted(files, key=lambda path: (path.parent.name, int(path.name)))


def last_height(root: Path) -> int:
    """The highest block number that any log below `root` ends with; 0 if there is none."""
    highest = 0
    for stream in STREAMS:
        for form in FORMS:
            for path in hour_files(root / f"{stream}_{form}" / "hourly")[-1:]:
                highest = max(highest, _last_height_of(path))
    return highest


def _last_height_of(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        tail = file.read()
    for line in reversed(tail.splitlines()):
        try:
            return int(json.loads(line)["block_number"])
        except (ValueError, KeyError, TypeError):
            continue  # half a line at either end
    return 0
