"""What the kernels write, compared as text with what a node and the peers write: the order of keys counts."""

import json

import numpy as np
import pytest

from gateway import encode
from shm import codes, layout
from shm.constants import PLACES
from tests import recorded
from tests.world import ALICE, BOB, World, amount, raw

CLOID = "0x" + "12" * 16


def compact(value):
    return json.dumps(value, separators=(",", ":"))


@pytest.fixture(scope="module")
def world():
    world = World()
    with world.block() as block:
        block.open("BTC", ALICE, "B", "100.5", "2.0", 7, cloid=CLOID, original="3", tif="Alo")
        block.open("BTC", BOB, "A", "101", "1.25", 8, flags=codes.Flag.REDUCE_ONLY)
        block.open(
            "BTC", BOB, "A", "90", "1", 9,
            state=codes.OrderState.UNTRIGGERED, trigger_px="95.5", condition=codes.Condition.BELOW,
            flags=codes.Flag.IS_TRIGGER | codes.Flag.POSITION_TPSL, order_type="Stop Market", tif="",
        )  # fmt: skip
    return world


def orders(world, oid, form):
    arrays = world.reader().arrays
    row = arrays["orders"][[world.orders[oid]["slot"]]]
    out = np.zeros(2 * encode.ELEMENT_BYTES_MAX, np.uint8)
    end, at = encode.write_orders(
        out, 0, row, 0, 1, arrays["markets"], arrays["names"], arrays["accounts"], form
    )
    assert at == 1
    return out[:end].tobytes().decode()


def test_a_basic_order(world):
    terms = {
        "coin": "BTC",
        "side": "B",
        "limitPx": "100.5",
        "sz": "2.0",
        "oid": 7,
        "timestamp": 1700000000100,
    }
    assert orders(world, 7, encode.BASIC) == compact({**terms, "origSz": "3.0", "cloid": CLOID})
    terms |= {"side": "A", "limitPx": "101.0", "sz": "1.25", "oid": 8}
    assert orders(world, 8, encode.BASIC) == compact({**terms, "origSz": "1.25", "reduceOnly": True})


def test_a_frontend_order(world):
    told = {
        "coin": "BTC", "side": "A", "limitPx": "90.0", "sz": "1.0", "oid": 9, "timestamp": 1700000000100,
        "triggerCondition": "Price below 95.5", "isTrigger": True, "triggerPx": "95.5", "children": [],
        "isPositionTpsl": True, "reduceOnly": False, "orderType": "Stop Market", "origSz": "1.0", "tif": None,
        "cloid": None,
    }  # fmt: skip
    assert orders(world, 9, encode.FRONTEND) == compact(told)


STOP = {
    "state": codes.OrderState.UNTRIGGERED, "trigger_px": "95", "condition": codes.Condition.BELOW,
    "flags": codes.Flag.IS_TRIGGER | codes.Flag.REDUCE_ONLY, "order_type": "Stop Market", "tif": "",
}  # fmt: skip


def listed(world, oids, room=1 << 16):
    """These orders of a world as an account's FRONTEND list, and in how many parts it was written."""
    arrays = world.reader().arrays
    rows, parts, at = arrays["orders"][[world.orders[oid]["slot"] for oid in oids]], [], 0
    out = np.zeros(room, np.uint8)
    while at < len(rows):
        end, at = encode.write_orders(
            out,
            0,
            rows,
            at,
            len(rows),
            arrays["markets"],
            arrays["names"],
            arrays["accounts"],
            encode.FRONTEND,
        )
        assert end <= room
        parts.append(out[:end].tobytes())
    return json.loads(b"[" + b"".join(parts) + b"]"), len(parts)


def test_the_children_of_an_order_stand_in_it_and_for_themselves():
    world = World()
    with world.block() as block:
        block.open("BTC", ALICE, "B", "100", "1", 1)
        block.open("BTC", ALICE, "B", "99", "1", 2, group=2)
        block.open("BTC", ALICE, "A", "90", "1", 3, group=2, **STOP)
        block.open("BTC", ALICE, "A", "110", "1", 4, group=2, **STOP | {"order_type": "Take Profit Limit"})
        block.open("BTC", ALICE, "A", "90", "1", 5, **STOP)
        block.open("BTC", ALICE, "A", "90", "1", 6, group=7, **STOP)
        block.open("BTC", ALICE, "B", "98", "1", 8, group=7)
        block.open("BTC", ALICE, "A", "90", "1", 9, group=10, **STOP)
        block.open("BTC", ALICE, "A", "97", "1", 11, group=10, condition=codes.Condition.TRIGGERED)
    orders, _ = listed(world, [1, 2, 3, 4, 5, 6, 8, 9, 11])
    of = {order["oid"]: [child["oid"] for child in order["children"]] for order in orders}
    assert of == {1: [], 2: [3, 4], 3: [], 4: [], 5: [], 6: [], 8: [6], 9: [], 11: []}
    by_oid = {order["oid"]: order for order in orders}
    for parent in by_oid.values():
        assert parent["children"] == [by_oid[child["oid"]] for child in parent["children"]]
    assert list(by_oid[2]) == list(by_oid[1]), "the same keys in the same order"


