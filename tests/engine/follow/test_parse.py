"""The compiled reading of a node's lines: nothing lost, nothing invented, and no line stops the rest."""

import msgspec
import numpy as np
import pytest

from engine.follow import parse
from engine.follow.records import Kind, Why
from shm import codes, layout
from tests import recorded
from tests.engine.follow import node_text

STREAMS = {Kind.STATUSES: "order_statuses", Kind.DIFFS: "raw_book_diffs", Kind.FILLS: "fills"}
WRITERS = {Kind.STATUSES: node_text.status, Kind.DIFFS: node_text.diff, Kind.FILLS: node_text.fill}
ALICE, BOB = "0x" + "a1" * 20, "0x" + "b0" * 20
CLOID = "0x" + "c1" * 16


def order_text(coin="BTC", side="B", price="81308.0", size="0.5", oid=9, **more):
    facts = {
        "coin": coin, "side": side, "limitPx": price, "sz": size, "oid": oid, "timestamp": 1778002753024,
        "triggerCondition": "N/A", "isTrigger": False, "triggerPx": "0.0", "children": [],
        "isPositionTpsl": False, "reduceOnly": False, "orderType": "Limit", "origSz": size, "tif": "Gtc",
        "cloid": None,
    } | more  # fmt: skip
    return msgspec.json.encode(facts).decode()


def status_text(state="open", user=ALICE, time="2026-05-05T17:39:13.024084407", **order):
    head = f'{{"time":"{time}","user":"{user}","hash":null,"builder":null,"status":"{state}"'
    return f'{head},"order":{order_text(**order)}}}'


def diff_text(change='{"new":{"sz":"0.5"}}', coin="BTC", side='"side":"B",', price="81308.0", oid=9):
    return f'{{"user":"{ALICE}","oid":{oid},"coin":"{coin}",{side}"px":"{price}","raw_book_diff":{change}}}'


def fill_text(coin="BTC", more="", twap="null", fee='"fee":"0.1",'):
    return (
        f'["{ALICE}",{{"coin":"{coin}","px":"81308.0","sz":"0.5","side":"B","time":1778002753024'
        f',"startPosition":"-1.25","dir":"Open Long","closedPnl":"-0.5","hash":"0x{"ab" * 32}","oid":9'
        f',"crossed":true,{fee}"tid":77{more},"feeToken":"USDC","twapId":{twap}}}]'
    )


def read(kind, text, tables=None):
    """Read a text by the kernel alone."""
    parser = parse.Parser(kind, tables or node_text.shared())
    batch = parser.parse(text)
    assert (parser.decoded, batch.bad) == (0, [])
    return batch


def log(tmp_path, form, kind):
    folder = recorded.extract(tmp_path, form) / f"node_{STREAMS[kind]}_{form}" / "hourly"
    return next(path for path in folder.rglob("*") if path.is_file()).read_bytes()


def assert_rebuilt(kind, text, tables, batch):
    """Every event of the log stands in the records, in its order, and in its block's segment."""
    name = kind.name.lower()
    at = {int(segment["height"]): int(segment["first"]) for segment in batch.segments}
    for line in text.splitlines():
        block = msgspec.json.decode(line)
        first = at[block["block_number"]]
        at[block["block_number"]] += len(block["events"])
        assert node_text.time_text(segment_of(batch, block)["time_ns"]) == block["block_time"]
        for record, event in zip(batch.records[first:], block["events"], strict=False):
            assert WRITERS[kind](record, tables) == node_text.without(event, name)
            assert record["height"] == block["block_number"]
    assert [int(s["first"] + s["count"]) for s in batch.segments] == list(at.values())
    assert int(batch.segments["count"].sum()) == len(batch.records)


def segment_of(batch, block):
    return batch.segments[np.searchsorted(batch.segments["height"], block["block_number"])]


@pytest.mark.parametrize("form", ["by_block", "streaming"])
@pytest.mark.parametrize("kind", Kind)
def test_nothing_of_a_recorded_log_is_lost(tmp_path, kind, form):
    text, tables = log(tmp_path, form, kind), node_text.shared()
    batch = read(kind, text, tables)
    assert_rebuilt(kind, text, tables, batch)
    accounts = tables.accounts[batch.records["account"]]
    assert (accounts["address"] == batch.records["address"]).all()
    assert batch.segments["end"][-1] == len(text)


