"""The simulated node writes what a node writes, and its snapshot is what its own logs add up to."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scripts import simulated_log
from scripts.simulated_market import HIP2, SPECS, STATUSES
from scripts.simulated_node import FIRST_TIME_NS, SimulatedNode, fresh_height, serve_info
from tests import recorded, reference_book
from tests.reference_book import ReferenceBook, followed

HOUR_NS = 3_600_000_000_000
STREAMS = reference_book.STREAMS


def run(folder, blocks, **choices):
    node = SimulatedNode(folder, **choices)
    for _ in range(blocks):
        node.step()
    return node


def empty(node):
    return [node.height, [[coin, [[], []]] for coin in node.markets]]


def events(folder, stream, form="by_block"):
    return [
        event
        for line in reference_book.read_lines(folder, stream, form)
        for event in json.loads(line)["events"]
    ]


def key_orders(value):
    """The key order of every object in a value, by its place: what a specialised parser relies on."""
    if isinstance(value, dict):
        yield "", tuple(value)
        for key, inner in value.items():
            yield from ((f".{key}{place}", keys) for place, keys in key_orders(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from ((f"[]{place}", keys) for place, keys in key_orders(inner))


def shapes(root, stream, form):
    found = set()
    for line in reference_book.read_lines(root, stream, form):
        found |= set(key_orders(json.loads(line)))
    return found


@pytest.mark.parametrize("form", simulated_log.FORMS)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_logs_add_up_to_the_snapshot(tmp_path, form, seed):
    node = SimulatedNode(tmp_path, seed=seed, form=form, rate=60, depth=60)
    start = empty(node)
    for _ in range(250):
        node.step()
    book, snapshot = followed(start, tmp_path, form), node.snapshot(triggers=True)
    if form == "by_block":
        assert book.height == node.height  # streaming logs are silent about a last block without events
    for coin, sides in snapshot[1]:
        for mine, side in zip(book.book(coin), sides, strict=True):
            resting = [[user, order] for user, order in side if not order["isTrigger"]]
            assert [(order["user"], order["oid"], order["limitPx"], order["sz"]) for order in mine] == [
                (user, order["oid"], order["limitPx"], order["sz"]) for user, order in resting
            ]
            for order, (user, theirs) in zip(mine, resting, strict=True):
                assert user == HIP2 or order == {"user": user, **theirs} | {"children": order["children"]}
    waiting = {
        order["oid"] for _, sides in snapshot[1] for side in sides for _, order in side if order["isTrigger"]
    }
    assert set(book.triggers) == waiting != set()


def test_a_snapshot_between_blocks_joins_the_log(tmp_path):
    node = run(tmp_path, 40, depth=40)
    node.write_snapshot(tmp_path / "snapshot.json", triggers=True)
    middle = json.loads((tmp_path / "snapshot.json").read_bytes())
    assert middle[0] == node.height
    for _ in range(40):
        node.step()
    book, end = followed(middle, tmp_path, "by_block"), ReferenceBook()
    end.load(node.snapshot(triggers=True))
    assert book.orders.keys() == end.orders.keys()
    assert all(book.levels(coin) == end.levels(coin) for coin in node.markets)


def test_both_forms_tell_the_same_events_in_the_same_order(tmp_path):
    for form in simulated_log.FORMS:
        run(tmp_path / form, 60, form=form, depth=40, seed=3)
    for stream in STREAMS:
        batch, stream_events = (events(tmp_path / form, stream, form) for form in simulated_log.FORMS)
        assert batch == stream_events != []


def test_a_seed_names_one_log(tmp_path):
    logs = []
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        run(tmp_path / name, 20, seed=seed, depth=20)
        logs.append(
            [list(reference_book.read_lines(tmp_path / name, stream, "by_block")) for stream in STREAMS]
        )
    assert logs[0] == logs[1] != logs[2]


def test_every_block_has_a_line_in_every_file(tmp_path):
    node = run(tmp_path, 30, rate=1, depth=5, coins=["BTC"])
    for stream in STREAMS:
        lines = [json.loads(line) for line in reference_book.read_lines(tmp_path, stream, "by_block")]
        assert [line["block_number"] for line in lines] == list(range(node.height - 29, node.height + 1))
    assert any(not line["events"] for line in lines)


def test_lines_have_the_shape_of_captured_lines(tmp_path):
    run(tmp_path / "simulated", 400, rate=60, depth=60)
    captured = recorded.extract(tmp_path, "by_block")
    for stream in STREAMS:
        ours, theirs = (
            shapes(tmp_path / "simulated", stream, "by_block"),
            shapes(captured, stream, "by_block"),
        )
        assert theirs <= ours, stream
        unknown = {keys for _, keys in ours - theirs if "builder" not in keys}  # seen in another capture
        assert not unknown, stream


def test_text_is_that_of_captured_lines(tmp_path):
    """Compact JSON, one line each, decimals in their shortest form with `.0`, times with nine digits."""
    run(tmp_path, 60, depth=60)
    decimal = re.compile(r"-?(0|[1-9]\d*)\.(0|\d*[1-9])")
    time = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}")
    for stream in STREAMS:
        for line in reference_book.read_lines(tmp_path, stream, "by_block"):
            record = json.loads(line)
            assert json.dumps(record, separators=(",", ":")).encode() + b"\n" == line
            assert time.fullmatch(record["local_time"]) and time.fullmatch(record["block_time"])
    for status in events(tmp_path, "order_statuses"):
        order = status["order"]
        assert all(decimal.fullmatch(order[key]) for key in ("limitPx", "sz", "triggerPx", "origSz")), order
    for _, fill in events(tmp_path, "fills"):
        numbers = ("px", "sz", "startPosition", "closedPnl", "fee")
        assert all(decimal.fullmatch(fill[key]) for key in numbers), fill


def test_the_flow_has_every_kind_that_a_follower_must_know(tmp_path):
    run(tmp_path, 1_500, rate=24, depth=60)
    statuses = Counter(event["status"] for event in events(tmp_path, "order_statuses"))
    common = statuses["badAloPxRejected"]
    assert common == max(statuses.values())
    wanted = "open canceled filled triggered badAloPxRejected iocCancelRejected perpMarginRejected"
    rarer = "selfTradeCanceled minTradeNtlRejected reduceOnlyCanceled"
    assert set(wanted.split() + rarer.split()) <= statuses.keys()
    diffs = events(tmp_path, "raw_book_diffs")
    kinds = Counter(
        d["raw_book_diff"] if isinstance(d["raw_book_diff"], str) else [*d["raw_book_diff"]][0] for d in diffs
    )
    assert kinds.keys() == {"new", "update", "remove"}
    assert any(diff["user"] == HIP2 for diff in diffs)
    assert not any(event["user"] == HIP2 for event in events(tmp_path, "order_statuses"))
    opened = {event["order"]["oid"] for event in events(tmp_path, "order_statuses")}
    assert all(diff["oid"] in opened or diff["user"] == HIP2 for diff in diffs)
    assert any(event["order"]["children"] for event in events(tmp_path, "order_statuses"))
    fills = events(tmp_path, "fills")
    assert any(fill["dir"] == "Spot Dust Conversion" for _, fill in fills)
    assert Counter(Counter(fill["tid"] for _, fill in fills if fill["tid"]).values()).keys() == {2}


def test_books_stay_bounded_and_uncrossed(tmp_path):
    node = run(tmp_path, 1_000, depth=80, rate=40)
    for coin, market in node.markets.items():
        assert 20 < len(market.orders) < 160, coin
        assert market.best("B") < market.best("A"), coin


def test_a_modify_keeps_its_client_order_id(tmp_path):
    run(tmp_path, 200, depth=60)
    ended, renewed = set(), 0
    for event in events(tmp_path, "order_statuses"):
        key = event["user"], event["order"]["cloid"]
        if event["status"] == "canceled":
            ended.add(key)
        elif event["status"] == "open" and key[1] and key in ended:
            renewed += 1
    assert renewed > 0


def test_hours_rotate_and_old_ones_go(tmp_path):
    clock = iter(range(FIRST_TIME_NS, FIRST_TIME_NS + 6 * HOUR_NS, HOUR_NS // 40))
    node = SimulatedNode(tmp_path, depth=5, clock=lambda: next(clock))
    for _ in range(50):  # four looks at the clock a block: an hour is ten blocks
        node.step()
    for stream in STREAMS:
        hours = sorted(
            int(path.name) for path in (tmp_path / f"node_{stream}_by_block/hourly/20260101").iterdir()
        )
        assert hours[-1] == 4 and hours == [2, 3, 4]
    assert len(list(reference_book.read_blocks(tmp_path, "by_block"))) < 50


def test_files_of_the_day_before_go_with_their_folder(tmp_path):
    now = datetime(2026, 1, 2, 3, 30, tzinfo=UTC)
    for name in ("20260101/23", "20260102/0", "20260102/1", "20260102/3", "notes/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    simulated_log.prune(tmp_path, int(now.timestamp()) * 1_000_000_000)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "20260102", "20260102/1", "20260102/3", "notes", "notes/1",
    ]  # fmt: skip


def test_a_second_run_goes_on_above_the_first(tmp_path):
    first = run(tmp_path, 10, depth=20)
    first.close()
    path = next((tmp_path / "node_fills_by_block").glob("hourly/*/*"))
    with path.open("ab") as file:
        file.write(b'{"local_time":"2026-01')  # killed in the middle of a line
    second = run(tmp_path, 10, depth=20)
    assert second.height - 10 > first.height
    heights, broken = [], 0
    for line in reference_book.read_lines(tmp_path, "fills", "by_block"):
        try:
            heights.append(json.loads(line)["block_number"])
        except ValueError:
            broken += 1
    assert (len(heights), broken) == (20, 1)
    assert heights == sorted(set(heights))
    runs = [set(), set()]
    for stream in STREAMS[:1]:
        for line in reference_book.read_lines(tmp_path, stream, "by_block"):
            record = json.loads(line)
            oids = {event["order"]["oid"] for event in record["events"]}
            runs[record["block_number"] > first.height] |= oids
    assert runs[0] and runs[1] and not runs[0] & runs[1]


def test_a_directory_of_real_logs_is_refused(tmp_path):
    folder = tmp_path / "node_fills_by_block" / "hourly"
    folder.mkdir(parents=True)
    with pytest.raises(simulated_log.ForeignDirectory):
        SimulatedNode(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["node_fills_by_block"]


def test_a_fresh_height_is_above_any_earlier_one():
    later = FIRST_TIME_NS + 10 * HOUR_NS
    assert fresh_height(later) - fresh_height(FIRST_TIME_NS) >= 10 * HOUR_NS // 70_000_000


@pytest.fixture
def served(tmp_path):
    node = run(tmp_path / "out", 30, depth=30)
    server = serve_info(node, 0)
    yield node, f"http://127.0.0.1:{server.server_port}/info"
    server.shutdown()
    server.server_close()


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        assert reply.headers["Content-Type"] == "application/json"
        return json.loads(reply.read())


def test_file_snapshot_honours_its_options(served, tmp_path):
    node, url = served
    path = tmp_path / "l4.json"

    def ask(height, **options):
        request = {"type": "l4Snapshots", "includeUsers": True, "includeTriggerOrders": False} | options
        body = {
            "type": "fileSnapshot",
            "request": request,
            "outPath": str(path),
            "includeHeightInOutput": height,
        }
        assert post(url, body) is None
        return json.loads(path.read_bytes())

    assert ask(True) == node.snapshot()
    assert ask(False) == node.snapshot()[1]
    assert ask(True, includeTriggerOrders=True) == node.snapshot(triggers=True) != node.snapshot()
    assert ask(True, includeUsers=False) == node.snapshot(users=False)
    assert set(ask(False, includeUsers=False)[0][1][0][0]) >= {"oid", "limitPx"}
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["l4.json"]


def test_info_answers_what_clients_ask_at_start(served):
    node, url = served
    meta, spot = post(url, {"type": "meta"}), post(url, {"type": "spotMeta"})
    names = [asset["name"] for asset in meta["universe"]] + [pair["name"] for pair in spot["universe"]]
    assert names == list(SPECS) == list(node.markets)
    assert {index for pair in spot["universe"] for index in pair["tokens"]} <= {
        t["index"] for t in spot["tokens"]
    }
    assert post(url, {"type": "exchangeStatus"})["time"] == node.time_ns // 1_000_000
    assert post(url, {"type": "perpDexs"}) == [None]


@pytest.mark.parametrize(
    "body", [{"type": "l2Book", "coin": "BTC"}, {}, [], 7, {"type": "fileSnapshot"}, {"type": []}]
)
def test_other_requests_are_refused(served, body):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        post(served[1], body)
    assert refusal.value.code == 422


def test_a_snapshot_that_cannot_be_written_is_told(served, tmp_path):
    request = {"type": "l4Snapshots"}
    with pytest.raises(urllib.error.HTTPError) as refusal:
        post(served[1], {"type": "fileSnapshot", "request": request, "outPath": str(tmp_path / "no" / "x")})
    assert refusal.value.code == 500


@pytest.mark.parametrize("form", simulated_log.FORMS)
def test_the_program_ends_at_a_block_end(tmp_path, form):
    command = [sys.executable, "-m", "scripts.simulated_node", "--out", str(tmp_path), "--form", form]
    options = ["--block-ms", "1", "--depth", "30", "--info-port", "0"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=environment,
    ) as program:
        line = program.stdout.readline()
        assert "SIMULATED" in line
        url = re.search(r"http://\S+", line).group()
        while post(url, {"type": "exchangeStatus"})["time"] == FIRST_TIME_NS // 1_000_000:
            pass
        program.send_signal(signal.SIGTERM)
        rest = program.stdout.read()
    assert program.returncode == 0
    height = int(re.search(r"after block (\d+)", rest).group(1))
    last = 0
    for stream in STREAMS:
        lines = list(reference_book.read_lines(tmp_path, stream, form))
        assert all(line.endswith(b"\n") for line in lines)
        last = max([last, *(json.loads(line)["block_number"] for line in lines[-1:])])
        if form == "by_block":
            assert json.loads(lines[-1])["block_number"] == height
    assert 0 < last <= height


def test_statuses_are_the_first_stream():
    assert simulated_log.STREAMS[STATUSES] == "node_order_statuses"
