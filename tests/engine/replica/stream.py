"""Commands as a journal would give them, and a source that gives them in pieces."""

import sqlite3

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
RINGS |= {"candles_kept": 8, "twaps": 16}
TWAPS = 20


def twaps_after(given: list[Command]) -> list[Command]:
    """Blocks in which somebody who was given money begins TWAPs and cancels them."""
    market, deposit = (
        next(each for each in given if each.kind == kind) for kind in (Kinds.ADD_MARKET, Kinds.DEPOSIT)
    )
    facts = {"signer": deposit.other, "flags": int(Ask.SESSION), "time_ns": given[-1].time_ns}
    quantity = 1000 * 10**USD_PLACES // market.price
    end, asked = Command(kind=int(Kinds.END_BLOCK), time_ns=given[-1].time_ns), []
    for id in range(1, TWAPS + 1):
        asked += [Command(kind=int(Kinds.TWAP), quantity=quantity, amount=5, **facts), end]
        asked += [Command(kind=int(Kinds.TWAP_CANCEL), order=id, **facts), end]
    return asked


def stream(seed: int = 3, capacity: cores.Capacity = ROOMY) -> np.ndarray:
    """Whole blocks of random commands, and TWAPs at last; their ends say what the engine's digest was."""
    given = [command for block in random_blocks(Swarm(seed, capacity)) for command in block]
    commands = encode([*given, *twaps_after(given)])
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
    """All that an archive holds."""
    connection = sqlite3.connect(path)
    found = {
        table.name: connection.execute(
            f"SELECT {archived.selected(table)} FROM {table.name} ORDER BY {', '.join(table.keys)}"
        ).fetchall()
        for table in archived.TABLES
    }
    found["span"] = connection.execute("SELECT * FROM span").fetchall()
    connection.close()
    return found