def test_nothing_of_the_fills_of_all_markets_is_lost():
    text, tables = node_text.fills_of_all_markets(), node_text.shared()
    if text is None:
        pytest.skip("the captured fills are not here: no hl-node-fills-20260314 in the data directory")
    assert_rebuilt(Kind.FILLS, text, tables, read(Kind.FILLS, text, tables))


@pytest.mark.parametrize("kind", Kind)
def test_both_forms_give_the_same_records(tmp_path, kind):
    tables = node_text.shared()
    by_block, streaming = (read(kind, log(tmp_path, f, kind), tables) for f in ("by_block", "streaming"))
    assert (by_block.records == streaming.records).all()
    told = by_block.segments[by_block.segments["count"] > 0]
    for field in ("height", "time_ns", "first", "count"):
        assert (told[field] == streaming.segments[field]).all()


@pytest.mark.parametrize("kind", Kind)
def test_a_log_read_line_by_line_gives_the_same(tmp_path, kind):
    text, tables = log(tmp_path, "streaming", kind)[:200_000].rpartition(b"\n")[0] + b"\n", node_text.shared()
    whole, parser = read(kind, text, tables), parse.Parser(kind, tables)
    pieces = [parser.parse(line).records.copy() for line in text.splitlines(keepends=True)]
    assert (np.concatenate(pieces) == whole.records).all()


def test_a_status_has_every_fact_of_its_order():
    tables = node_text.shared()
    text = status_text(
        state="triggered", user=BOB, time="2026-05-05T17:39:14.5", coin="kPEPE", side="A", price="0.001",
        size="12.0", oid=2**59, triggerCondition="Price above 0.0012", isTrigger=True, triggerPx="0.0012",
        children=[{"coin": "]}\\\"", "x": [1, {}]}, []], isPositionTpsl=True, reduceOnly=True,
        orderType="Take Profit Market", origSz="13.5", tif=None, cloid=CLOID,
    ).replace("\\\\\\\"", "")  # fmt: skip
    (record,) = read(Kind.STATUSES, node_text.envelope(text), tables).records
    expected = text.replace(',"children":[{"coin":"]}","x":[1,{}]},[]]', "").replace(
        ',"hash":null,"builder":null', ""
    )
    assert node_text.status(record, tables).replace("14.500000000", "14.5") == expected
    assert record["condition"] == codes.Condition.ABOVE
    assert record["flags"] == 1 | 2 | 4 | 8
    assert record["status"] == codes.Status.TRIGGERED
    assert (record["sequence"], record["kind"], record["reserved"]) == (0, codes.EventKind.STATUS, 0)


@pytest.mark.parametrize(
    "provenance",
    ["", '"hash":null,', '"builder":null,', '"hash":"0xab","builder":{"b":"0x1","f":5},', '"builder":{},'],
)
def test_a_status_may_lack_its_hash_and_builder(provenance):
    text = status_text()
    batch = read(Kind.STATUSES, node_text.envelope(text.replace('"hash":null,"builder":null,', provenance)))
    assert batch.records[0] == read(Kind.STATUSES, node_text.envelope(text)).records[0]


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        ('"side":"A",', codes.Side.SELL), ('"side":"B",', codes.Side.BUY), ('"side":"Ask",', codes.Side.SELL),
        ('"side":"Bid",', codes.Side.BUY), ("", 255),
    ],
)  # fmt: skip
def test_a_diff_tells_its_side_in_any_of_the_ways_of_nodes(side, expected):
    captured = diff_text(side=side)
    documented = captured.replace('"px":"81308.0",', "").replace('"coin"', '"px":"81308.0","coin"')
    for text in (captured, documented):
        (record,) = read(Kind.DIFFS, node_text.envelope(text)).records
        assert (record["side"], record["price"]) == (expected, 81_308 * 10**8)


