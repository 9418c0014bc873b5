"""What does a node's log line cost until it is in the book, against merely decoding the same lines?

candidate: parse, join, apply, publish: all blocks of the recorded log, from the recorded snapshot. Before
each turn the rows that the log changes are set back, which is on the candidate's bill.
baseline: msgspec's decode of the same lines into typed Structs, and nothing done with them.
"""

import tempfile
from pathlib import Path

import msgspec
import numpy as np

from engine import apply, image, publish
from engine.follow import decode, intern, parse
from engine.follow.join import Join, Part
from engine.follow.records import Kind
from engine.follow.tail import Mark
from engine.state import allocate, learn_names
from perf import ratio
from shm.layout import ENDED, TRADE
from tests import recorded
from tests.following import RECORDED

CHUNK_BYTES = 4 << 20
ROUNDS = 15
STREAMS = {Kind.STATUSES: "order_statuses", Kind.DIFFS: "raw_book_diffs", Kind.FILLS: "fills"}
STRUCTS = {Kind.STATUSES: decode.Statuses, Kind.DIFFS: decode.Diffs, Kind.FILLS: decode.Fills}
MARK = Mark("20260505/17", 1, 0)


def lines_of(form: str) -> dict[Kind, list[bytes]]:
    """The recorded lines of each stream, in chunks of whole lines as a tail would hand them over."""
    with tempfile.TemporaryDirectory() as folder:
        root = recorded.extract(Path(folder), form)
        chunks = {}
        for kind, stream in STREAMS.items():
            (path,) = root.glob(f"node_{stream}_{form}/hourly/*/*")
            chunks[kind] = _chunks(path.read_bytes())
        return chunks


def _chunks(text: bytes) -> list[bytes]:
    chunks, start = [], 0
    while start < len(text):
        end = text.rfind(b"\n", start, start + CHUNK_BYTES) + 1
        chunks.append(text[start:end])
        start = end
    return chunks


class Following:
    """A state at the snapshot, and the way back to it."""

    def __init__(self, snapshot: np.ndarray) -> None:
        self.state = allocate(RECORDED)
        state = self.state
        self.tables = intern.tables(
            state.markets, state.names, state.accounts, state.account_index, state.status
        )
        self.height, orders, _ = parse.parse_snapshot(snapshot, self.tables)
        learn_names(state, 0)
        image.load(state, orders)
        publish.publish_markets(state, self.height, 0)
        self._changed: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._parsers = {kind: parse.Parser(kind, self.tables) for kind in Kind}
        self._ended, self._trade = np.zeros(1, ENDED), np.zeros(1, TRADE)

    def learn(self, chunks: dict[Kind, list[bytes]], by_block: bool) -> None:
        """Run once to see which rows the log changes; they are all that `run` sets back."""
        for kind in Kind:
            for chunk in chunks[kind]:
                self._parsers[kind].parse(chunk)  # the log's accounts become known
        before = [array.copy() for array in self.state.rows]
        self.run(chunks, by_block)
        for array, kept in zip(self.state.rows, before, strict=True):
            changed = np.flatnonzero(array != kept)
            self._changed.append((array, changed, kept[changed]))

    def _again(self) -> None:
        for array, places, kept in self._changed:
            array[places] = kept

    def run(self, chunks: dict[Kind, list[bytes]], by_block: bool) -> int:
        """Follow all chunks, once; return how many events there were."""
        self._again()
        join, events, now_ns = Join(self.height, by_block), 0, 1
        for kind in Kind:
            for chunk in chunks[kind]:
                batch = self._parsers[kind].parse(chunk)
                events += len(batch.records)
                for segment in batch.segments:
                    first = int(segment["first"])
                    records = batch.records[first : first + int(segment["count"])]
                    join.add(
                        kind, Part(int(segment["height"]), int(segment["time_ns"]), [records], MARK), now_ns
                    )
        while (block := join.next(now_ns + (0 if by_block else 60_000_000_000))) is not None:
            apply.apply_block(
                self.state, block.statuses, block.diffs, block.fills, block.height, block.time_ns,
                self._ended, self._trade,
            )  # fmt: skip
        assert self.state.status[0]["order_count"] == 51_336 and not self.state.status[0]["stale_count"]
        return events


def compared(form: str) -> tuple[ratio.Work, ratio.Work]:
    chunks = lines_of(form)
    with tempfile.TemporaryDirectory() as folder:
        snapshot = np.fromfile(recorded.snapshot_path(Path(folder)), np.uint8)
    following = Following(snapshot)
    following.learn(chunks, form == "by_block")
    decoders = {kind: msgspec.json.Decoder(struct) for kind, struct in STRUCTS.items()}

    def decoded() -> int:
        events = 0
        for kind, of_kind in chunks.items():
            for chunk in of_kind:
                for line in chunk.split(b"\n"):
                    if line:
                        events += len(decoders[kind].decode(line).events)
        return events

    return lambda: following.run(chunks, form == "by_block"), decoded


def by_block() -> tuple[ratio.Work, ratio.Work]:
    return compared("by_block")


def streaming() -> tuple[ratio.Work, ratio.Work]:
    return compared("streaming")


if __name__ == "__main__":
    for pair in (by_block, streaming):
        ratio.report(
            f"log line -> book / msgspec typed decode, {pair.__name__}", pair, processes=5, rounds=ROUNDS
        )