def test_a_parent_is_written_with_its_children_or_in_the_next_part():
    world, oids = World(), range(1, 31)
    with world.block() as block:
        for oid in oids:
            kind = {} if oid % 3 == 1 else STOP
            block.open("BTC", ALICE, "B", 100 + oid, "1", oid, group=oid - (oid - 1) % 3, **kind)
    room = (2 + encode.CHILDREN_MAX) * encode.ELEMENT_BYTES_MAX
    orders, parts = listed(world, oids, room)
    assert parts > 1 and [order["oid"] for order in orders] == list(oids)
    assert [len(order["children"]) for order in orders] == [2, 0, 0] * 10
    assert listed(world, oids) == (orders, 1)


def test_the_longest_parent_is_written_where_its_longest_children_fit():
    markets, names, accounts = (
        np.zeros(1, layout.MARKET),
        np.zeros(2, layout.NAME),
        np.zeros(1, layout.ACCOUNT),
    )
    markets["name"], names["text"] = ord("\\"), ord('"')
    markets["price_places"] = markets["quantity_places"] = PLACES
    orders = np.zeros(1 + encode.CHILDREN_MAX, layout.ORDER)
    for field in ("order", "price", "quantity", "original", "trigger_price", "timestamp_ms"):
        orders[field] = -(2**63) + 1
    orders["group"], orders["tif"], orders["order_type"], orders["flags"] = 1, 1, 1, 255
    orders["state"], orders["condition"] = codes.OrderState.UNTRIGGERED, codes.Condition.ABOVE
    orders["state"][0], orders["condition"][0] = codes.OrderState.RESTING, codes.Condition.NONE
    memory = np.zeros(8 * encode.ELEMENT_BYTES_MAX, np.uint8)

    def written(elements):
        room = memory[: elements * encode.ELEMENT_BYTES_MAX]
        return encode.write_orders(room, 0, orders, 0, len(orders), markets, names, accounts, encode.FRONTEND)

    assert written(1) == written(encode.CHILDREN_MAX) == (0, 0) and not memory.any()
    end, at = written(1 + encode.CHILDREN_MAX)
    assert at > 0 and encode.ELEMENT_BYTES_MAX < end <= (1 + encode.CHILDREN_MAX) * encode.ELEMENT_BYTES_MAX
    (parent, *_) = json.loads(b"[" + memory[:end].tobytes() + b"]")
    assert len(parent["children"]) == encode.CHILDREN_MAX


def test_no_order_has_more_children_than_there_is_room_for():
    world, oids = World(), range(1, 8)
    with world.block() as block:
        for oid in oids:
            block.open("BTC", ALICE, "B", 100 + oid, "1", oid, group=1, **({} if oid == 1 else STOP))
    (parent, *_), _ = listed(world, oids)
    assert [child["oid"] for child in parent["children"]] == [2, 3]


def test_an_order_of_a_snapshot_has_no_point_zero(world):
    told = {
        "user": BOB, "coin": "BTC", "side": "A", "limitPx": "101", "sz": "1.25", "oid": 8,
        "timestamp": 1700000000100, "triggerCondition": "N/A", "isTrigger": False, "triggerPx": "0.0",
        "isPositionTpsl": False, "reduceOnly": True, "orderType": "Limit", "tif": "Gtc", "cloid": None,
    }  # fmt: skip
    assert orders(world, 8, encode.L4) == compact(told)


def test_writing_stops_where_the_room_ends():
    world = World()
    with world.block() as block:
        for oid in range(40):
            block.open("BTC", ALICE, "B", 100 + oid, "1", oid)
    arrays = world.reader().arrays
    rows = arrays["orders"][[world.orders[oid]["slot"] for oid in range(40)]]
    out, parts, at = np.zeros(3 * encode.ELEMENT_BYTES_MAX, np.uint8), [], 0
    while at < len(rows):
        end, at = encode.write_orders(
            out, 0, rows, at, 40, arrays["markets"], arrays["names"], arrays["accounts"], encode.BASIC
        )
        parts.append(out[:end].tobytes())
    assert len(parts) > 1
    assert [order["oid"] for order in json.loads(b"[" + b"".join(parts) + b"]")] == list(range(40))