def test_a_diff_says_what_becomes_of_the_size():
    changes = ['{"new":{"sz":"0.5"}}', '{"update":{"origSz":"0.5","newSz":"0.25"}}', '"remove"']
    records = read(Kind.DIFFS, node_text.envelope(*(diff_text(change) for change in changes))).records
    assert records["kind"].tolist() == [codes.EventKind.NEW, codes.EventKind.UPDATE, codes.EventKind.REMOVE]
    assert records["quantity"].tolist() == [5 * 10**7, 25 * 10**6, 0]
    assert records["original"].tolist() == [0, 5 * 10**7, 0]


def test_a_fill_keeps_its_optional_keys_wherever_they_stand():
    more = (
        f',"cloid":"{CLOID}","liquidation":{{"liquidatedUser":"{BOB}","markPx":"81000.5","method":"market"}}'
        ',"builderFee":"0.01","deployerFee":"0.2","priorityGas":12.5,"new":{"keys":[1,"x"]}'
    )
    tables = node_text.shared()
    events = [fill_text(more=more, twap="17"), fill_text(fee=f'{more[1:]},"fee":"0.1",', twap="17")]
    first, second = read(Kind.FILLS, node_text.envelope(*events), tables).records
    assert first == second
    assert (first["builder_fee"], first["liquidation_price"], first["twap"]) == (10**6, 810005 * 10**7, 17)
    assert bytes(first["liquidated"]).hex() == BOB[2:]
    assert first["flags"] == (
        codes.Flag.CROSSED | codes.Flag.HAS_CLOID | codes.Flag.LIQUIDATION | codes.Flag.HAS_BUILDER_FEE
    )
    assert node_text.text_of(tables.names[first["liquidation_method"]]["text"]) == "market"


def test_lines_of_a_block_are_one_segment():
    first, second = node_text.envelope(diff_text()), node_text.envelope(diff_text(), diff_text(), height=8)
    text = first + first + b"\n" + second + first
    batch = read(Kind.DIFFS, text)
    one, two = len(first), len(first) * 2
    last = len(text) - one
    expected = [(7, 0, two, 0, 2, 2), (8, two + 1, last, 2, 2, 1), (7, last, len(text), 4, 1, 1)]
    fields = ["height", "start", "end", "first", "count", "lines"]
    assert [tuple(int(s[f]) for f in fields) for s in batch.segments] == expected


def test_blocks_without_events_are_told():
    batch = read(Kind.STATUSES, node_text.envelope(height=5) + node_text.envelope(height=6))
    assert batch.segments["height"].tolist() == [5, 6]
    assert len(batch.records) == 0


def test_empty_chunks_blank_lines_and_a_last_line_without_its_end():
    parser = parse.Parser(Kind.DIFFS, node_text.shared())
    for text in (b"", b"\n", b"\n \r\n\n"):
        batch = parser.parse(text)
        assert (len(batch.segments), batch.bad) == (0, [])
    batch = parser.parse(node_text.envelope(diff_text())[:-1])
    assert (len(batch.records), batch.segments["lines"].tolist()) == (1, [1])


@pytest.mark.parametrize("give", [bytes, bytearray, memoryview, lambda text: np.frombuffer(text, np.uint8)])
def test_any_buffer_is_read_and_left_as_it_was(give):
    text = give(node_text.envelope(diff_text()))
    assert len(read(Kind.DIFFS, text).records) == 1
    if isinstance(text, bytearray):
        text[0] = 0  # still the caller's to write


def test_more_events_than_there_is_room_for():
    tables = node_text.shared()
    line = node_text.envelope(*[diff_text(oid=oid) for oid in range(3_000)])
    parser = parse.Parser(Kind.DIFFS, tables)
    parser._make_room(8)  # the first room holds no line
    lines = b"".join(node_text.envelope(diff_text(oid=oid), height=oid) for oid in range(3_000))
    assert parser.parse(line + lines).records["order"].tolist() == [*range(3_000)] * 2
    assert len(parser.parse(lines).segments) == 3_000


def test_what_was_handed_out_is_the_callers():
    parser = parse.Parser(Kind.DIFFS, node_text.shared())
    batch = parser.parse(node_text.envelope(diff_text(oid=1)))
    parser.parse(node_text.envelope(diff_text(oid=2)))
    assert batch.records["order"].tolist() == [1]


