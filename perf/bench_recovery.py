"""How soon is an exchange back, how far is its replica behind, and what does a snapshot cost the others?

recovered  a journal of a million commands, read, applied and shown / the same commands applied, from memory;
           and / applied and shown, which is what the engine had done with them
followed   the replica: read, compared, applied, shown and archived / applied and shown. Above 1 a replica is
           further behind the longer an engine works at full load, by that share of the time
disturbed  commands applied, and records of them written and synced, while another process takes one snapshot
           after the other / while it stands still
"""

import multiprocessing
import os
import signal
import socket
import tempfile
from functools import partial
from multiprocessing import util
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from engine.exchange import project, recovery, snapshot, state, world
from engine.exchange.apply import apply_commands
from engine.journal.writer import Writer
from engine.replica.runner import Runner, Settings
from engine.replica.source import Journal
from perf import apply_commands as streams
from perf import ratio
from perf.apply_commands import BLOCK, Stream
from shm.codes import Command
from shm.control import Line

MILLION, RESTING = 1_000_000, 10_000
RECORD = 512  # commands made durable at once
ROUNDS, PROCESSES = 5, 3
TURN, TURN_ROUNDS = 8 * BLOCK, 15

_kept: list[Any] = []  # directories, until the process ends


def journal_of(stream: Stream) -> Path:
    folder = tempfile.TemporaryDirectory()
    _kept.append(folder)
    directory = Path(folder.name) / "journal"
    writer = Writer(directory, 1)
    for at in range(0, len(stream.commands), RECORD):
        writer.write(stream.commands[at : at + RECORD])
        writer.sync()
        writer.make_spares()
    writer.close()
    return directory


def empty(stream: Stream) -> tuple[state.State, world.World]:
    return state.allocate(stream.capacity), world.allocate(world.capacity_for(stream.capacity))


def matched(stream: Stream, is_shown: bool) -> int:
    """What the engine does with all of them."""
    core, shown = empty(stream)
    at = 0
    while at < len(stream.commands):
        piece = stream.commands[at : at + BLOCK]
        at += apply_commands(core, piece, len(piece))
        if is_shown:
            project.project(shown, core.outcomes, int(core.heap[0]["outcomes"]))
    return int(core.heap[0]["digest"])


def recovered(stream: Stream, journal: Path) -> int:
    core, shown = empty(stream)
    until = len(stream.commands)
    recovery.recover(journal, journal.parent / "none", core, shown, until, 0, lambda sequence: None)
    return int(core.heap[0]["digest"])


def a_mix() -> tuple[Stream, Path]:
    stream = streams.mix(RESTING, MILLION)
    return stream, journal_of(stream)


def recovery_and(is_shown: bool) -> tuple[ratio.Work, ratio.Work]:
    stream, journal = a_mix()
    return partial(recovered, stream, journal), partial(matched, stream, is_shown)


def replica() -> tuple[ratio.Work, ratio.Work]:
    stream, journal = a_mix()
    capacity, count = stream.capacity._asdict(), [0]

    def followed() -> int:
        count[0] += 1
        folder = journal.parent / str(count[0])
        settings = Settings(
            journal="", snapshots=str(folder / "snapshots"), archive=str(folder / "archive"),
            capacity=capacity, snapshot_seconds=1e9, snapshot_commands=1 << 40,
        )  # fmt: skip
        running = Runner(settings, Journal(journal), Line(socket.socketpair()[0]))
        running.begin()
        while running.turn(int(perf_counter() * 1e9)):
            pass
        running.archive.commit()  # what waits for more to be written with it, too
        running.archive.close()
        return running.copy.sequence // BLOCK  # the last block is not whole

    return followed, lambda: matched(stream, True) * 0 + len(stream.commands) // BLOCK


# --- snapshots ----------------------------------------------------------------------------------------------


def snapshots_without_end(directory: str, ready: Any) -> None:
    """In a process of its own."""
    os.nice(10)
    stream = streams.mix(MILLION, BLOCK)
    core, shown = empty(stream)
    whole = stream.commands[: np.flatnonzero(stream.commands["kind"] == Command.END_BLOCK)[-1] + 1]
    for at in range(0, len(whole), BLOCK):
        piece = whole[at : at + BLOCK]
        apply_commands(core, piece, len(piece))
        project.project(shown, core.outcomes, int(core.heap[0]["outcomes"]))
    snapshot.save(Path(directory), core, shown)
    ready.send(True)
    while True:
        for path in Path(directory).glob(f"*{snapshot.SUFFIX}"):
            path.unlink()
        snapshot.save(Path(directory), core, shown)


def disturbed(is_written: bool) -> tuple[ratio.Work, ratio.Work]:
    folder = tempfile.TemporaryDirectory()
    _kept.append(folder)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    other = context.Process(target=snapshots_without_end, args=(folder.name, there), daemon=True)
    other.start()
    util.Finalize(None, other.kill, exitpriority=1)  # a process that stands still hears nothing milder
    here.recv()
    os.kill(other.pid or 0, signal.SIGSTOP)
    stream = streams.mix(RESTING, TURN * 2 * (TURN_ROUNDS + 1))
    core, writer = state.allocate(stream.capacity), Writer(Path(folder.name) / "journal", 1)
    at = [0]

    def work() -> int:
        until = min(at[0] + TURN, len(stream.commands))
        while at[0] < until:
            piece = stream.commands[at[0] : min(at[0] + RECORD, until)]
            if is_written:
                writer.write(piece)
                writer.sync()
            apply_commands(core, piece, len(piece))
            at[0] += len(piece)
        writer.make_spares()
        return TURN

    def beside() -> int:
        os.kill(other.pid or 0, signal.SIGCONT)
        try:
            return work()
        finally:
            os.kill(other.pid or 0, signal.SIGSTOP)

    return beside, work


if __name__ == "__main__":
    for is_shown, what in ((False, "applied"), (True, "applied and shown")):
        name = f"a million commands recovered / {what}"
        ratio.report(name, partial(recovery_and, is_shown), PROCESSES, ROUNDS)
    ratio.report("a million commands followed / applied and shown", replica, PROCESSES, ROUNDS)
    for is_written, what in ((False, "applied"), (True, "written, synced and applied")):
        name = f"commands {what} beside snapshots without end / alone"
        ratio.report(name, partial(disturbed, is_written), PROCESSES, TURN_ROUNDS)