def test_no_element_is_longer_than_its_bound():
    long_name, widest = np.full(48, ord('"'), np.uint8), -(2**63) + 1
    markets, names = np.zeros(1, layout.MARKET), np.zeros(2, layout.NAME)
    markets["name"], names["text"] = ord("\\"), long_name
    markets["price_places"] = markets["quantity_places"] = PLACES
    fill = np.zeros(1, layout.FILL)
    for field in fill.dtype.names:
        kind = fill.dtype[field]
        if kind == np.int64:
            fill[field] = widest
        elif kind == np.uint16:
            fill[field] = 1
    fill["twap"], fill["flags"], fill["liquidated"] = 2**63 - 1, 255, 255
    out = np.zeros(4 * encode.ELEMENT_BYTES_MAX, np.uint8)
    end = encode.write_fills(out, 0, fill, 1, markets, names)
    assert end <= encode.ELEMENT_BYTES_MAX
    assert json.loads(out[:end].tobytes())["liquidation"]["liquidatedUser"] == "0x" + "ff" * 20
    end = encode.write_slice_fills(out, 0, fill, 1, markets, names)
    assert end <= encode.ELEMENT_BYTES_MAX and json.loads(out[:end].tobytes())["twapId"] == 2**63 - 1
    ended = np.zeros(1, layout.ENDED)
    for field in ended.dtype.names:
        if ended.dtype[field] == np.int64:
            ended[field] = widest
    ended["flags"], ended["status"], ended["tif"], ended["order_type"] = 255, 1, 1, 1
    ended["condition"], ended["time_ns"] = codes.Condition.ABOVE, 2**63 - 1
    end = encode.write_ended(out, 0, ended, 1, markets, names)
    assert json.loads(out[:end].tobytes())["order"]["isTrigger"]
    assert end <= encode.ELEMENT_BYTES_MAX
    links = np.full(1, encode.END, np.int32)
    event = np.zeros(1, layout.EVENT)
    for field in layout.EVENT.names:
        event[field] = ended[field]
    event["kind"] = codes.EventKind.STATUS
    end = encode.write_statuses(out, 0, event, links, 0, markets, names)
    assert 0 < end <= encode.ELEMENT_BYTES_MAX


def status_event(line, names):
    """A node's status as the engine would tell it."""
    order, event = line["order"], np.zeros(1, layout.EVENT)
    text = order["triggerCondition"]
    event["kind"], event["status"] = codes.EventKind.STATUS, names(line["status"])
    seconds, _, fraction = line["time"].partition(".")
    event["time_ns"] = int(np.datetime64(seconds, "ns").astype(int)) + int((fraction or "0").ljust(9, "0"))
    event["address"], event["order"], event["timestamp_ms"] = (
        raw(line["user"]),
        order["oid"],
        order["timestamp"],
    )
    event["price"], event["quantity"] = amount(order["limitPx"]), amount(order["sz"])
    event["original"], event["trigger_price"] = amount(order["origSz"]), amount(order["triggerPx"])
    event["side"] = codes.Side.BUY if order["side"] == "B" else codes.Side.SELL
    event["condition"] = ["N/A", "Price above", "Price below", "Triggered"].index(" ".join(text.split()[:2]))
    event["flags"] = (
        codes.Flag.REDUCE_ONLY * order["reduceOnly"]
        | codes.Flag.IS_TRIGGER * order["isTrigger"]
        | codes.Flag.POSITION_TPSL * order["isPositionTpsl"]
        | codes.Flag.HAS_CLOID * (order["cloid"] is not None)
    )
    if order["cloid"] is not None:
        event["cloid"] = raw(order["cloid"])
    event["tif"], event["order_type"] = names(order["tif"] or ""), names(order["orderType"])
    return event


def test_statuses_are_told_in_the_nodes_own_words(tmp_path):
    lines = recorded_statuses(tmp_path, 600)
    world = World()
    world.market("BTC")
    events = np.concatenate([status_event(line, world.name) for line in lines])
    links = np.arange(1, len(events) + 1, dtype=np.int32)
    links[-1] = encode.END
    arrays = world.reader().arrays
    out = np.zeros(len(events) * encode.ELEMENT_BYTES_MAX, np.uint8)
    end = encode.write_statuses(out, 0, events, links, 0, arrays["markets"], arrays["names"])
    expected = []
    for line in lines:
        order = {"user": None, **{k: v for k, v in line["order"].items() if k not in ("children", "origSz")}}
        told = {key: line[key] for key in ("time", "user", "status")}
        expected.append(compact({**told, "order": order}))
    assert out[:end].tobytes().decode() == ",".join(expected)


def recorded_statuses(folder, count):
    """Some of every kind that there is, in the order of the log."""
    path = recorded.extract(folder, "by_block") / "node_order_statuses_by_block/hourly/20260505/17"
    lines, seen = [], {}
    for block in path.read_text().splitlines():
        for line in json.loads(block)["events"]:
            kind = line["status"], line["order"]["orderType"], line["order"]["tif"]
            seen[kind] = seen.get(kind, 0) + 1
            if seen[kind] <= 20:
                lines.append(line)
    return lines[:count]
