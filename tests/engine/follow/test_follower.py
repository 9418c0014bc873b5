"""The whole follower: the capture block by block in both forms, many markets against the reference, and
doubt, repair, silence, pace and restarts one by one.
"""

import json
import shutil
from random import Random

import numpy as np
import pytest

from scripts.simulated_node import SimulatedNode
from shm.codes import NAMES, EventKind, Feed, OrderState, Stale
from shm.units import format_decimal
from tests import recorded
from tests.engine import made
from tests.following import RECORDED, SMALL, Following, agree, books_of
from tests.reference_book import ReferenceBook, milliseconds, read_blocks

FORMS = ["by_block", "streaming"]
STREAMS = ("order_statuses", "raw_book_diffs", "fills")


# --- the capture ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    """Follow the capture once for each form, a block at a time, noting what there is at each block's end."""
    cache = {}

    def of(form):
        if form not in cache:
            folder = tmp_path_factory.mktemp(form)
            source, snapshot = recorded.extract(folder, form), recorded.snapshot_path(folder)
            cache[form] = _follow_blocks(folder, source, snapshot, form)
        return cache[form]

    return of


def _follow_blocks(folder, source, snapshot, form):
    """Write the log block by block; return (following, block time in ms -> best levels, told book)."""
    out = folder / "live"
    following = Following(out, snapshot, RECORDED)
    quotes, ring, told = {}, 0, made.NaiveBook()
    for height, streams in lines_by_block(source, form).items():
        for stream, lines in streams.items():
            append(out, form, stream, lines)
        following.poll(1)
        following.poll(22, 60_000_000)  # streaming: the end of the newest block is silence
        if not told.orders:
            told.orders = first_orders(snapshot, following)
        events = made.told(following.state, ring)
        ring += len(events)
        told.take(events)
        assert int(following.state.status[0]["height"]) == height, "a block is applied as soon as it is whole"
        quotes[int(following.state.status[0]["time_ns"]) // 1_000_000] = best(following.state, 0)
    return following, quotes, told


def lines_by_block(source, form):
    blocks: dict[int, dict[str, bytes]] = {}
    for stream in STREAMS:
        for path in (source / f"node_{stream}_{form}").glob("hourly/*/*"):
            for line in path.read_bytes().splitlines(keepends=True):
                height = int(line[: line.index(b',"events"')].rpartition(b":")[2])
                streams = blocks.setdefault(height, {})
                streams[stream] = streams.get(stream, b"") + line
    return dict(sorted(blocks.items()))


def append(out, form, stream, lines, name="20260505/17"):
    path = out / f"node_{stream}_{form}" / "hourly" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(lines)


def first_orders(snapshot, following):
    """The snapshot's orders as a naive book has them."""
    state = following.state
    loaded = [entry for coin in json.loads(snapshot.read_text())[1] for side in coin[1] for entry in side]
    assert int(state.status[0]["market_count"]) == 1 and loaded
    return [
        [order["oid"], 0, "BA".index(order["side"]), units(order["limitPx"]), units(order["sz"])]
        for _, order in loaded
        if not order["isTrigger"]
    ]


def units(text):
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(8, "0"))


