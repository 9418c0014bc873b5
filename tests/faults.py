"""What can go wrong between a node's log and its reader, as scripts of small writes.

A script takes a recorded log and writes it anew, step by step, with faults F1 to F12 in it:

    for action in script(seed, log, out):
        action.apply()
        engine.poll()

What is written depends on the seed and the log alone. Each action names its faults (`F4`, `F1+F5`, or
nothing) and says whether it can lose information: `lossy` is false if a reader that polls after every
action, holds its files open and reorders up to REORDER_MAX blocks can still know everything. F9, and the
snapshots of F7, need `snapshots`.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from tests.fault_lines import FAULTS, LAG_MAX, SHUFFLE_MAX, Chunk, LineFaults
from tests.reference_book import STREAMS, read_lines

REORDER_MAX = SHUFFLE_MAX + LAG_MAX + 2


@dataclass(frozen=True)
class Action:
    """One step of a script.

    kind: append, create, shrink, truncate, replace, rename, snapshot, silence, restart, or missing.
    A `restart` asks the caller to end the reader and start it from its checkpoint; `silence`, `restart` and
    `missing` (lines that are never written) do nothing by themselves.
    """

    kind: str
    fault: str
    lossy: bool
    run: Callable[[], None]
    path: Path | None = None
    content: bytes = b""
    missing: tuple[str, int] = ("", 0)  # stream and height of what is

    def apply(self) -> None:
        self.run()


def script(
    seed: int,
    log: Path,
    out: Path,
    *,
    faults: Collection[str] = FAULTS,
    lossy: bool = True,
    snapshots: Callable[[int], list[Any]] | None = None,
) -> Iterator[Action]:
    """Yield the actions that write the log in `log` (one form) to `out`, with some of `faults` in them.

    lossy: whether faults that lose information may be chosen. snapshots: gives the node's snapshot at a
    height (from the block before the log's first to its last); with it, `out/snapshot.json` appears at times,
    of a height a little before or after what is written (F7).
    """
    random, (form, start, chunks) = Random(seed), read_source(Path(log))
    chosen = random.sample(sorted(faults), min(len(faults), random.choice((1, 1, 2, 3, 4))))
    plan = [Chunk(*chunk) for chunk in chunks]
    lines = LineFaults(random, form, lossy)
    for fault in sorted(chosen, key=FAULTS.index):
        plan = lines.spoil(plan, fault, with_snapshots=snapshots is not None)
    files = _Files(Path(out), form, start, heights=(chunks[0][1] - 1, chunks[-1][1]))
    scheduled = _file_faults(random, plan, chosen)
    for place, chunk in enumerate(plan):
        for fault in scheduled.get(place, ()):
            yield from files.between(random, fault, chunk, snapshots)
        yield from files.write(random, chunk, "F1" in chosen and random.random() < 0.3)
    yield from files.flush()


@lru_cache(maxsize=4)
def read_source(log: Path) -> tuple[str, tuple[str, int], list[tuple[str, int, bytes]]]:
    """Return (form, (date, hour) of the first file, [(stream, height, lines)] by height)."""
    form = "by_block" if any(log.glob("node_*_by_block")) else "streaming"
    blocks: dict[tuple[int, int], list[bytes]] = {}
    for order, stream in enumerate(STREAMS):
        for line in read_lines(log, stream, form):
            blocks.setdefault((json.loads(line)["block_number"], order), []).append(line)
    first = min(log.glob("node_*/hourly/*/*"), key=lambda path: (path.parent.name, int(path.name)))
    chunks = [(STREAMS[order], height, b"".join(lines)) for (height, order), lines in sorted(blocks.items())]
    return form, (first.parent.name, int(first.name)), chunks


def _file_faults(random: Random, plan: list[Chunk], chosen: list[str]) -> dict[int, list[str]]:
    """Choose places in the plan for what happens to files and between writes: {place: faults}."""
    scheduled: dict[int, list[str]] = {}
    kinds = {
        "F2": ["rotate", "rotate", "replace", "rename"],
        "F3": ["shrink", "truncate"],
        "F7": ["snapshot"],
        "F9": ["snapshot"],
        "F10": ["silence"],
        "F12": ["restart"],
    }
    for fault in chosen:
        for _ in range(random.randint(1, 4) if fault in kinds else 0):
            kind = random.choice(kinds[fault])
            if "F12" in chosen and kind in ("rename", "truncate"):
                continue  # a reader that was not there cannot have held the file
            scheduled.setdefault(random.randrange(len(plan)), []).append(kind)
    return scheduled


class _Files:
    """The files below `out` as they will be once the actions so far are applied."""

    def __init__(self, out: Path, form: str, start: tuple[str, int], heights: tuple[int, int]):
        self._out = out
        self._form = form
        self._date, self._hour = start
        self._turns = dict.fromkeys(STREAMS, 0)  # rotations so far
        self._content = {stream: bytearray() for stream in STREAMS}  # of the current file
        self._late: dict[
            str, tuple[Path, bytes, int]
        ] = {}  # the end of an old file, and the chunks to wait for
        self._renamed = 0
        self._heights = heights
        self._kinds = {
            "rotate": self._rotate,
            "replace": self._replace,
            "rename": self._rename,
            "shrink": self._shrink,
            "truncate": self._truncate,
        }

    def write(self, random: Random, chunk: Chunk, split: bool) -> Iterator[Action]:
        """Append a chunk to its current file, whole or (F1) in pieces cut at any byte."""
        if chunk.taken:
            pass
        elif not chunk.content:
            yield Action("missing", chunk.label, chunk.lossy, _nothing, missing=(chunk.stream, chunk.height))
        elif split:
            chunk.spoil("F1")
            for piece in _pieces(random, chunk.content):
                yield self._append(chunk, piece)
                if random.random() < 0.1:
                    yield Action("silence", "F1", False, _nothing)
        else:
            yield self._append(chunk, chunk.content)
        if chunk.stream in self._late:
            path, tail, wait = self._late.pop(chunk.stream)
            if wait:
                self._late[chunk.stream] = path, tail, wait - 1
            else:
                yield _append_to(path, tail, "F2", False)

    def flush(self) -> Iterator[Action]:
        for path, tail, _ in self._late.values():
            yield _append_to(path, tail, "F2", False)
        self._late.clear()

    def between(
        self, random: Random, kind: str, chunk: Chunk, snapshots: Callable[[int], list[Any]] | None
    ) -> Iterator[Action]:
        """Yield what happens before a chunk is written. It may take (a part of) the chunk with it."""
        if kind == "silence":
            yield from [Action("silence", "F10", False, _nothing)] * random.randint(1, 20)
        elif kind == "restart":
            yield Action("restart", "F12", False, _nothing)
        elif kind == "snapshot":
            if snapshots is not None:
                height = min(max(chunk.height + random.randint(-12, 12), self._heights[0]), self._heights[1])
                path, state = self._out / "snapshot.json", snapshots(height)
                yield Action(
                    "snapshot", "F7", False, lambda: _write_whole(path, json.dumps(state).encode()), path
                )
        elif (
            self._content[chunk.stream]
            and chunk.content
            and not chunk.taken
            and chunk.stream not in self._late
        ):
            yield from self._kinds[kind](random, chunk)

    def _rotate(self, random: Random, chunk: Chunk) -> Iterator[Action]:
        """Go on in the file of the next hour; the end of the last line may reach the old file after that."""
        old, stream = self._path(chunk.stream), chunk.stream
        half = chunk.content.rindex(b"\n", 0, -1) + 1 if b"\n" in chunk.content[:-1] else 0
        if random.random() < 0.5:
            cut = random.randrange(half + 1, len(chunk.content))  # inside the last line
            yield self._append(chunk, chunk.content[:cut], "F2")
            self._late[stream] = old, chunk.content[cut:], 1
            self._begin_next(stream)
            new = self._path(stream)
            yield Action("create", "F2", False, lambda: _append_bytes(new, b""), new)
            chunk.taken = True
        else:
            self._begin_next(stream)
            chunk.spoil("F2")

    def _begin_next(self, stream: str) -> None:
        self._turns[stream] += 1
        self._content[stream] = bytearray()

    def _replace(self, random: Random, chunk: Chunk) -> Iterator[Action]:
        """Put another file with the same content, and the chunk, in the place of the current one."""
        path = self._path(chunk.stream)
        self._content[chunk.stream] += chunk.content
        content = bytes(self._content[chunk.stream])
        label = self._take(chunk, "F2")
        yield Action("replace", label, chunk.lossy, lambda: _write_whole(path, content), path, content)

    def _rename(self, random: Random, chunk: Chunk) -> Iterator[Action]:
        """Rename the current file, write the chunk to it all the same, then begin anew under its name."""
        path, content = self._path(chunk.stream), chunk.content
        self._renamed += 1
        other = path.with_name(f"{path.name}.{self._renamed}")

        def rename() -> None:
            path.rename(other)
            _append_bytes(other, content)

        self._content[chunk.stream] = bytearray()
        yield Action("rename", self._take(chunk, "F2"), chunk.lossy, rename, path, content)

    def _shrink(self, random: Random, chunk: Chunk) -> Iterator[Action]:
        """Cut the end of the current file off, and write it again."""
        path, content = self._path(chunk.stream), bytes(self._content[chunk.stream])
        size = random.choice(
            (0, random.randrange(len(content)), max(0, len(content) - random.randint(1, 2_000)))
        )
        yield Action("shrink", "F3", False, lambda: os.truncate(path, size), path)
        yield _append_to(path, content[size:], "F3", False)

    def _truncate(self, random: Random, chunk: Chunk) -> Iterator[Action]:
        """Copy the current file away, empty it, go on from its start: it may soon be longer than before."""
        path, content = self._path(chunk.stream), chunk.content
        self._renamed += 1
        copy = self._out / "copied" / f"{chunk.stream}.{self._renamed}"

        def truncate() -> None:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            with path.open("wb") as file:
                file.write(content)

        self._content[chunk.stream] = bytearray(content)
        yield Action("truncate", self._take(chunk, "F3"), chunk.lossy, truncate, path, content)

    def _take(self, chunk: Chunk, fault: str) -> str:
        chunk.taken = True
        chunk.spoil(fault)
        return chunk.label

    def _append(self, chunk: Chunk, piece: bytes, fault: str = "") -> Action:
        if fault:
            chunk.spoil(fault)
        self._content[chunk.stream] += piece
        return _append_to(self._path(chunk.stream), piece, chunk.label, chunk.lossy)

    def _path(self, stream: str) -> Path:
        """The current file. Hours go on from that of the log, into the days after it."""
        days, hour = divmod(self._hour + self._turns[stream], 24)
        date = f"{datetime.strptime(self._date, '%Y%m%d') + timedelta(days=days):%Y%m%d}"
        return self._out / f"node_{stream}_{self._form}" / "hourly" / date / str(hour)


def _pieces(random: Random, content: bytes) -> list[bytes]:
    """Cut at some bytes; at times the end of a line, with its newline, comes byte by byte."""
    cuts = {random.randrange(1, len(content)) for _ in range(random.randint(1, 4))}
    if random.random() < 0.3:
        cuts |= set(range(max(1, len(content) - 40), len(content)))
    ends = sorted(cuts) + [len(content)]
    return [content[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _append_to(path: Path, content: bytes, fault: str, lossy: bool) -> Action:
    return Action("append", fault, lossy, lambda: _append_bytes(path, content), path, content)


def _append_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(content)


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _nothing() -> None:
    """What is not written changes nothing."""
