"""Commands as a journal would give them, and a source that gives them in pieces."""

import sqlite3
from collections.abc import Iterator

import numpy as np

from engine.exchange import state as cores
from engine.exchange.apply import apply_commands
from engine.replica.copy import blocks
from shm import archived
from shm.codes import Ask
from shm.codes import Command as Kinds
from shm.constants import USD_PLACES
from tests.engine.exchange.test_project import blocks as random_blocks
from tests.exchange.commands import ROOMY, Swarm
from tests.exchange.terms import Command, encode

RINGS = {"events": 64, "fills": 16, "trades": 16, "closed": 16, "rejected": 16, "ledger": 16, "buckets": 8}
RINGS |= {"candles_kept": 8, "twaps": 16, "rates": 2 * ROOMY.markets}
APART_NS = 1_500_000_000_000  # between two blocks: most hours have some of them


def with_twaps(blocks: Iterator[list[Command]]) -> Iterator[Command]:
    """In each block somebody who has money begins a TWAP, and cancels it before it has placed anything."""
    market = deposit = None
    id = 0
    for *asked, end in blocks:
        yield from asked
        market = market or next((each for each in asked if each.kind == Kinds.ADD_MARKET), None)
        deposit = deposit or next((each for each in asked if each.kind == Kinds.DEPOSIT), None)
        if market and deposit:
            id += 1
            facts = {"signer": deposit.other, "flags": int(Ask.SESSION), "time_ns": end.time_ns}
            quantity = 1000 * 10**USD_PLACES // market.price
            yield Command(kind=int(Kinds.TWAP), quantity=quantity, amount=5, **facts)
            yield Command(kind=int(Kinds.TWAP_CANCEL), order=id, **facts)
        yield end


def with_hours(blocks: Iterator[list[Command]]) -> Iterator[list[Command]]:
    """Hours go by, and the oracle is heard in each block, for whoever opens the first market."""
    price = None
    for n, block in enumerate(blocks):
        *asked, end = (each._replace(time_ns=each.time_ns + n * APART_NS) for each in block)
        first = next((each for each in asked if each.kind == Kinds.ADD_MARKET), None)
        price = price or (first and first.price)
        if price:
            asked.append(Command(kind=int(Kinds.ORACLE), market=0, price=price, time_ns=end.time_ns))
        yield [*asked, end]


def stream(seed: int = 3, capacity: cores.Capacity = ROOMY) -> np.ndarray:
    """Whole blocks of random commands, whose ends say what the engine's digest was."""
    commands = encode([*with_twaps(with_hours(random_blocks(Swarm(seed, capacity))))])
    commands["sequence"] = np.arange(1, len(commands) + 1)
    core = cores.allocate(capacity)
    for block in blocks(commands)[0]:
        block["amount"][-1] = core.heap[0]["block_digest"]
        done = 0
        while done < len(block):
            done += apply_commands(core, block[done:], len(block) - done)
    return commands


class Pieces:
    """Gives commands in pieces that know nothing of blocks, and nothing when it has given all."""

    def __init__(self, commands, first=1, pieces=(1, 70, 3, 200)):
        self.commands, self.first, self._pieces, self._at = commands, first, pieces, 0
        self.sequence, self.forgotten = 1, 0
        self.until = len(commands)

    def begin(self, sequence):
        assert sequence >= self.first
        self.sequence = sequence

    def read(self):
        self._at += 1
        count = self._pieces[self._at % len(self._pieces)]
        given = self.commands[self.sequence - 1 : min(self.sequence - 1 + count, self.until)]
        self.sequence += len(given)
        return given.copy()

    def forget(self, sequence):
        self.forgotten = sequence


def rows(path) -> dict:
    """All that an archive holds, item by item: of a ring each with its position, and in that order."""
    connection = sqlite3.connect(path)
    forms = archived.forms(connection.execute("SELECT id, fields FROM forms"))
    found = {}
    for table in archived.TABLES:
        if table.ring:
            runs = connection.execute(f"SELECT form, records FROM {table.name}")
            items = [archived.unpacked(table, np.frombuffer(memory, forms[form])) for form, memory in runs]
            records = np.concatenate([np.zeros(0, table.dtype), *items])
            records = records[np.argsort(records["sequence"])]
            kept = archived.to_rows(table, records)
            found[table.name] = [
                (at - 1, *row) for at, row in zip(records["sequence"].tolist(), kept, strict=True)
            ]
        else:
            told = f"SELECT {archived.selected(table)} FROM {table.name} ORDER BY {', '.join(table.keys)}"
            found[table.name] = connection.execute(told).fetchall()
    found["span"] = connection.execute("SELECT * FROM span").fetchall()
    connection.close()
    return found