def best(state, market):
    bids, asks = made.published(state, market)
    return tuple(
        part
        for price, quantity, count in (bids[0], asks[0])
        for part in (format_decimal(price, 8), format_decimal(quantity, 8), count)
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_quotes_of_the_capture(form, captured):
    """Best bid and ask (price, size, count) at the end of all 49 blocks that can be matched by their time."""
    following, quotes, _ = captured(form)
    expected = recorded.quotes()
    matchable = expected.keys() & quotes.keys()
    assert len(matchable) == 49
    assert {time: quotes[time] for time in matchable} == {time: expected[time] for time in matchable}


@pytest.mark.parametrize("form", FORMS)
def test_the_end_of_the_capture(form, captured):
    following, _, told = captured(form)
    state, heap = following.state, following.state.heap[0]
    assert state.status[0]["order_count"] == recorded.ORDERS_AT_END
    assert (heap["unknown"], heap["wrong"], heap["duplicates"], heap["synthetic"]) == (0, 0, 0, 0)
    assert (heap["trades"], heap["fills"], heap["unpaired_fills"]) == (11, 22, 0)
    assert following.stale() == {} and following.follower.counts["quarantined"] == 0
    assert int(state.history.rejected_ring[0]["tail"]) == 39_634 + 455 + 163 + 1
    assert int(state.history.closed_ring[0]["tail"]) == 667 + 9 + 1
    following.verify()
    mine = [entry for side in (0, 1) for entry in told.queue(0, side)]
    image = following.books()["BTC"]
    assert [(entry[0], entry[3], entry[4]) for entry in mine] == [
        (oid, units(price), units(size)) for oid, _, price, size, _, _ in image
    ], "who rebuilds the book from the ring's events has the same"
    levels = tuple(told.levels(0, side)[:100] for side in (0, 1))
    assert made.published(state, 0) == levels


def test_both_forms_tell_the_same(captured):
    books = [captured(form)[0].books() for form in FORMS]
    assert books[0] == books[1]
    statuses = [captured(form)[0].state.history.closed["order"].tolist() for form in FORMS]
    assert statuses[0] == statuses[1]


# --- many markets, against the reference ------------------------------------------------------------------


class Live:
    """A simulated node that goes on, its reference, and a follower of it."""

    def __init__(self, out, form="by_block", coins=None, capacity=SMALL, start=30, depth=25, **options):
        self.out, self.form = out, form
        self.node = SimulatedNode(out, seed=5, form=form, coins=coins, depth=depth)
        for _ in range(start):
            self.node.step()
        self.reference = ReferenceBook()
        self.reference.load(self.node.snapshot(triggers=True))
        self.snapshot()
        self.following = Following(out, out / "snapshot.json", capacity, **options)

    def snapshot(self):
        self.node.write_snapshot(self.out / "snapshot.json", triggers=True)

    def go_on(self, blocks=1):
        for _ in range(blocks):
            self.node.step()
            self.following.poll(3 if self.form == "by_block" else 14, 60_000_000)

    def is_right(self):
        truth, mine = books_of(self.node.snapshot()), self.following.books()
        return [coin for coin in truth if not agree(mine.get(coin, []), truth[coin])] == []

    def settle(self):
        self.following.settle()


@pytest.mark.parametrize("form", FORMS)
def test_all_markets_of_a_node_at_every_block(form, tmp_path):
    """Perps, spot, markets of silent makers: books, levels, waiting orders and trades are the reference's."""
    live = Live(tmp_path, form)
    following, reference = live.following, live.reference
    for _ in range(25):
        live.go_on()
        fresh = [block for block in read_blocks(tmp_path, form) if block["height"] > reference.height]
        for block in fresh:
            reference.apply(block)
        state = following.state
        if int(state.status[0]["height"]) != reference.height:
            assert form == "streaming", "a block is applied when it is whole"
            live.settle()
        following.verify()
        assert live.is_right() and following.stale() == {}
        for market in range(int(state.status[0]["market_count"])):
            coin = made_name(state, market)
            if state.work.book_heads[market]["latest"]:
                shown = [[(format_decimal(p, 8), format_decimal(q, 8), n) for p, q, n in side]
                         for side in made.published(state, market)]  # fmt: skip
                assert shown == reference.levels(coin, depth=100)
    waiting = state.orders[state.orders["state"] == OrderState.UNTRIGGERED]["order"]
    assert sorted(waiting.tolist()) == sorted(reference.triggers)
    trades = [entry["tid"] for entry in reference.trades]
    count = int(state.history.trade_ring[0]["tail"])
    assert state.history.trades["trade"][:count].tolist() == trades and count > 0
    assert len({coin for coin, _ in live.node.snapshot()[1]} & set(following.books())) > 5


def made_name(state, market):
    return bytes(state.markets[market]["name"]).rstrip(b"\0").decode()


@pytest.mark.parametrize("form", FORMS)
def test_one_byte_at_a_time(form, tmp_path):
    live = Live(tmp_path / "node", form, coins=["BTC"], depth=10)
    out = tmp_path / "bytes"
    out.mkdir()
    following = Following(out, live.out / "snapshot.json")
    for _ in range(2):
        live.node.step()
    blocks = lines_by_block(live.out, form)
    for height, streams in list(blocks.items())[-2:]:
        for stream, lines in streams.items():
            for at in range(len(lines)):
                append(out, form, stream, lines[at : at + 1])
                following.poll(1, 1000)
        assert int(following.state.status[0]["height"]) in (height, height - 1)
    following.settle()
    assert following.books() == books_of(live.node.snapshot()) and following.stale() == {}
    assert following.follower.counts["quarantined"] == 0


# --- beginning --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_without_a_snapshot_every_market_is_in_doubt(form, tmp_path):
    live = Live(tmp_path, form, coins=["BTC", "HYPE"])
    following = Following(tmp_path, None)
    live.node.step()
    following.settle()
    assert set(following.stale().values()) <= {Stale.NO_SNAPSHOT, Stale.UNKNOWN_ORDER, Stale.GAP}
    assert set(following.stale()) == set(following.books()) != set()
    assert following.follower.checkpoint() is None, "nothing here is worth going on from"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ahead", [0, 7])
def test_a_snapshot_in_the_middle_of_the_log_and_one_ahead_of_it(form, ahead, tmp_path):
    """What the snapshot knows already is not applied again, and is no late line."""
    live = Live(tmp_path, form, coins=["BTC", "HYPE"], start=80)
    if ahead:
        before = {path: path.stat().st_size for path in tmp_path.glob("node_*/hourly/*/*")}
        for _ in range(ahead):
            live.node.step()
        live.snapshot()
        rest = {path: path.read_bytes() for path in before}
        for path, size in before.items():
            path.write_bytes(rest[path][:size])
        live.following.poll(5)
        for path in before:
            path.write_bytes(rest[path])
        live.node = reopened(live.node)
    live.following.settle()
    assert live.following.stale() == {} and live.is_right()
    live.go_on(5)
    live.settle()
    assert live.following.stale() == {} and live.is_right()
    live.following.verify()


def reopened(node):
    """The node's files were written anew: let it open them again."""
    node.close()
    return node


def test_a_log_that_begins_after_the_snapshot_is_a_gap(tmp_path):
    live = Live(tmp_path / "node", coins=["BTC", "HYPE"])
    for _ in range(80):
        live.node.step()
    out = tmp_path / "cut"
    shutil.copytree(live.out, out)
    for stream in STREAMS:
        for path in (out / f"node_{stream}_by_block").glob("hourly/*/*"):
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(lines[33:]))
    following = Following(out, out / "snapshot.json")
    following.settle()
    assert following.stale() == {"BTC": Stale.GAP, "HYPE": Stale.GAP}
    assert following.follower.counts["skipped_blocks"] == 3
    assert int(following.state.status[0]["height"]) == live.node.height


