"""Processes of an exchange that recover wrongly, or are taken over wrongly: what a kill test must notice.

    monkeypatch.setenv("PYTHONPATH", broken.path(folder, name))    # of every process that is started

Each way is some lines that are added to a module of the engine when a process imports it.
"""

import os
from pathlib import Path
from typing import NamedTuple


class Way(NamedTuple):
    """caught: what the test says of it."""

    module: str
    lines: str
    caught: str


WAYS = {
    "the last durable records are lost": Way(
        "engine.journal.writer",
        """
import os
import numpy as np
from engine.journal.record import HEADER

_settled = Writer._settle

def _lose(self, segment):
    path = path_of(self._directory, segment)
    text = bytearray(path.read_bytes())
    headers = np.frombuffer(text, HEADER)[:: SECTOR // HEADER.itemsize]
    kept = np.flatnonzero((headers["magic"] == record.MAGIC) & (headers["kind"] == Kind.COMMANDS))
    if len(kept) > 5:
        os.truncate(path, int(kept[-5]) * SECTOR)
    _settled(self, segment)

Writer._settle = _lose
""",
        "that were accepted are not in the journal",
    ),
    "commands are numbered and done once more": Way(
        "engine.exchange.runner",
        """
from engine.journal.reader import Reader
from shm.codes import Command as _Command

_begun = Runner._begin

def _again(self, waiter):
    if self._recorded:
        reader = Reader(Path(self.settings.journal), max(self._recorded - 200, 1), only_durable=False)
        commands = reader.read()
        for command in commands[commands["kind"] == _Command.ORDER][-20:]:
            self._batch[0] = command
            self._apply(1)
    _begun(self, waiter)

Runner._begin = _again
""",
        "an order was executed twice",
    ),
}

ORPHANS = {
    "an engine takes again what it has taken": Way(
        "engine.exchange.doors",
        """
_known = Doors.knows

def _again(self, index, fd):
    known = _known(self, index, fd)
    if known:
        ring = self._open[index][1].command_ring
        ring["head"] -= min(int(ring["head"][0]), 8)
    return known

Doors.knows = _again
""",
        "orders that are accepted|nobody was disconnected|executed twice",
    ),
    "an engine forgets a door that it is shown again": Way(
        "engine.exchange.doors",
        """
Doors.knows = lambda self, index, fd: self._open.pop(index, None) is not None
""",
        "orders that are accepted",
    ),
}

_HOOK = """
import importlib.abc, importlib.util, sys

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            exec({lines!r}, module.__dict__)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Hook())
"""


def path(folder: Path, name: str) -> str:
    """What PYTHONPATH must be."""
    hooks = folder / "hooks"
    hooks.mkdir()
    way = (WAYS | ORPHANS)[name]
    (hooks / "sitecustomize.py").write_text(_HOOK.format(module=way.module, lines=way.lines))
    return os.pathsep.join([str(hooks), *filter(None, [os.environ.get("PYTHONPATH")])])
