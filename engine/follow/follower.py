"""Follow one node: its log files in, the state of its books out, whatever the files are like.

`poll` does what can be done now and returns: no clock but its argument, no waiting, no exit because of the
input. What cannot be trusted is said market by market, and repaired from the next snapshot while the others
go on.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine import apply, image, publish
from engine.follow import check, checkpoint, intern, parse
from engine.follow.bootstrap import NoSource, Source
from engine.follow.join import REORDER_BLOCKS, Block, Join, Part
from engine.follow.records import BadLine, Corrupt, Kind
from engine.follow.tail import Mark, Tail
from engine.state import Capacity, State, learn_names
from shm.codes import Feed, Stale
from shm.layout import ENDED, TRADE

STREAMS = {
    Kind.STATUSES: "node_order_statuses",
    Kind.DIFFS: "node_raw_book_diffs",
    Kind.FILLS: "node_fills",
}
FORMS = {"by_block": True, "streaming": False}
RETRY_NS = 1_000_000_000  # between two questions for a snapshot that is needed
NEVER = 1 << 62  # a height
BLOCKS_PER_POLL = 256  # then the caller may look at its clock and its sockets


class Follower:
    """The state machine of following.

    state      empty, of `capacity`
    node_data  the directory that holds node_order_statuses_by_block and its like
    source     where snapshots come from
    speed      None: as fast as lines come; else block time runs so many times as fast as `now_ns`
    check_ns   between two comparisons with a snapshot; 0: only when a market is in doubt
    log        told of everything worth a line: (event, facts)
    """

    def __init__(
        self,
        state: State,
        capacity: Capacity,
        node_data: Path,
        source: Source | None = None,
        speed: float | None = None,
        check_ns: int = 0,
        silent_ns: int = 2_000_000_000,
        log: Callable[[str, dict[str, Any]], None] = lambda event, facts: None,
    ):
        self.state, self.source, self.counts = state, source or NoSource(), Counter[str]()
        self.tables = intern.tables(
            state.markets, state.names, state.accounts, state.account_index, state.status
        )
        self._node_data, self._speed, self._log = node_data, speed, log
        self._check_ns, self._silent_ns = check_ns, silent_ns
        self._parsers = {kind: parse.Parser(kind, self.tables) for kind in Kind}
        self._tails: dict[Kind, Tail] = {}
        self._join: Join | None = None
        self._past, self._check = check.Past(), check.Check(capacity)
        self._ended, self._trade = np.zeros(1, ENDED), np.zeros(1, TRADE)
        self._names = learn_names(state, 0)
        self._trusted_from = np.zeros(
            len(state.markets), np.int64
        )  # a market's log is whole from this height on
        self._unbounded: dict[Kind, set[int]] = {kind: set() for kind in Kind}  # doubted: a line is lost
        self._based = False  # there is a height to go on from
        self._unfounded = 0  # markets below this row have a snapshot behind them; -1: all have
        self._asked_ns = self._checked_ns = -(1 << 62)
        self._held: Block | None = None  # replay: a block whose time has not come
        self._origin: tuple[int, int] | None = None  # replay: (block time, now) of the first block
        self._news_ns: int | None = None
        self._resume: checkpoint.Checkpoint | None = None

    # --- beginning ------------------------------------------------------------------------------------------

    def resume(self, directory: Path) -> bool:
        """Go on from the newest whole checkpoint, if there is one that fits."""
        found, complaints = checkpoint.newest(directory)
        for complaint in complaints:
            self._log("checkpoint_passed_over", {"why": complaint})
        if found is None:
            return False
        try:
            refused = checkpoint.restore(found, self.state)
        except ValueError as misfit:
            self._log("checkpoint_passed_over", {"why": str(misfit)})
            return False
        self._names = learn_names(self.state, 0)
        self._resume, self._based, self._unfounded = found, True, -1
        self._past.begin(found.head.height)
        # what was read of their log before is not known any more
        self._trusted_from[self.state.markets["stale"] != Stale.FRESH] = found.head.height + REORDER_BLOCKS
        self._publish_all(found.head.height, found.head.time_ns)
        if refused:
            self._doubt_all(Stale.CAPACITY)
        self._log("resumed", {"height": found.head.height, "orders": found.head.orders})
        return True

    def _find_base(self, now_ns: int) -> bool:
        """Get a first snapshot; without a source, begin at the first block there is, in doubt of all."""
        if isinstance(self.source, NoSource):
            self._based = True
            return True
        text = self._take_snapshot(now_ns)
        if text is None:
            return False
        try:
            height, orders, _ = parse.parse_snapshot(text, self.tables)
        except Corrupt as corrupt:
            self._log("snapshot_corrupt", {"why": corrupt.reason, "offset": corrupt.offset})
            return False
        self._names = learn_names(self.state, self._names)
        refused = image.load(self.state, orders)
        self._based, self._unfounded, self._checked_ns = True, -1, now_ns
        self._past.begin(height)
        self.state.status["height"] = height
        self._publish_all(height, 0)
        if refused:
            self._doubt_all(Stale.CAPACITY)
        self._log("bootstrapped", {"height": height, "orders": len(orders), "without_room": refused})
        return True

    def _take_snapshot(self, now_ns: int) -> np.ndarray | None:
        """Ask for a snapshot now and then; return its text when it has come."""
        try:
            text = self.source.take()
        except (OSError, ValueError) as failure:
            self.counts["snapshot_failures"] += 1
            self._log("snapshot_failed", {"why": str(failure)})
            text = None
        if text is None and now_ns - self._asked_ns >= RETRY_NS:
            self._asked_ns = now_ns
            self.source.ask()
        return text

    def _open_streams(self) -> bool:
        """Find which form the node writes, and begin reading where the state stands."""
        for form, by_block in FORMS.items():
            paths = {kind: self._node_data / f"{name}_{form}" for kind, name in STREAMS.items()}
            if not any((path / "hourly").is_dir() for path in paths.values()):
                continue
            if self._resume is not None and self._resume.head.by_block != by_block:
                self._resume = None
            height = int(self.state.status[0]["height"])
            resume = self._resume
            base = resume.head.base if resume else height
            self._join = Join(height, by_block, base, resume.recent if resume else None)
            self._tails = {kind: Tail(path / "hourly") for kind, path in paths.items()}
            for kind, tail in self._tails.items():
                if resume is not None:
                    tail.start_at(resume.marks(kind))
                elif height:
                    tail.start_before(height)
            self._resume = None
            self._log("reading", {"form": form, "above": height})
            return True
        return False

    # --- going on -------------------------------------------------------------------------------------------

    def poll(self, now_ns: int) -> int:
        """Read, join and apply what there is; return how many blocks were applied, at most BLOCKS_PER_POLL.

        now_ns  any clock that never goes back; differences are what counts
        """
        if not self._based and not self._find_base(now_ns):
            return 0
        if self._join is None and not self._open_streams():
            return 0
        if self._held is None:
            self._read(now_ns)
        applied = self._apply_ready(now_ns)
        self._compare(now_ns)
        return applied

    def _read(self, now_ns: int) -> None:
        join = self._join
        assert join is not None
        for kind, tail in self._tails.items():
            if not join.wants(kind):
                continue
            lost = tail.oversized + tail.cut
            chunks, rewound = tail.poll(now_ns)
            join.hold(kind, tail.waits)
            if rewound:
                self._log("read_again", {"stream": STREAMS[kind]})
            for chunk in chunks:
                self._news_ns = now_ns
                self._add(kind, chunk.name, chunk.inode, chunk.start, chunk.lines, now_ns)
            if tail.oversized + tail.cut > lost:
                self._on_lost(kind, None)
        self.counts["oversized"] = sum(tail.oversized for tail in self._tails.values())
        self.counts["cut"] = sum(tail.cut for tail in self._tails.values())
        self.state.status["seen_height"] = max(join.seen_height, join.height)

    def _add(self, kind: Kind, name: str, inode: int, start: int, lines: bytes, now_ns: int) -> None:
        batch = self._parsers[kind].parse(lines)
        self._names = learn_names(self.state, self._names)
        self._doubt_unfounded()
        self.counts[f"{kind.name.lower()}_bytes"] += len(lines)
        join = self._join
        assert join is not None
        self._begin_at_lines(batch.segments)
        for segment in batch.segments:
            first = int(segment["first"])
            records = batch.records[first : first + int(segment["count"])]
            mark = Mark(name, inode, start + int(segment["start"]))
            join.add(kind, Part(int(segment["height"]), int(segment["time_ns"]), [records], mark), now_ns)
        self._bound(kind, batch.segments)
        for bad in batch.bad:
            self._on_bad(kind, bad)
        if batch.bad and len(batch.segments) and batch.bad[-1].offset < batch.segments[-1]["start"]:
            self._bound(kind, batch.segments)
        for late in join.late_diffs:
            self.counts["late_diffs"] += len(late)
            self._doubt(np.unique(late["market"]), Stale.GAP)
        for unmatched in join.unmatched:
            self._doubt(np.unique(unmatched["market"]), Stale.GAP)
        join.late_diffs.clear()
        join.unmatched.clear()

    def _begin_at_lines(self, segments: np.ndarray) -> None:
        """Without a snapshot, the first line there is says where to begin."""
        join = self._join
        assert join is not None
        if join.height == 0 and len(segments):
            join.height = join.base = int(segments["height"].min()) - 1
            self._past.begin(join.height)

    def _on_bad(self, kind: Kind, bad: BadLine) -> None:
        """A line nobody can read: counted, and what it may have been about is in doubt."""
        self.counts["quarantined"] += 1
        self._log("line_quarantined", {"stream": STREAMS[kind], "why": bad.reason, "bytes": bad.length})
        self._on_lost(kind, bad.market)

    def _on_lost(self, kind: Kind, coin: str | None) -> None:
        """A line is lost; `coin` is the only market that it can have been about. None: it may be any."""
        if kind == Kind.FILLS or (self._join and self._join.by_block):
            return  # by-block: the block will be missing, and that says it for all markets
        if coin is None:
            rows = list(range(int(self.state.status[0]["market_count"])))
        else:
            rows = [market for market in [intern.market(self.tables, coin)] if market >= 0]
        self._doubt(rows, Stale.CORRUPT)
        self._trusted_from[rows] = NEVER
        self._unbounded[kind].update(rows)

    def _bound(self, kind: Kind, segments: np.ndarray) -> None:
        """The next whole line after a lost one has come: the lost one was of its block, or of one before."""
        if len(segments) and self._unbounded[kind]:
            rows = list(self._unbounded[kind])
            self._unbounded[kind].clear()
            join = self._join
            self._trusted_from[rows] = max(int(segments["height"].max()), join.seen_height if join else 0)

    def _apply_ready(self, now_ns: int) -> int:
        join = self._join
        assert join is not None
        applied = 0
        while applied < BLOCKS_PER_POLL:
            if self._held is None:
                self._held = join.next(now_ns)
            if self._held is None or not self._is_due(self._held, now_ns):
                break
            block, self._held = self._held, None
            self._apply(block)
            applied += 1
        return applied

    def _is_due(self, block: Block, now_ns: int) -> bool:
        """Replay: whether the block's time has come."""
        if self._speed is None:
            return True
        if self._origin is None:
            self._origin = (block.time_ns, now_ns)
        return (block.time_ns - self._origin[0]) / self._speed <= now_ns - self._origin[1]

    def _apply(self, block: Block) -> None:
        lost = [kind for kind in block.missing if kind != Kind.FILLS]
        for kind in block.missing:
            self.counts[f"missing_{kind.name.lower()}"] += 1
        self.counts["skipped_blocks"] += block.skipped
        apply.apply_block(
            self.state, block.statuses, block.diffs, block.fills, block.height, block.time_ns,
            self._ended, self._trade,
        )  # fmt: skip
        rested = block.statuses[self.state.refusals[block.statuses["status"]] == 0]
        whole = not lost and not block.skipped
        self._past.keep(check.Kept(block.height, block.time_ns, rested, block.diffs, block.fills, whole))
        self.counts["blocks"] += 1
        if not whole:
            facts = {
                "height": block.height,
                "missing": [STREAMS[kind] for kind in lost],
                "skipped": block.skipped,
            }
            self._log("gap", facts)
            self._doubt_all(Stale.GAP)

    # --- doubt and repair -----------------------------------------------------------------------------------

    def _doubt_all(self, reason: Stale) -> None:
        self._doubt(range(int(self.state.status[0]["market_count"])), reason)

    def _doubt(self, markets: Any, reason: Stale) -> None:
        """Tell the subscribers of these markets that their books are in doubt."""
        rows, status = np.array(markets, np.int64), self.state.status[0]
        height = int(status["height"])
        until = max(height, self._join.seen_height if self._join else 0)
        self._trusted_from[rows] = np.maximum(self._trusted_from[rows], until)
        publish.doubt_markets(self.state, rows, int(reason), height, int(status["time_ns"]))

    def _doubt_unfounded(self) -> None:
        """Without a first snapshot, each new market begins in doubt."""
        count = int(self.state.status[0]["market_count"])
        if 0 <= self._unfounded < count:
            first, self._unfounded = self._unfounded, count
            self._doubt(range(first, count), Stale.NO_SNAPSHOT)

    def _compare(self, now_ns: int) -> None:
        """Compare with a later snapshot: regularly, and at once when a market is in doubt."""
        doubted = int(self.state.status[0]["stale_count"]) > 0
        due = self._check_ns > 0 and now_ns - self._checked_ns >= self._check_ns
        if not self._check.busy and (doubted or due):
            text = self._take_snapshot(now_ns)
            if text is not None:
                self._checked_ns = now_ns
                self._check.begin(text)
        try:
            report = self._check.advance(self.state, self._past, self._trusted_from)
        except Corrupt as corrupt:
            self.counts["snapshot_failures"] += 1
            self._log("snapshot_corrupt", {"why": corrupt.reason, "offset": corrupt.offset})
            return
        if report is not None:
            self.counts["checks"] += 1
            self.counts["repairs"] += len(report.repaired)
            self._log(
                "checked", {"height": report.height, "orders": report.orders, "repaired": report.repaired}
            )

    def _publish_all(self, height: int, time_ns: int) -> None:
        publish.publish_markets(self.state, height, time_ns)

    # --- what others ask ----------------------------------------------------------------------------------

    def feed(self, now_ns: int) -> Feed:
        """What to say of the source: waiting, live, silent, or (a replay) ended."""
        if self._join is None or self._news_ns is None:
            return Feed.WAITING
        if self._held is not None or now_ns - self._news_ns < self._silent_ns:
            return Feed.LIVE
        return Feed.ENDED if self._speed is not None else Feed.SILENT

    @property
    def checking(self) -> bool:
        """Whether a comparison is under way."""
        return self._check.working

    @property
    def paced(self) -> bool:
        """Whether a block is here whose time has not come."""
        return self._held is not None

    def checkpoint(self) -> checkpoint.Checkpoint | None:
        """What to go on from after a crash, or None while there is nothing. Between two polls only."""
        if self._join is None or self._held is not None or self._unfounded >= 0 or self._join.owes:
            return None
        marks = []
        for kind, tail in self._tails.items():
            first = {mark.name: mark for mark in tail.marks()}
            for mark in self._join.marks(kind):
                if mark.name not in first or mark.offset < first[mark.name].offset:
                    first[mark.name] = mark
            marks.append([tail.sealed(mark) for mark in first.values()])
        join = self._join
        return checkpoint.take(self.state, join.by_block, marks, join.base, join.recent())

    def close(self) -> None:
        for tail in self._tails.values():
            tail.close()