def test_a_corrupt_snapshot_is_asked_for_again(tmp_path):
    live = Live(tmp_path, coins=["BTC"])
    (tmp_path / "snapshot.json").write_text("[1,[[nonsense")
    live.following.poll(20, 200_000_000)
    assert live.following.follower.feed(live.following.now_ns) == Feed.WAITING
    assert any(event == "snapshot_corrupt" for event, _ in live.following.logged)
    live.snapshot()
    live.following.poll(20, 200_000_000)
    live.go_on(3)
    assert live.is_right() and live.following.stale() == {}


# --- doubt and repair -------------------------------------------------------------------------------------


def drop_block(live, height, streams=STREAMS):
    """Take a block out of the files of some streams."""
    mark = f'"block_number":{height},'.encode()
    for stream in streams:
        for path in (live.out / f"node_{stream}_{live.form}").glob("hourly/*/*"):
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(line for line in lines if mark not in line))


@pytest.mark.parametrize("streams", [STREAMS, ("raw_book_diffs",), ("order_statuses",)])
def test_a_gap_doubts_until_a_later_snapshot_repairs(streams, tmp_path):
    live = Live(tmp_path, coins=["BTC", "HYPE"])
    for _ in range(10):
        live.node.step()
    drop_block(live, live.node.height - 4, streams)
    live.node.close()
    live.following.settle()
    assert live.following.stale() == {"BTC": Stale.GAP, "HYPE": Stale.GAP}
    epochs = live.following.state.markets["epoch"][:2].tolist()
    live.snapshot()
    live.following.settle()
    assert live.following.stale() == {} and live.is_right()
    assert live.following.state.markets["epoch"][:2].tolist() == [epoch + 1 for epoch in epochs]
    live.following.verify()


