"""The general reading of a line, and that the compiled one agrees with it to the byte or declines."""

import json
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.follow import decode, parse
from engine.follow.records import Corrupt, Kind
from tests.engine.follow import node_text
from tests.engine.follow.test_parse import ALICE, CLOID, diff_text, fill_text, log, order_text, status_text

CASES, SOAK_CASES = 1_500, 100_000  # for each kind
DIFFERENT = (
    b'"', b"\\", b"\\u0041", b"0", b"-", b"-0", b".", b"e5", b"NaN", b"null", b"true", b"{}", b"[]", b"]",
    b"}", b",", b":", b"\x00", b"\x7f", b"\x80", b"\xc3\xa9", b" ", b"\t", b"\r", b"A",
    b"99999999999999999999",
    b'"coin":"X",', b'"fee":"1.0",', b'"x":[{"y":-0.5}],',
)  # fmt: skip
EXAMPLES = {
    Kind.STATUSES: [
        node_text.envelope(status_text()),
        node_text.envelope(status_text(cloid=CLOID, tif=None, coin="xyz:NVDA"), status_text(side="A")),
        node_text.envelope(
            status_text(
                state="triggered", triggerCondition="Price below 5.5", isTrigger=True, triggerPx="5.5",
                children=[{"a": [1, -2.5, {"b": "c"}], "d": {}}], reduceOnly=True, orderType="Stop Limit",
            )
        ),
    ],
    Kind.DIFFS: [
        node_text.envelope(diff_text(), diff_text('"remove"', side="")),
        node_text.envelope(diff_text('{"update":{"origSz":"0.5","newSz":"123456789.25"}}', coin="@107")),
    ],
    Kind.FILLS: [
        node_text.envelope(fill_text(), fill_text(more=f',"cloid":"{CLOID}","builderFee":"0.01"', twap="5")),
        node_text.envelope(
            fill_text(
                more=f',"liquidation":{{"liquidatedUser":"{ALICE}","markPx":"8.5","method":"market"}}'
                ',"priorityGas":1.5,"builder":{"b":"0x","f":[]}'
            )
        ),
    ],
}  # fmt: skip


def assert_agrees(parser, text):
    """Read one line by both; return whether the kernel read it."""
    decoded = parser.decoded
    batch = parser.parse(text)
    if batch.bad or parser.decoded > decoded or not text.strip():
        return False
    lines = [line for line in text.split(b"\n") if line]
    expected = [decode.line(parser.kind, line, parser.tables)[2] for line in lines]
    assert (batch.records == np.concatenate(expected)).all(), text
    return True


def mutated(chance, text):
    """The text with one to three wounds: bytes changed, lost, moved, or replaced by what JSON might have
    there.
    """
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(text) - 1)
        end = min(at + chance.choice((0, 1, 1, 2, 5, 30)), len(text) - 1)
        middle = chance.choice(
            (
                bytes([chance.randrange(256)]),
                chance.choice(DIFFERENT),
                text[at:end] * 2,
                b"",
                text[at:end][::-1],
            )
        )
        text = text[:at] + middle + text[end:]
    return text


@pytest.mark.parametrize("kind", Kind)
def test_the_kernels_agree_or_decline(kind, pytestconfig):
    chance = random.Random(f"wounds {kind.name}")
    parser = parse.Parser(kind, node_text.shared(names=1 << 14, markets=1 << 14))
    read = 0
    cases = SOAK_CASES if pytestconfig.getoption("--soak") else CASES
    for _ in range(cases):
        read += assert_agrees(parser, mutated(chance, chance.choice(EXAMPLES[kind])))
    assert cases // 50 < read < cases, "the wounds are too deep, or too light, to show anything"


@pytest.mark.parametrize("kind", Kind)
def test_the_kernels_agree_on_a_recorded_log(tmp_path, kind):
    text = log(tmp_path, "by_block", kind)[:1_500_000]
    parser = parse.Parser(kind, node_text.shared())
    for line in text.splitlines(keepends=True)[:-1]:
        assert assert_agrees(parser, line)


