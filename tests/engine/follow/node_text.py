"""A node's text, and its rebuilding from records: what can be rebuilt was not lost.

The writers here are the parser's inverse, made of the standard library alone. They leave out what no record
keeps (a hash and a builder of a status, children, fees that are part of another) and write numbers in the
shortest form.
"""

import json
import os
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import msgspec
import numpy as np

from engine.follow import intern
from shm import codes, layout

ROOT = Path(__file__).parents[3]
LETTERS = {codes.Side.BUY: "B", codes.Side.SELL: "A"}
UNIT = Decimal(1).scaleb(-8)


def shared(markets=64, names=256, accounts=1 << 14):
    """New, empty tables."""
    counts = (markets, layout.MARKET), (names, layout.NAME), (accounts, layout.ACCOUNT)
    arrays = [np.zeros(count, dtype) for count, dtype in counts]
    return intern.tables(*arrays, np.zeros(2 * accounts, np.int64), np.zeros(1, layout.WORLD_STATUS))


def envelope(*events, height=7, time="2026-05-05T17:39:13.024084407"):
    """A line, as bytes with its newline, of events as JSON texts."""
    head = f'{{"local_time":"2026-05-05T17:39:13.394","block_time":"{time}","block_number":{height}'
    return f'{head},"events":[{",".join(events)}]}}\n'.encode()


def text_of(row):
    return bytes(row).rstrip(b"\0").decode()


def number(value):
    """The shortest text of a whole number of 10**-8 units, with the ".0" of a whole one."""
    return shortest(Decimal(int(value)) * UNIT)


def shortest(value):
    """The text of a Decimal, rounded to 8 decimals, without zeros at its end but for a ".0"."""
    rounded = value.quantize(UNIT, ROUND_HALF_UP)
    text = f"{rounded if rounded else Decimal(0):f}".rstrip("0") if rounded else "0."
    return text + "0" if text.endswith(".") else text


def time_text(ns):
    second = datetime.fromtimestamp(int(ns) // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{second}.{int(ns) % 10**9:09d}"


def hexadecimal(row):
    return f'"0x{bytes(row).hex()}"'


def or_null(texts, row):
    return "null" if row == codes.NONE_NAME else json.dumps(text_of(texts[row]))


def truth(flags, flag):
    return "true" if int(flags) & flag else "false"


def order(record, tables):
    """The order object of a status or a snapshot, without its children."""
    market, names = text_of(tables.markets[record["market"]]["name"]), tables.names["text"]
    price = number(record["trigger_price"])
    condition = ("N/A", f"Price above {price}", f"Price below {price}", "Triggered")[record["condition"]]
    cloid = hexadecimal(record["cloid"]) if record["flags"] & codes.Flag.HAS_CLOID else "null"
    return (
        f'{{"coin":"{market}","side":"{LETTERS[record["side"]]}","limitPx":"{number(record["price"])}"'
        f',"sz":"{number(record["quantity"])}","oid":{record["order"]},"timestamp":{record["timestamp_ms"]}'
        f',"triggerCondition":"{condition}","isTrigger":{truth(record["flags"], codes.Flag.IS_TRIGGER)}'
        f',"triggerPx":"{price}","isPositionTpsl":{truth(record["flags"], codes.Flag.POSITION_TPSL)}'
        f',"reduceOnly":{truth(record["flags"], codes.Flag.REDUCE_ONLY)}'
        f',"orderType":{or_null(names, record["order_type"])},"origSz":"{number(record["original"])}"'
        f',"tif":{or_null(names, record["tif"])},"cloid":{cloid}}}'
    )


def status(record, tables):
    return (
        f'{{"time":"{time_text(record["time_ns"])}","user":{hexadecimal(record["address"])}'
        f',"status":{or_null(tables.names["text"], record["status"])},"order":{order(record, tables)}}}'
    )


def diff(record, tables):
    market = text_of(tables.markets[record["market"]]["name"])
    size, before = number(record["quantity"]), number(record["original"])
    change = {
        codes.EventKind.NEW: f'{{"new":{{"sz":"{size}"}}}}',
        codes.EventKind.UPDATE: f'{{"update":{{"origSz":"{before}","newSz":"{size}"}}}}',
        codes.EventKind.REMOVE: '"remove"',
    }[record["kind"]]
    return (
        f'{{"user":{hexadecimal(record["address"])},"oid":{record["order"]},"coin":"{market}"'
        f',"side":"{LETTERS[record["side"]]}","px":"{number(record["price"])}","raw_book_diff":{change}}}'
    )


def fill(record, tables):
    """A fill of a node, as in the captures: without the optional keys but cloid."""
    market, names = text_of(tables.markets[record["market"]]["name"]), tables.names["text"]
    flags = int(record["flags"])
    cloid = f',"cloid":{hexadecimal(record["cloid"])}' if flags & codes.Flag.HAS_CLOID else ""
    return (
        f'[{hexadecimal(record["address"])},{{"coin":"{market}","px":"{number(record["price"])}"'
        f',"sz":"{number(record["quantity"])}","side":"{LETTERS[record["side"]]}","time":{record["time_ms"]}'
        f',"startPosition":"{number(record["start_position"])}","dir":{or_null(names, record["direction"])}'
        f',"closedPnl":"{number(record["closed_pnl"])}","hash":{hexadecimal(record["hash"])}'
        f',"oid":{record["order"]},"crossed":{truth(flags, codes.Flag.CROSSED)}'
        f',"fee":"{number(record["fee"])}","tid":{record["trade"]}{cloid}'
        f',"feeToken":{or_null(names, record["fee_token"])}'
        f',"twapId":{"null" if record["twap"] < 0 else record["twap"]}}}]'
    )


def without(event, kind):
    """An event of a log as text, without what no record keeps, its fills' numbers in the shortest form."""
    if kind == "fills":
        address, facts = event
        facts = {key: value for key, value in facts.items() if key != "builder"}
        for key in ("px", "sz", "startPosition", "closedPnl", "fee"):
            facts[key] = shortest(Decimal(facts[key]))
        event = [address, facts]
    elif kind == "statuses":
        event = {key: value for key, value in event.items() if key not in ("hash", "builder")}
        event["order"] = {key: value for key, value in event["order"].items() if key != "children"}
    return msgspec.json.encode(event).decode()


def fills_of_all_markets():
    """The captured fills of 39 markets, or None where they are absent."""
    folder = Path(os.environ.get("RINGSIDE_DATA") or ROOT.parent / "shared" / "data")
    path = folder / "hl-node-fills-20260314" / "node_fills_by_block_923950857_923950866.jsonl"
    return path.read_bytes() if path.is_file() else None