def test_lost_fills_are_no_doubt(tmp_path):
    live = Live(tmp_path, coins=["BTC"])
    for _ in range(10):
        live.node.step()
    drop_block(live, live.node.height - 4, ("fills",))
    live.following.settle()
    assert live.following.stale() == {} and live.is_right()
    assert live.following.follower.counts["missing_fills"] == 1


def test_a_snapshot_older_than_the_doubt_repairs_nothing(tmp_path):
    live = Live(tmp_path, coins=["BTC", "HYPE"])
    for _ in range(6):
        live.node.step()
    live.snapshot()
    text = (tmp_path / "snapshot.json").read_bytes()
    for _ in range(4):
        live.node.step()
    drop_block(live, live.node.height - 1)
    live.following.settle()
    assert len(live.following.stale()) == 2
    (tmp_path / "snapshot.json").write_bytes(text)
    live.following.settle()
    assert len(live.following.stale()) == 2


def test_an_order_that_went_wrong_in_memory_is_found_and_its_market_alone_repaired(tmp_path):
    live = Live(tmp_path, coins=["BTC", "HYPE", "PURR/USDC"], check_ns=1_000_000_000)
    live.go_on(5)
    live.settle()
    state = live.following.state
    live.node.step()
    live.snapshot()
    staying = [order[0] for order in books_of(live.node.snapshot())["HYPE"]]
    slot = int(np.flatnonzero((state.orders["state"] == 1) & np.isin(state.orders["order"], staying))[3])
    state.orders[slot]["account"] ^= 1
    ring = int(state.work.event_ring[0]["tail"])
    live.settle()
    events = made.told(state, ring)
    resets = events[events["kind"] == EventKind.RESET]
    assert resets["market"].tolist() == [1] and state.markets["epoch"][:3].tolist() == [0, 1, 0]
    assert live.is_right() and live.following.stale() == {}
    checked = [facts for event, facts in live.following.logged if event == "checked"]
    assert list(checked[-1]["repaired"]) == ["HYPE"]


def test_others_go_on_while_one_is_in_doubt(tmp_path):
    """An unknown order in HYPE: BTC's blocks are applied and BTC is fresh all along."""
    live = Live(tmp_path, coins=["BTC", "HYPE"])
    for path in tmp_path.glob("node_raw_book_diffs_by_block/hourly/*/*"):
        lines = path.read_bytes()
    live.node.step()
    [path] = tmp_path.glob("node_raw_book_diffs_by_block/hourly/*/*")
    text = path.read_bytes()
    event = b'{"user":"0x%s","oid":77,"coin":"HYPE","side":"B","px":"1.0","raw_book_diff":"remove"}' % (
        b"a" * 40
    )
    head, mark, tail = text[len(lines) :].partition(b'"events":[')
    path.write_bytes(lines + head + mark + event + (b"," if tail[:1] == b"{" else b"") + tail)
    live.following.settle()
    assert live.following.stale() == {"HYPE": Stale.UNKNOWN_ORDER} and live.is_right()