NESTED = st.recursive(st.none() | st.booleans() | st.integers() | st.text("ab", max_size=3), st.lists)
amounts = st.decimals(min_value=0, max_value=9_999_999_999, places=8, allow_nan=False).map(node_text.shortest)
texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'), min_size=1)
hexes = st.binary(min_size=16, max_size=16).map(lambda raw: "0x" + raw.hex())
times = st.integers(0, 2**62).map(node_text.time_text)
orders = st.fixed_dictionaries(
    {
        "coin": texts.filter(lambda text: len(text) <= 32), "side": st.sampled_from("AB"), "price": amounts,
        "size": amounts, "oid": st.integers(0, 10**18 - 1), "timestamp": st.integers(0, 10**18 - 1),
        "isTrigger": st.booleans(), "isPositionTpsl": st.booleans(), "reduceOnly": st.booleans(),
        "orderType": texts.filter(lambda text: len(text) <= 48), "origSz": amounts,
        "tif": st.none() | texts.filter(lambda text: len(text) <= 48), "cloid": st.none() | hexes,
    },
    optional={"children": st.lists(NESTED, max_size=3)},
)  # fmt: skip


@given(order=orders, trigger=amounts, above=st.sampled_from(["above", "below"]), time=times, state=texts)
def test_any_order_is_read_by_both_and_can_be_rebuilt(order, trigger, above, time, state):
    tables = node_text.shared(names=1024)
    condition = {"triggerCondition": f"Price {above} {trigger}", "triggerPx": trigger}
    text = status_text(state=state[:48], time=time, **order, **condition)
    parser = parse.Parser(Kind.STATUSES, tables)
    assert assert_agrees(parser, node_text.envelope(text))
    (record,) = parser.parse(node_text.envelope(text)).records
    event = msgspec.json.decode(text)
    assert node_text.status(record, tables) == node_text.without(event, "statuses")


def test_keys_may_come_in_any_order_with_others_between_them():
    kinds = {
        Kind.STATUSES: status_text(cloid=CLOID),
        Kind.DIFFS: diff_text(),
        Kind.FILLS: fill_text(more=',"new":1'),
    }  # fmt: skip
    for kind, text in kinds.items():
        tables = node_text.shared()
        line = msgspec.json.decode(node_text.envelope(text))
        shuffled = json.dumps(reversed_keys(line), indent=1).replace("\n", " ").encode()
        (expected,) = parse.Parser(kind, tables).parse(node_text.envelope(text)).records
        height, time_ns, records = decode.line(kind, shuffled, tables)
        assert (height, node_text.time_text(time_ns)) == (7, line["block_time"])
        assert records[0] == expected


