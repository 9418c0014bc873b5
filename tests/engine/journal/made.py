"""Journals to test with: commands that are told apart, and a writer that is fed with them."""

from pathlib import Path

import numpy as np

from engine.journal.reader import Reader
from engine.journal.record import RECORD_BYTES_MAX, SECTOR
from engine.journal.writer import Writer
from shm.layout import COMMAND

DIRECTORY = Path("/journal")  # on a disk in memory
SMALLEST = SECTOR + RECORD_BYTES_MAX


def commands(first, count):
    """COMMAND[count] from that sequence on; every byte of each follows from its sequence."""
    made = np.zeros(count, COMMAND)
    sequences = np.arange(first, first + count)
    bytes_of = (sequences[:, None] * 31 + np.arange(COMMAND.itemsize)) & 255
    made.view(np.uint8).reshape(count, COMMAND.itemsize)[:] = bytes_of
    made["sequence"] = sequences
    made["time_ns"] = made["sequence"] * 1000
    return made


def write(disk, *counts, epoch=1, directory=DIRECTORY, segment_bytes=SMALLEST):
    """Write batches of so many commands, each durable before the next one; give the writer."""
    writer = Writer(directory, epoch, disk, segment_bytes)
    for count in counts:
        writer.write(commands(writer.sequence, count))
        writer.sync()
        writer.make_spares()
    return writer


def everything(disk, sequence=1, directory=DIRECTORY, **more):
    """All that a reader gives, and itself."""
    reader, pieces = Reader(directory, sequence, disk=disk, **more), []
    while len(piece := reader.read()):
        pieces.append(piece)
    return (np.concatenate(pieces) if pieces else np.zeros(0, COMMAND)), reader


def same(found, first, count):
    """Whether exactly these commands were found."""
    return found.tobytes() == commands(first, count).tobytes()