def test_a_line_nobody_can_read_doubts_its_market_until_a_snapshot_from_after_the_next_line(tmp_path):
    """Streaming. Of which block it was is known when a whole line follows; an older snapshot may lack it."""
    live = Live(tmp_path, "streaming", coins=["BTC", "HYPE"])
    live.go_on(3)
    live.settle()
    [path] = tmp_path.glob("node_raw_book_diffs_streaming/hourly/*/*")
    line = next(row for row in path.read_bytes().splitlines(keepends=True)[::-1] if b'"HYPE"' in row)
    bad = line.replace(b'"oid":', b'"oid":1.5e')
    append(tmp_path, "streaming", "raw_book_diffs", bad, f"{path.parent.name}/{path.name}")
    live.following.poll(3)
    assert live.following.stale() == {"HYPE": Stale.CORRUPT}
    live.snapshot()
    live.settle()
    assert live.following.stale() == {"HYPE": Stale.CORRUPT}, "of this height, but before the lost line's?"
    live.go_on(3)
    live.settle()
    live.snapshot()
    live.settle()
    assert live.following.stale() == {} and live.is_right()
    assert live.following.follower.counts["quarantined"] == 1


@pytest.mark.parametrize("table", ["orders", "levels", "markets", "accounts", "names"])
def test_a_full_table_doubts_or_leaves_out_but_never_ends(table, tmp_path):
    room = {"orders": 60, "levels": 96, "markets": 1, "accounts": 4, "names": len(NAMES) + 2}[table]
    live = Live(tmp_path, coins=["BTC", "HYPE"], capacity=SMALL._replace(**{table: room}))
    live.go_on(10)
    if live.following.follower.feed(live.following.now_ns) == Feed.WAITING:
        assert table == "markets", "a snapshot that has no room at all is waited for"
        return
    live.settle()
    books, truth = live.following.books(), books_of(live.node.snapshot())
    stale = live.following.stale()
    for coin, orders in truth.items():
        fine = agree([one[:5] + ("?",) for one in books.get(coin, [])], orders)
        if table == "accounts":
            fine = [one[:4] for one in books.get(coin, [])] == [one[:4] for one in orders]
        assert coin in stale or fine or coin not in books, f"{coin} is silently wrong"
    live.following.verify()


# --- silence, pace ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_silence_is_told_and_ends_nothing(form, tmp_path):
    live = Live(tmp_path, form, coins=["BTC"], silent_ns=2_000_000_000)
    following = live.following
    assert following.follower.feed(following.now_ns) == Feed.WAITING
    live.go_on(2)
    assert following.follower.feed(following.now_ns) == Feed.LIVE
    following.poll(500, 100_000_000)
    assert following.follower.feed(following.now_ns) == Feed.SILENT
    live.go_on(2)
    assert following.follower.feed(following.now_ns) == Feed.LIVE
    live.settle()
    assert live.is_right() and following.stale() == {}


def test_no_log_at_all_is_waited_for(tmp_path):
    following = Following(tmp_path / "nothing", None)
    following.poll(10, 1_000_000_000)
    assert following.follower.feed(following.now_ns) == Feed.WAITING


