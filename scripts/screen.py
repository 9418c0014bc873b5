"""What the person who started it sees: one screen on a terminal, plain lines elsewhere.

Three steps that do not know each other: `Watcher.look` reads the shared regions into a `View`, `render` and
`line` turn a view into text, `Screen` puts the text out. Books are read by plain numpy, word by word: the
interpreter neither merges nor moves loads, and twice a second needs no kernel.
"""

import os
import shutil
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from scripts import log
from scripts.roles import Role
from scripts.supervisor import Supervisor
from shm import codes, constants, layout, region, stats, units

REFRESH_SECONDS = 0.5
LINE_SECONDS = 10.0  # between two plain lines when nothing changes
RATE_SECONDS = 5.0  # over which rates are taken
ROWS_MAX = 24  # markets shown
TABLE_ROWS_MIN = 6  # shown rather than what was told last
NAMED_STALE_MAX = 6
DEAD_NS = 1_000_000_000  # without a heartbeat

# Counters by the names that the processes give them.
BLOCKS, CLIENTS, MESSAGES = "blocks", "connections", "messages_sent"

_STATES = {
    codes.Feed.WAITING: "WAITING for a snapshot or for logs",
    codes.Feed.LIVE: "LIVE",
    codes.Feed.SILENT: "SILENT: the source has stopped, the books are old",
    codes.Feed.FULL: "FULL: the journal's disk has no room; only cancels are taken",
    codes.Feed.ENDED: "ENDED: the recording has been read to its end and is served on",
}


@dataclass(frozen=True)
class Quote:
    """One market's best levels, as the wire writes them; empty texts where a side is empty."""

    market: str
    bid_price: str = ""
    bid_quantity: str = ""
    ask_price: str = ""
    ask_quantity: str = ""
    is_stale: bool = False


@dataclass(frozen=True)
class View:
    """Everything a screen shows, at one moment. None: not known."""

    address: str  # host:port
    source: str
    data: str
    is_simulation: bool
    is_recording: bool
    state: str
    hint: tuple[str, ...] = ()  # lines for the user
    height: int | None = None
    block_time_ns: int = 0
    lag_ms: float | None = None  # from the block's time until it was applied
    seconds_since_block: float | None = None
    blocks_per_second: float = 0.0
    events_per_second: float = 0.0
    messages_per_second: float = 0.0
    clients: int = 0
    gateways_up: int = 0
    gateways: int = 0
    restarts: int = 0
    market_count: int = 0
    stale_count: int = 0
    stale_names: tuple[str, ...] = ()
    quotes: tuple[Quote, ...] = ()
    uptime_seconds: float = 0.0