def test_a_bad_line_is_set_aside_and_the_others_are_read():
    good, tables = node_text.envelope(diff_text()), node_text.shared()
    parser = parse.Parser(Kind.DIFFS, tables)
    bad = good.replace(b"0.5", b"0.5e1")
    batch = parser.parse(good + bad + good + b"\0\xff\n" + good)
    assert [(line.offset, line.length, line.why, line.market) for line in batch.bad] == [
        (len(good), len(bad) - 1, Why.CORRUPT, "BTC"), (len(good) * 2 + len(bad), 2, Why.CORRUPT, None),
    ]  # fmt: skip
    assert (len(batch.records), batch.segments["lines"].tolist()) == (3, [3])
    assert (parser.recognised, parser.decoded) == (3, 0)


def test_a_line_of_an_unusual_form_is_read_in_its_place():
    tables = node_text.shared()
    usual = [node_text.envelope(diff_text(oid=oid), height=oid) for oid in range(5)]
    reordered = msgspec.json.encode(dict(reversed(msgspec.json.decode(usual[2]).items()))) + b"\n"
    parser = parse.Parser(Kind.DIFFS, tables)
    mixed, plain = parser.parse(b"".join([*usual[:2], reordered, *usual[3:]])), parser.parse(b"".join(usual))
    assert (mixed.records == plain.records).all()
    assert (mixed.segments == plain.segments).all()
    assert (parser.recognised, parser.decoded) == (9, 1)


def test_a_line_that_is_too_long_is_bad(monkeypatch):
    monkeypatch.setattr(parse, "LINE_BYTES_MAX", 300)
    line = node_text.envelope(diff_text()).replace(b'"px"', b' "px"')
    long = line.replace(b"[", b"[" + b" " * 300)
    batch = parse.Parser(Kind.DIFFS, node_text.shared()).parse(long + line)
    assert [(bad.why, bad.offset) for bad in batch.bad] == [(Why.TOO_LONG, 0)]
    assert len(batch.records) == 0 + 1


@pytest.mark.parametrize(
    ("coin", "kind"),
    [
        ("BTC", codes.MarketKind.PERP), ("@107", codes.MarketKind.SPOT), ("PURR/USDC", codes.MarketKind.SPOT),
        ("xyz:NVDA", codes.MarketKind.BUILDER), ("#3", codes.MarketKind.OUTCOME),
        ("a-market-of-thirty-two-bytes-...", codes.MarketKind.PERP),
    ],
)  # fmt: skip
def test_a_market_of_any_kind_gets_a_row_at_first_sight(coin, kind):
    tables = node_text.shared()
    (record,) = read(Kind.DIFFS, node_text.envelope(diff_text(coin=coin)), tables).records
    row = tables.markets[record["market"]]
    assert (node_text.text_of(row["name"]), row["kind"], row["price_places"]) == (coin, kind, 8)
    assert tables.counts[0]["market_count"] == 1


def test_size_decimals_are_the_most_that_were_seen():
    tables = node_text.shared()
    for size, expected in (("3.0", 0), ("0.25", 2), ("0.125", 3), ("7.5", 3), ("0.00000001", 8)):
        read(Kind.DIFFS, node_text.envelope(diff_text(f'{{"new":{{"sz":"{size}"}}}}')), tables)
        assert tables.markets[0]["size_decimals"] == expected


def test_full_tables_refuse_no_more_than_they_must():
    tables = node_text.shared(markets=2, accounts=2, names=len(codes.NAMES))
    text = b"".join(
        node_text.envelope(status_text(state=f"new{i}", user=f"0x{i:040x}", coin=f"C{i}"), height=i)
        for i in range(3)
    )
    batch = parse.Parser(Kind.STATUSES, tables).parse(text)
    assert [(bad.why, bad.market) for bad in batch.bad] == [(Why.CAPACITY, None)]
    assert batch.records["status"].tolist() == [codes.NONE_NAME] * 2
    more = node_text.envelope(status_text(user="0x" + "77" * 20, coin="C0"))
    (record,) = parse.Parser(Kind.STATUSES, tables).parse(more).records
    assert (record["account"], record["market"]) == (layout.NO_ACCOUNT, 0)
