"""What an exchange leaves on its disk, made without one: a journal of random commands, and its snapshots.

commands = kept(data)    # all of them; data: its data directory
"""

from pathlib import Path

import numpy as np

from engine.journal.disk import Disk
from engine.journal.writer import Writer
from engine.replica.copy import Copy, blocks
from tests.engine.journal.made import SMALLEST
from tests.engine.replica.stream import RINGS, stream
from tests.exchange.commands import ROOMY

SAVED = (0.3, 0.7)  # of the blocks, before a snapshot is taken
CONFIG = "[exchange.capacity]\n" + "".join(
    f"{name} = {getattr(ROOMY, name)}\n" for name in ("accounts", "orders", "levels", "agents")
)


def kept(data: Path, seed: int = 3) -> np.ndarray:
    """COMMAND[], as the journal holds them: a record for each block, and a segment for each tenth of them."""
    commands = stream(seed)
    whole, left = blocks(commands)
    assert len(left) == 0
    for tenth in np.array_split(np.arange(len(whole)), 10):
        writer = Writer(data / "journal", 1, Disk(), SMALLEST)
        for at in tenth:
            writer.write(whole[at])
            writer.sync()
        writer.close()
    copy = Copy(ROOMY, RINGS)
    for at, block in enumerate(whole):
        copy.take(block, lambda world, sequence: None)
        if at in [int(share * len(whole)) for share in SAVED]:
            copy.save(data / "snapshots")
    return commands