def reversed_keys(value):
    if isinstance(value, dict):
        return {"not": "known"} | {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


def test_an_order_may_lack_what_older_nodes_do_not_write():
    least = msgspec.json.decode(order_text())
    for key in ("triggerCondition", "isTrigger", "triggerPx", "children", "isPositionTpsl", "reduceOnly"):
        del least[key]
    for key in ("origSz", "cloid"):
        del least[key]
    tables = node_text.shared()
    event = json.dumps(msgspec.json.decode(status_text()) | {"order": least})
    (record,) = decode.line(Kind.STATUSES, node_text.envelope(event), tables)[2]
    (expected,) = parse.Parser(Kind.STATUSES, tables).parse(node_text.envelope(status_text())).records
    assert record == expected


@pytest.mark.parametrize(
    ("kind", "text", "wound", "by"),
    [
        (kind, {0: status_text, 1: diff_text, 2: fill_text}[kind](), wound, by)
        for kind, wound, by in [
            (0, '"0.5"', '"NaN"'), (0, '"0.5"', '"5e-1"'), (0, '"0.5"', '"-0.5"'), (0, '"0.5"', '"+0.5"'),
            (0, '"0.5"', '"0.123456789"'), (0, '"0.5"', '".5"'), (0, '"0.5"', '"5."'), (0, '"0.5"', "0.5"),
            (0, '"0.5"', '""'), (0, '"0.5"', '"99999999999.0"'), (0, '"0.5"', '"Infinity"'),
            (0, '"0.5"', '"\u0665"'), (0, '"0.5"', '" 0.5"'), (0, '"oid":9', '"oid":9223372036854775808'),
            (0, '"oid":9', '"oid":-1'), (0, '"oid":9', '"oid":"9"'), (0, '"oid":9', '"oid":1e400'),
            (0, '"oid":9', '"oid":' + "9" * 5_000), (0, '"side":"B"', '"side":"C"'),
            (0, '"cloid":null', '"cloid":"0x12"'), (0, '"cloid":null', f'"cloid":"{CLOID[:-1]}g"'),
            (0, '"cloid":null', '"cloid":""'), (0, '"coin":"BTC"', '"coin":""'),
            (0, '"coin":"BTC"', '"coin":"B\\u0000C"'), (0, '"coin":"BTC"', '"coin":"B\u00e9C"'),
            (0, '"coin":"BTC"', f'"coin":"{"C" * 33}"'), (0, '"status":"open"', f'"status":"{"s" * 49}"'),
            (0, "05-05T", "13-05T"), (0, "05-05T", "02-29T"), (0, "T17:", "T24:"), (0, "2026", "1969"),
            (0, "2026", "2262"), (0, ".024084407", ".0240844071"), (0, ".024084407", "."),
            (0, '"time":"2026', '"time":"2026 '), (0, ALICE, ALICE[2:]), (0, ALICE, "0x" + "zz" * 20),
            (0, '"children":[]', '"children":' + "[" * 100_000), (0, '"children":[]', '"children":[}'),
            (0, '"children":[]', '"children":"\udcff"'), (0, '"isTrigger":false', '"isTrigger":0'),
            (1, '{"new":{"sz":"0.5"}}', '"removed"'), (1, '{"new":{"sz":"0.5"}}', "{}"),
            (1, '{"new":{"sz":"0.5"}}', '{"new":{"sz":"0.5"},"update":{"origSz":"1.0","newSz":"2.0"}}'),
            (1, '"side":"B"', '"side":"Buy"'), (2, '"sz":"0.5"', '"sz":"-0.0"'), (2, '"tid":77,', ""),
            (2, '"px":"81308.0"', '"px":"0.123456789"'), (2, '"fee":"0.1"', '"fee":"1e9"'),
        ]
    ],
)  # fmt: skip
def test_what_would_be_read_wrongly_is_corrupt(kind, text, wound, by):
    assert wound in text
    tables = node_text.shared()
    text = text.replace(wound, by, 1)
    raw = node_text.envelope("EVENT").replace(b"EVENT", text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Corrupt):
        decode.line(Kind(kind), raw[:-1], tables)
    assert tables.counts[0]["market_count"] == tables.counts[0]["account_count"] == 0
    (bad,) = parse.Parser(Kind(kind), tables).parse(raw).bad
    assert bad.length == len(raw) - 1


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b"{}", b"\xff", b"\0" * 99, b"[" * 10**6, b'{"events":' * 10**5, b'"' * 99]
)
def test_a_line_of_anything_is_corrupt(raw):
    for kind in Kind:
        with pytest.raises(Corrupt):
            decode.line(kind, raw, node_text.shared())


def test_figures_that_the_node_computed_are_rounded():
    wild = fill_text().replace('"-1.25"', '"-2064444.3999999999"').replace('"0.5"', '"0.0000014866"')
    tables = node_text.shared()
    (record,) = parse.Parser(Kind.FILLS, tables).parse(node_text.envelope(wild)).records
    assert (record["start_position"], record["quantity"]) == (-206444440000000, 149)
    assert decode.line(Kind.FILLS, node_text.envelope(wild), tables)[2][0] == record


@pytest.mark.parametrize(
    "twice",
    ['"cloid":null', '"builderFee":null', '"liquidation":null', '"fee":"0.2"', '"tid":78', '"twapId":5'],
)
def test_the_last_of_two_equal_keys_counts(twice):
    first = f',"cloid":"{CLOID}","builderFee":"0.1"'
    first += f',"liquidation":{{"liquidatedUser":"{ALICE}","markPx":"8.5","method":"market"}}'
    tables, text = node_text.shared(), node_text.envelope(fill_text(more=f"{first},{twice}"))
    (record,) = parse.Parser(Kind.FILLS, tables).parse(text).records
    assert record == decode.line(Kind.FILLS, text, tables)[2][0]


def test_trigger_conditions_of_an_unknown_wording_count_as_none():
    text = node_text.envelope(status_text(triggerCondition="Mark price above 5"))
    parser = parse.Parser(Kind.STATUSES, node_text.shared())
    assert (parser.parse(text).records["condition"].tolist(), parser.decoded) == ([0], 1)


def test_a_damaged_line_names_its_market_only_if_there_is_but_one():
    tables = node_text.shared()
    one, two = node_text.envelope(diff_text()), node_text.envelope(diff_text(), diff_text())
    parse.Parser(Kind.DIFFS, tables).parse(one)
    assert decode.only_market(one[:-1], tables) == "BTC"
    for raw in (
        two[:-1],
        one[:-3],
        one[1:-1],
        one[:-1].replace(b"BTC", b"BTD"),
        one[:-1].replace(b'"BTC"', b"BTC"),
    ):
        assert decode.only_market(raw, tables) is None
