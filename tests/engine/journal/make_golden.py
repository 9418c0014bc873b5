"""The golden journal of the format of today, and what is known of it: `golden/v1` is the journal, `v1.json`
says what its records are, and `v1.replayed.json` where its commands lead to.

    python -m tests.engine.journal.make_golden             write all of it, where the version has none yet
    python -m tests.engine.journal.make_golden --replayed  only where its commands lead to

The journal is never made again once its version was released: a change of the format is another version. Its
ends of blocks know no digests, so that it stays true when the rules change; those stand beside it.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from engine.exchange.apply import apply_commands
from engine.exchange.state import allocate
from engine.journal import record
from engine.journal.disk import Disk
from engine.journal.reader import Reader, path_of
from engine.journal.record import HEADER, SECTOR, Kind
from engine.journal.writer import Writer
from shm.codes import Command
from shm.layout import COMMAND
from tests.engine.journal.made import SMALLEST
from tests.engine.replica.stream import stream
from tests.exchange.commands import ROOMY

GOLDEN = Path(__file__).with_name("golden")
SEED = 5
BATCHES = ((1, 7, 30, 2), (60, 1, 1, 90))  # commands of each record, in two lives
TORN = 400  # bytes that there are of one more record


def directory(version: int = record.VERSION) -> Path:
    return GOLDEN / f"v{version}"


def write(at: Path, commands: np.ndarray, torn: bytes) -> None:
    """The journal of these commands: two lives, the second of which is cut off while it writes `torn`."""
    for epoch, counts in enumerate(BATCHES, 1):
        writer = Writer(at, epoch, Disk(), SMALLEST)
        for count in counts:
            writer.write(commands[writer.sequence - 1 : writer.sequence - 1 + count])
            writer.sync()
        if epoch < len(BATCHES):
            writer.close()
    writer.drop()
    with open(path_of(at, writer._segment), "r+b") as file:
        file.truncate(writer._offset)
        file.seek(writer._offset)
        file.write(torn)
    for path in at.iterdir():
        if path > path_of(at, writer._segment):
            path.unlink()  # spare


def torn(at: Path) -> bytes:
    """The beginning of one more record, as it stands at the end of the last segment."""
    return max(at.iterdir()).read_bytes()[-TORN:]


def read(at: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Its commands, and what is to be known of it: every header, and the end."""
    reader, pieces = Reader(at, only_durable=False), []
    while len(piece := reader.read()):
        pieces.append(piece.view("i8"))
    end = reader.end()
    reader.close()
    commands = np.concatenate(pieces).view(COMMAND)
    known = {
        "version": record.VERSION,
        "layout": record.LAYOUT.decode(),
        "commands": hashlib.sha256(commands.tobytes()).hexdigest(),
        "end": {**end._asdict(), "chain": end.chain.hex()},
        "records": {path.name: headers(path) for path in sorted(at.iterdir())},
    }
    return commands, known


def headers(path: Path) -> list[dict[str, Any]]:
    """What each record of a segment says of itself."""
    text = path.read_bytes()
    whole = np.frombuffer(text[: len(text) // SECTOR * SECTOR], HEADER)[:: SECTOR // HEADER.itemsize]
    names = ("kind", "length", "epoch", "segment", "offset", "sequence", "count", "time_ns", "durable")
    return [
        {name: int(header[name]) for name in names} | {"chain": header["chain"].tobytes().hex()}
        for header in whole[whole["magic"] == record.MAGIC]
    ]


def replayed(commands: np.ndarray) -> dict[str, Any]:
    """What the commands lead to by the rules of today: the digest at each end of a block."""
    core, digests = allocate(ROOMY), []
    for at in range(len(commands)):
        assert apply_commands(core, commands[at : at + 1], 1) == 1
        if commands["kind"][at] == Command.END_BLOCK:
            digests.append(f"{int(core.heap[0]['digest']) & (1 << 64) - 1:016x}")
    return {"orders": int(core.heap[0]["orders"]), "digests": digests}


def main() -> None:
    at = directory()
    if "--replayed" not in sys.argv:
        if at.exists():
            sys.exit(f"{at} is there: it is only removed if its version was never released")
        commands = stream(SEED)[: sum(map(sum, BATCHES))].copy()
        commands["amount"][commands["kind"] == Command.END_BLOCK] = 0
        draft = record.Draft()
        draft.take(commands[:9])
        more = draft.close(Kind.COMMANDS, len(BATCHES), len(commands) + 1)
        write(at, commands, more[:TORN].tobytes())
        at.with_suffix(".json").write_text(json.dumps(read(at)[1], indent=1) + "\n")
    found = replayed(read(at)[0])
    at.with_suffix(".replayed.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