class Watcher:
    """Looks at what a supervisor's children have published."""

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        address: str,
        source: str,
        data: str,
        is_recording: bool,
        hint: tuple[str, ...] = (),
    ):
        self._supervisor = supervisor
        self._facts: dict[str, Any] = {
            "address": address,
            "source": source,
            "hint": hint,
            "data": data,
            "is_recording": is_recording,
        }
        self._attached: dict[str, tuple[list[int], Any]] = {}  # what came with which descriptors
        self._samples: deque[tuple[float, int, int, int]] = deque()
        self._started = time.monotonic()

    def look(self) -> View:
        supervisor = self._supervisor
        world = self._attach(supervisor.engine, "world")
        counters = [self._counters(gateway, "gateway") for gateway in supervisor.gateways]
        seen = self._read_world(world) if world is not None else {}
        blocks = self._counters(supervisor.engine, "stats").get(BLOCKS, 0)  # heights may jump
        messages = sum(each.get(MESSAGES, 0) for each in counters)
        rates: dict[str, Any] = self._rates(blocks, seen.pop("events", 0), messages)
        return View(
            **self._facts,
            is_simulation=supervisor.simulation is not None,
            state=self._state(world, seen.pop("feed", codes.Feed.WAITING)),
            clients=sum(each.get(CLIENTS, 0) for each in counters),
            gateways_up=sum(gateway.is_ready for gateway in supervisor.gateways),
            gateways=len(supervisor.gateways),
            restarts=sum(max(0, role.starts - 1) for role in supervisor.roles),
            uptime_seconds=time.monotonic() - self._started,
            **rates,
            **seen,
        )

    def _attach(self, role: Role, kind: str) -> Any:
        """Map what `role` handed over with its message `kind`, once; None if there is nothing, or nothing
        readable.
        """
        fds = role.fds.get(kind)
        key = f"{role.name} {kind}"
        if fds is None:
            self._attached.pop(key, None)
            return None
        known = self._attached.get(key)
        if known is None or known[0] is not fds:
            own = os.dup(fds[0])  # a region owns its descriptor; those are the supervisor's
            try:
                attached = region.attach(own, layout.WORLD) if kind == "world" else stats.attach(own)
            except (region.Refused, OSError):
                os.close(own)
                attached = None
            self._attached[key] = known = (fds, attached)
        return known[1]

    def _counters(self, role: Role, kind: str) -> dict[str, int]:
        attached = self._attach(role, kind)
        return stats.read(attached)["counters"] if attached is not None else {}

    def _state(self, world: Any, feed: int) -> str:
        if self._supervisor.is_stopping.is_set():
            return "STOPPING"
        if self._supervisor.halted:
            return f"HALTED: {self._supervisor.halted}"
        if world is None:
            return "STARTING"
        if self._supervisor.engine.child is None:
            return "ENGINE DOWN: starting it again; the books are old"
        if world.heartbeat_age_ns(time.monotonic_ns()) > DEAD_NS:
            return "ENGINE BUSY OR STUCK: the books are old"
        if self._supervisor.journaler is not None and self._supervisor.journaler.child is None:
            return "JOURNALER DOWN: starting it again; nothing is answered"
        return _STATES.get(codes.Feed(feed), "LIVE")

    def _read_world(self, world: Any) -> dict[str, Any]:
        status, markets = world.arrays["status"][0], world.arrays["markets"]
        count, height = int(status["market_count"]), int(status["height"])
        stale = [row for row in markets["stale"][:count].nonzero()[0].tolist()]
        quotes = (quote(world.arrays, row) for row in range(count))
        shown = [found for found in quotes if found.bid_price or found.ask_price or count <= ROWS_MAX][
            :ROWS_MAX
        ]
        block_ns, applied_ns = int(status["time_ns"]), int(status["applied_ns"])
        return {
            "feed": int(status["state"]),
            "events": int(world.arrays["event_ring"][0]["tail"]),
            "height": height or None,
            "block_time_ns": block_ns,
            "lag_ms": (applied_ns - block_ns) / 1e6 if block_ns and not self._facts["is_recording"] else None,
            "seconds_since_block": (time.time_ns() - applied_ns) / 1e9 if applied_ns else None,
            "market_count": count,
            "stale_count": len(stale),
            "stale_names": tuple(market_name(markets[row]) for row in stale[:NAMED_STALE_MAX]),
            "quotes": tuple(shown),
        }

    def _rates(self, blocks: int, events: int, messages: int) -> dict[str, float]:
        """Per second, over the last RATE_SECONDS. A counter that went back began anew: it counts from
        there.
        """
        now, figures = time.monotonic(), (blocks, events, messages)
        if self._samples and any(new < old for new, old in zip(figures, self._samples[-1][1:], strict=True)):
            self._samples.clear()
        self._samples.append((now, *figures))
        while now - self._samples[0][0] > RATE_SECONDS and len(self._samples) > 2:
            self._samples.popleft()
        then, *old = self._samples[0]
        spent = max(now - then, 1e-3)
        applied, told, sent = (max(0, new - was) / spent for new, was in zip(figures, old, strict=True))
        return {"blocks_per_second": applied, "events_per_second": told, "messages_per_second": sent}


def market_name(market: Any) -> str:
    return log.printable(bytes(market["name"]).rstrip(b"\0").decode("ascii", "replace"))


def quote(arrays: dict[str, Any], row: int) -> Quote:
    """Read the touch of market `row` from its newest whole publication."""
    market = arrays["markets"][row]
    name, is_stale = market_name(market), bool(market["stale"])
    for _ in range(constants.READ_TRIES):
        latest = int(arrays["book_heads"][row]["latest"])
        if latest == 0:
            break
        book = arrays["books"][constants.BOOK_SLOTS * row + (latest - 1) % constants.BOOK_SLOTS]
        sequence = int(book["sequence"])
        sides = [(int(book[f"{side}_count"]), book[f"{side}s"][0].copy()) for side in ("bid", "ask")]
        if sequence % 2 == 0 and int(book["sequence"]) == sequence:
            places = int(market["price_places"]), int(market["quantity_places"])
            bid, ask = (_level_texts(count, level, *places) for count, level in sides)
            return Quote(name, *bid, *ask, is_stale)
    return Quote(name, is_stale=is_stale)


def _level_texts(count: int, level: Any, price_places: int, quantity_places: int) -> tuple[str, str]:
    if count == 0:
        return "", ""
    return (
        units.format_decimal(int(level["price"]), price_places),
        units.format_decimal(int(level["quantity"]), quantity_places),
    )


# --- text ---------------------------------------------------------------------------------------------------