@pytest.mark.parametrize("speed", [1.0, 4.0, None])
def test_a_replay_keeps_the_pace_of_the_blocks(speed, tmp_path):
    """A block is applied when its time has come: never before, and at the next look after. Without a speed,
    at once.
    """
    live = Live(tmp_path, coins=["BTC"])
    for _ in range(20):
        live.node.step()
    following = Following(tmp_path, tmp_path / "snapshot.json", speed=speed)
    times = {block["height"]: block["time"] for block in read_blocks(tmp_path, "by_block")}
    first, reached = live.reference.height + 1, {}
    for tick in range(2500):  # of a millisecond each, by the clock that the follower is given
        following.poll(1, 1_000_000)
        for height in range(first, int(following.state.status[0]["height"]) + 1):
            reached.setdefault(height, tick)
    assert set(reached) == set(range(first, live.node.height + 1))
    for height, tick in reached.items():
        span = milliseconds(times[height]) - milliseconds(times[first])
        assert -2 <= tick - reached[first] - (span / speed if speed else 0) <= 3
    assert not following.follower.paced
    following.settle()
    ended = Feed.ENDED if speed else Feed.SILENT
    assert following.follower.feed(following.now_ns) == ended and following.stale() == {}


# --- restarts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_restarts_at_any_moment_go_on_exactly(form, seed, tmp_path):
    """Killed at random bytes, begun again from checkpoints of random ages: nothing twice, nothing missed."""
    random, node = Random(seed), Live(tmp_path / "node", form, coins=["BTC", "HYPE"])
    out = tmp_path / "killed"
    for _ in range(25):
        node.node.step()
    plain = Following(node.out, node.out / "snapshot.json")
    plain.settle()
    killed, first = Following(out, node.out / "snapshot.json"), node.reference.height
    for height, streams in lines_by_block(node.out, form).items():
        if height <= first:
            continue
        for stream in random.sample(sorted(streams), len(streams)):
            lines = streams[stream]
            cut = random.randrange(len(lines))
            for piece in (lines[:cut], lines[cut:]):
                append(out, form, stream, piece)
                killed.poll()
                if random.random() < 0.3:
                    killed.save()
                if random.random() < 0.2:
                    killed.restart()
    killed.settle()
    assert killed.stale() == {} == plain.stale()
    assert killed.books() == plain.books() == books_of(node.node.snapshot())
    assert int(killed.state.heap[0]["duplicates"]) == 0, "nothing was applied twice"
    waiting = [np.sort(one.state.orders["order"][one.state.orders["state"] == OrderState.UNTRIGGERED])
               for one in (killed, plain)]  # fmt: skip
    assert waiting[0].tolist() == waiting[1].tolist()
    killed.verify()


def test_a_restart_before_anything_new_believes_no_older_snapshot(tmp_path):
    """It once compared the state of a checkpoint with a snapshot from before it, and took that for new."""
    live = Live(tmp_path, coins=["BTC", "HYPE"])
    for _ in range(10):
        live.node.step()
    drop_block(live, live.node.height - 4)
    live.following.settle()
    live.following.save()
    live.following.restart()
    live.following.settle()
    assert live.following.stale() == {"BTC": Stale.GAP, "HYPE": Stale.GAP}
    assert live.following.follower.counts["repairs"] == 0


def test_doubt_outlives_a_restart(tmp_path):
    live = Live(tmp_path, coins=["BTC", "HYPE"])
    for _ in range(10):
        live.node.step()
    drop_block(live, live.node.height - 4)
    live.node.close()
    live.following.settle()
    live.following.save()
    live.following.restart()
    assert live.following.stale() == {"BTC": Stale.GAP, "HYPE": Stale.GAP}
    assert int(live.following.state.status[0]["stale_count"]) == 2


def test_a_checkpoint_that_does_not_fit_is_passed_over(tmp_path):
    live = Live(tmp_path, coins=["BTC", "HYPE"])
    live.go_on(5)
    live.following.save()
    live.following.capacity = SMALL._replace(accounts=4)
    live.following.restart()
    assert any(event == "checkpoint_passed_over" for event, _ in live.following.logged)
    live.following.poll(5, 1_000_000_000)
    assert any(event == "bootstrapped" for event, _ in live.following.logged[-3:])
