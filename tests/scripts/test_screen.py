"""What is shown is what is in the regions, in plain words, within the terminal's size."""

import dataclasses
import io
import types

import numpy as np
import pytest

from scripts import screen
from scripts.screen import Quote, Screen, View
from shm import codes, constants, layout, units

LIVE = View(
    address="127.0.0.1:3001",
    source="/node",
    data="/d",
    is_simulation=False,
    is_recording=False,
    state="LIVE",
    height=985_148_232,
    block_time_ns=1_778_002_756_400_123_456,
    lag_ms=12.4,
    seconds_since_block=0.1,
    market_count=2,
    gateways=2,
    gateways_up=1,
    quotes=(Quote("BTC", "80812.0", "0.5", "80813.0", "1.2"), Quote("ETH", is_stale=True)),
    stale_count=1,
    stale_names=("ETH",),
)


def test_everything_that_matters_is_on_the_screen():
    text = "\n".join(screen.render(LIVE, ["12:00:00 engine: hello"], 120, 40))
    for part in ("http://127.0.0.1:3001/info", "ws://127.0.0.1:3001/ws", "LIVE"):
        assert part in text
    for part in ("height 985148232", "lag 12 ms"):
        assert part in text
    for part in ("17:39:16.400 UTC", "gateways 1/2", "STALE: ETH", "80812.0", "80813.0", "engine: hello"):
        assert part in text
    assert "SIMULATION" not in text


def test_a_simulation_says_so_wherever_it_is_shown():
    view = dataclasses.replace(LIVE, is_simulation=True)
    assert "SIMULATION" in "\n".join(screen.render(view, [], 80, 24))
    assert "SIMULATION" in screen.line(view)


def test_what_the_user_may_do_is_shown_and_printed_once_where_nothing_is_redrawn():
    view = dataclasses.replace(LIVE, hint=("paste this:", "import exchange"))
    shown = screen.render(view, [], 80, 24)
    assert shown.index("import exchange") == shown.index("paste this:") + 1
    out = io.StringIO()
    plain = Screen(out)
    for second in (0.0, 100.0, 200.0):
        plain.show(view, [], second)
    assert out.getvalue().count("paste this:\nimport exchange\n") == 1
    assert out.getvalue().count("LIVE") == 3


def test_on_a_small_terminal_the_best_markets_are_worth_more_than_old_news():
    quotes = tuple(Quote(f"COIN{i}", "1.0", "1.0", "2.0", "1.0") for i in range(12))
    view = dataclasses.replace(LIVE, quotes=quotes, market_count=12, hint=tuple("abcde"))
    shown = screen.render(view, [f"told {i}" for i in range(6)], 80, 24)
    assert sum("COIN" in row for row in shown) == screen.TABLE_ROWS_MIN - 2
    assert [row for row in shown if row.startswith("told")] == ["told 4", "told 5"]
    assert len(shown) == 23


def test_a_recording_shows_its_date_and_no_lag():
    view = dataclasses.replace(LIVE, is_recording=True, lag_ms=None, seconds_since_block=99)
    assert "2026-05-05 17:39:16.400 UTC" in screen.line(view)
    assert "lag" not in screen.line(view) and "ago" not in screen.line(view)


@pytest.mark.parametrize("columns, rows", [(80, 24), (20, 5), (1, 1), (300, 100)])
def test_the_screen_fits_the_terminal(columns, rows):
    quotes = tuple(Quote(f"COIN{i}", "1.0", "1.0", "2.0", "1.0") for i in range(24))
    view = dataclasses.replace(LIVE, quotes=quotes, market_count=600)
    lines = screen.render(view, ["x" * 500] * 6, columns, rows)
    assert len(lines) < max(rows, 2) and max(map(len, lines)) <= max(columns - 1, 1)
    if rows == 24:
        assert any("more markets" in line for line in lines)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_is_redrawn_in_place_and_given_back():
    out = Terminal()
    shown = Screen(out)
    shown.show(LIVE, [], 0.0)
    first = len(out.getvalue())
    shown.show(LIVE, [], 0.5)
    shown.close()
    assert out.getvalue().count("\x1b[2J") == 1, "cleared once, then redrawn"
    assert out.getvalue()[first:].startswith("\x1b[H") and out.getvalue().endswith("\x1b[?25h")


def test_elsewhere_there_is_a_line_at_each_change_and_each_ten_seconds():
    out = io.StringIO()
    shown = Screen(out)
    up = dataclasses.replace(LIVE, gateways_up=2)
    for view, now in [(LIVE, 0), (LIVE, 1), (up, 2), (up, 11), (up, 12), (up, 13)]:
        shown.show(view, [], now)
    shown.close()
    assert len(out.getvalue().splitlines()) == 3 and "\x1b" not in out.getvalue()


# --- reading the world
# ------------------------------------------------------------------------------------------