def render(view: View, recent: Sequence[str], columns: int, rows: int) -> list[str]:
    """Lay a view out on `columns` x `rows` characters, without control sequences."""
    head = [
        f"ringside  http://{view.address}/info  ws://{view.address}/ws",
        *_banner(view),
        view.source,
        "",
        "  ".join([view.state, *_clock(view)]),
        _rates_text(view),
        *([f"STALE: {_stale_text(view)}"] if view.stale_count else []),
        *(["", *view.hint] if view.hint else []),
        "",
    ]
    table = _table(view.quotes)
    spare = rows - 1 - len(head) - 2 - min(len(table), TABLE_ROWS_MIN)
    told = [*recent][max(len(recent) - max(spare, 0), 0) :]  # the newest, where there is no room for more
    foot = ["", *told, f"up {_duration(view.uptime_seconds)}   restarts {view.restarts}   ^C ends it"]
    room = max(rows - 1 - len(head) - len(foot), 0)
    if len(table) > room:
        table = [*table[: max(room - 1, 0)], f"… and {view.market_count - max(room - 2, 0)} more markets"][
            :room
        ]
    return [text[: max(columns - 1, 1)] for text in [*head, *table, *foot][: max(rows - 1, 1)]]


def line(view: View) -> str:
    """The same on one line, for a file or a pipe."""
    parts = [
        f"http://{view.address}",
        *(["SIMULATION"] if view.is_simulation else []),
        view.state,
        *_clock(view),
    ]
    best = next((q for q in view.quotes if q.bid_price and q.ask_price), None)
    quoted = [f"{best.market} {best.bid_price} / {best.ask_price}"] if best else []
    stale = [f"stale: {_stale_text(view)}"] if view.stale_count else []
    return "  ".join([*parts, *quoted, _rates_text(view), *stale])


def _banner(view: View) -> list[str]:
    if not view.is_simulation:
        return []
    return [
        "SIMULATION: invented orders of invented traders. This is no market, and its prices mean nothing."
    ]


def _clock(view: View) -> list[str]:
    if view.height is None:
        return []
    seconds, rest = divmod(view.block_time_ns, 10**9)
    form = "%Y-%m-%d %H:%M:%S" if view.is_recording else "%H:%M:%S"
    parts = [f"height {view.height}"]
    if view.block_time_ns:  # a snapshot has a height, and no time
        parts.append(f"block time {time.strftime(form, time.gmtime(seconds))}.{rest // 10**6:03d} UTC")
    if view.lag_ms is not None:
        parts.append(f"lag {view.lag_ms:.0f} ms")
    if (silence := view.seconds_since_block) is not None and silence > 1 and not view.is_recording:
        parts.append(f"last block {_duration(silence)} ago")
    return parts


def _rates_text(view: View) -> str:
    return (
        f"{view.blocks_per_second:,.1f} blocks/s   {view.events_per_second:,.0f} events/s   "
        f"{view.messages_per_second:,.0f} messages/s   {view.clients} clients   "
        f"gateways {view.gateways_up}/{view.gateways}   markets {view.market_count}"
    )


def _stale_text(view: View) -> str:
    hidden = view.stale_count - len(view.stale_names)
    return ", ".join([*view.stale_names, *([f"{hidden} more"] if hidden else [])])


def _table(quotes: Sequence[Quote]) -> list[str]:
    if not quotes:
        return []
    rows = [
        (q.market, q.bid_quantity, q.bid_price, q.ask_price, q.ask_quantity, "stale" if q.is_stale else "")
        for q in quotes
    ]
    titles = ("market", "bid size", "bid", "ask", "ask size", "")
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 5)), row[5]]).rstrip()
        for row in [titles, *rows]
    ]


def _duration(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


# --- output -------------------------------------------------------------------------------------------------

_HIDE_CURSOR, _SHOW_CURSOR, _CLEAR, _HOME, _TO_LINE_END, _DOWN = (
    "\x1b[?25l", "\x1b[?25h", "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J",
)  # fmt: skip


class Screen:
    """Puts views on `out`: redrawn in place on a terminal; elsewhere one line at each change and each
    LINE_SECONDS.
    """

    def __init__(self, out: TextIO):
        self._out = out
        self.is_terminal = out.isatty()
        self._size: tuple[int, int] | None = None
        self._told: tuple[Any, ...] | None = None
        self._told_at = 0.0

    def show(self, view: View, recent: Sequence[str], now_seconds: float) -> None:
        if not self.is_terminal:
            key = (view.state, view.gateways_up, view.stale_names, view.height is None)
            if key != self._told or now_seconds - self._told_at >= LINE_SECONDS:
                hint = view.hint if self._told is None else ()
                self._told, self._told_at = key, now_seconds
                log.say(self._out, "\n".join([line(view), *hint]) + "\n")
            return
        size = shutil.get_terminal_size()
        start = _HOME if size == self._size else _HIDE_CURSOR + _CLEAR + _HOME
        self._size = (size.columns, size.lines)
        text = "".join(f"{row}{_TO_LINE_END}\r\n" for row in render(view, recent, size.columns, size.lines))
        log.say(self._out, start + text + _DOWN)

    def close(self) -> None:
        """Give the terminal back: the last picture stays, and the cursor is below it."""
        if self.is_terminal:
            log.say(self._out, _SHOW_CURSOR)
