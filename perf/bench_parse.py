"""How fast do a node's log lines become records, against msgspec's typed decode of the same lines?

candidate  engine.follow.parse: records with rows of markets, accounts and names, copied out
baseline   the decoders of engine.follow.decode: Python objects of the same fields, nothing interned

Both take a chunk of whole lines of the recorded log and answer how many events it held. Below 1 the parser is
the faster one; the printed MB/s is the parser's own and says more about the machine.
"""

import tempfile
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np

from engine.follow import decode, intern, parse, snapshot
from engine.follow.records import Kind
from perf import ratio
from shm.layout import ACCOUNT, MARKET, NAME, WORD, WORLD_STATUS
from tests import recorded

CHUNK_BYTES = 4 << 20  # as much as the tail hands over at once
ACCOUNTS = 1 << 15
PROCESSES, ROUNDS = 5, 21
STREAMS = {Kind.STATUSES: "order_statuses", Kind.DIFFS: "raw_book_diffs", Kind.FILLS: "fills"}


def tables() -> intern.Tables:
    rows = [np.zeros(count, dtype) for count, dtype in ((2048, MARKET), (1024, NAME), (ACCOUNTS, ACCOUNT))]
    return intern.tables(*rows, np.zeros(2 * ACCOUNTS, WORD), np.zeros(1, WORLD_STATUS))


def chunk(kind: Kind, form: str) -> bytes:
    """The first whole lines of a recorded stream."""
    with tempfile.TemporaryDirectory() as folder:
        (path,) = recorded.extract(Path(folder), form).glob(f"node_{STREAMS[kind]}_{form}/hourly/*/*")
        text = path.read_bytes()[:CHUNK_BYTES]
    return text[: text.rindex(b"\n") + 1]


def pair(kind: Kind, form: str) -> tuple[ratio.Work, ratio.Work]:
    text, parser, decoder = chunk(kind, form), parse.Parser(kind, tables()), decode.DECODERS[kind]
    lines = text.splitlines()
    return (
        lambda: len(parser.parse(text).records),
        lambda: sum([len(decoder.decode(line).events) for line in lines]),
    )


def statuses_by_block() -> tuple[ratio.Work, ratio.Work]:
    return pair(Kind.STATUSES, "by_block")


def statuses_streaming() -> tuple[ratio.Work, ratio.Work]:
    return pair(Kind.STATUSES, "streaming")


def diffs_by_block() -> tuple[ratio.Work, ratio.Work]:
    return pair(Kind.DIFFS, "by_block")


def diffs_streaming() -> tuple[ratio.Work, ratio.Work]:
    return pair(Kind.DIFFS, "streaming")


def snapshot_orders() -> tuple[ratio.Work, ratio.Work]:
    with tempfile.TemporaryDirectory() as folder:
        raw = recorded.snapshot_path(Path(folder)).read_bytes()
    shared, decoder = tables(), msgspec.json.Decoder(tuple[int, list[snapshot.Entry]])
    text = np.frombuffer(raw, np.uint8)
    return (
        lambda: len(snapshot.parse_snapshot(text, shared)[1]),
        lambda: sum(len(side) for _, sides in decoder.decode(raw)[1] for side in sides),
    )


def rate(kind: Kind, form: str) -> str:
    """The parser's MB/s, the best of some calls, and ns for a record."""
    text, parser = chunk(kind, form), parse.Parser(kind, tables())
    spent = []
    for _ in range(ROUNDS):
        start = perf_counter()
        count = len(parser.parse(text).records)
        spent.append(perf_counter() - start)
    return f"{len(text) / min(spent) / 1e6:.0f} MB/s, {min(spent) / count * 1e9:.0f} ns a record"


def main() -> None:
    parse.warm()
    for kind, form, works in (
        (Kind.STATUSES, "by_block", statuses_by_block),
        (Kind.STATUSES, "streaming", statuses_streaming),
        (Kind.DIFFS, "by_block", diffs_by_block),
        (Kind.DIFFS, "streaming", diffs_streaming),
    ):
        ratio.report(f"{STREAMS[kind]} {form} / typed decode", works, PROCESSES, ROUNDS)
        print(f"    {rate(kind, form)}")
    ratio.report("snapshot / typed decode", snapshot_orders, PROCESSES, 5)


if __name__ == "__main__":
    main()