@pytest.fixture
def world():
    """A world by hand: BTC quoted, ETH with bids alone and stale, SOL never published."""
    counts = {"status": 1, "markets": 4, "book_heads": 4, "books": 4 * constants.BOOK_SLOTS, "event_ring": 1}
    arrays = {name: np.zeros(count, layout.WORLD[name]) for name, count in counts.items()}
    for row, name in enumerate((b"BTC", b"ETH", b"SOL")):
        arrays["markets"]["name"][row, : len(name)] = list(name)
        arrays["markets"]["price_places"][row] = arrays["markets"]["quantity_places"][row] = constants.PLACES
    arrays["markets"]["stale"][1] = codes.Stale.GAP
    publish(arrays, 0, bid="80812.0", ask="80813.5")
    publish(arrays, 1, bid="3000.25")
    status = arrays["status"][0]
    status["market_count"], status["height"], status["state"] = 3, 100, codes.Feed.LIVE
    status["time_ns"], status["applied_ns"] = 1_000_000_000, 1_025_000_000
    arrays["event_ring"][0]["tail"] = 500
    return arrays


def publish(arrays, row, bid=None, ask=None):
    latest = int(arrays["book_heads"]["latest"][row]) + 1
    book = arrays["books"][constants.BOOK_SLOTS * row + (latest - 1) % constants.BOOK_SLOTS]
    for side, price in (("bid", bid), ("ask", ask)):
        book[f"{side}_count"] = int(price is not None)
        if price is not None:
            book[f"{side}s"][0] = (units.parse_decimal(price.encode(), constants.PLACES), 50_000_000, 3)
    book["sequence"] += 2
    arrays["book_heads"]["latest"][row] = latest


def test_the_newest_publication_is_quoted(world):
    assert screen.quote(world, 0) == Quote("BTC", "80812.0", "0.5", "80813.5", "0.5")
    publish(world, 0, bid="80811.0", ask="80813.5")
    assert screen.quote(world, 0).bid_price == "80811.0"
    assert screen.quote(world, 1) == Quote("ETH", "3000.25", "0.5", is_stale=True)
    assert screen.quote(world, 2) == Quote("SOL")


def test_a_book_that_is_being_written_is_not_quoted(world):
    world["books"]["sequence"][0] += 1
    assert screen.quote(world, 0) == Quote("BTC")


def watcher(arrays, age_ns=0):
    attached = types.SimpleNamespace(arrays=arrays, heartbeat_age_ns=lambda _: age_ns)
    role = types.SimpleNamespace(name="engine", fds={"world": [9]}, child=object(), starts=2, is_ready=True)
    gateway = types.SimpleNamespace(name="gateway 0", fds={}, child=object(), starts=1, is_ready=True)
    stopping = types.SimpleNamespace(is_set=lambda: False)
    supervisor = types.SimpleNamespace(
        engine=role,
        gateways=[gateway],
        roles=[role, gateway],
        simulation=None,
        is_stopping=stopping,
        journaler=None,
        halted="",
    )
    made = screen.Watcher(supervisor, address="a", source="s", data="d", is_recording=False)
    made._attached["engine world"] = (role.fds["world"], attached)
    made._counters = lambda role, kind: made.counters[kind]
    made.counters = {"stats": {"blocks": 5}, "gateway": {"connections": 3, "messages_sent": 7}}
    return made


def test_a_view_is_what_the_world_says(world):
    view = watcher(world).look()
    assert (view.state, view.height, view.lag_ms, view.market_count) == ("LIVE", 100, 25.0, 3)
    assert (view.stale_count, view.stale_names, view.gateways_up, view.restarts) == (1, ("ETH",), 1, 1)
    assert [quote.market for quote in view.quotes] == ["BTC", "ETH", "SOL"]


def test_a_snapshot_alone_has_a_height_and_no_time(world):
    world["status"]["time_ns"] = world["status"]["applied_ns"] = 0
    text = screen.line(watcher(world).look())
    assert "height 100" in text and not any(word in text for word in ("block time", "lag", "ago"))


def test_a_silent_engine_is_not_called_live(world):
    assert "ENGINE" in watcher(world, age_ns=screen.DEAD_NS + 1).look().state
    world["status"]["state"] = codes.Feed.SILENT
    assert watcher(world).look().state.startswith("SILENT")


def test_rates_are_per_second_and_begin_anew_with_a_new_world(world, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    made = watcher(world)
    assert made.look().blocks_per_second == 0.0
    now[0] += 2
    world["status"]["height"] += 10_000  # a node that was away
    made.counters["stats"]["blocks"] += 30
    made.counters["gateway"]["messages_sent"] += 8
    world["event_ring"]["tail"] += 1_000
    view = made.look()
    assert (view.blocks_per_second, view.events_per_second) == (15.0, 500.0)
    assert (view.messages_per_second, view.clients) == (4.0, 3)
    now[0] += 1
    world["event_ring"]["tail"] = 0
    view = made.look()
    assert (view.blocks_per_second, view.events_per_second) == (0.0, 0.0)
