"""Reads the archive on a thread of its own: what a disk takes, the loop does not wait for.

Another process writes it (engine/replica). There may be none yet, it may be deleted and made again, and it
may be damaged: then the answers are what shared memory holds.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from gateway.errors import NotNow
from gateway.older import Elsewhere, Questions, Sampled, Wanted, cut, sampled, statement
from gateway.world import Array
from shm import archived
from shm.archived import Table

WAITING_MAX = 64  # questions at a time; who comes then is to ask again

Reply = Callable[[bytes | None], None]
Forms = dict[int, np.dtype[Any]]


class Archive:
    """`path` need not exist. Made inside the running loop; `close` ends its thread."""

    def __init__(self, path: str):
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "archive")
        self._waiting = 0
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None  # which file that is

    def ask(self, question: Elsewhere, reply: Reply) -> None:
        """Have the rest of an answer read, and call `reply` with it later, on the loop; None: not now."""
        if self._waiting >= WAITING_MAX:
            raise NotNow
        self._waiting += 1
        asked = self._thread.submit(self._read_all, question.wanted)
        asked.add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(partial(self._finish, question, reply, done))
        )

    def close(self) -> None:
        """Nothing is read any more; who still waits gets no answer."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _finish(self, question: Elsewhere, reply: Reply, done: "Future[list[Array]]") -> None:
        self._waiting -= 1
        if done.cancelled():
            return
        try:
            reply(question.finish(done.result()))
        except NotNow:
            reply(None)

    # --- on the thread --------------------------------------------------------------------------------------

    def _read_all(self, wanted: Questions) -> list[Array]:
        """The rows of each, if all joints are there; else of none."""
        try:
            connection = self._connect()
            if all(_has_joint(connection, each) for each in wanted):
                return [_read(connection, each) for each in wanted]
        except (OSError, sqlite3.Error):
            self._drop()
        return [np.zeros(0, each.table.dtype) for each in wanted]

    def _connect(self) -> sqlite3.Connection:
        """The file that is there now. Raises OSError, sqlite3.Error."""
        found = os.stat(self._path)
        if self._connection is None or self._opened != (found.st_dev, found.st_ino):
            self._drop()
            self._opened = (found.st_dev, found.st_ino)
            self._connection = sqlite3.connect(
                f"file:{self._path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _has_joint(connection: sqlite3.Connection, wanted: Wanted | Sampled) -> bool:
    if isinstance(wanted, Sampled):
        return True  # it needs none
    joint, _, place, _ = statement(wanted)
    found = connection.execute(joint, place).fetchone()
    if found is None or not wanted.table.ring:
        return found is not None
    return wanted.joint + 1 in _run(wanted.table, _forms(connection), *found)["sequence"]


def _read(connection: sqlite3.Connection, wanted: Wanted | Sampled) -> Array:
    if isinstance(wanted, Sampled):
        rows, values = sampled(wanted)
    else:
        _, rows, _, values = statement(wanted)
    found = connection.execute(rows, values)
    if isinstance(wanted, Wanted) and wanted.table.ring:
        return _read_runs(wanted, _forms(connection), found)
    return archived.to_records(wanted.table, found.fetchall())


def _read_runs(wanted: Wanted, forms: Forms, found: Iterable[tuple[int, bytes]]) -> Array:
    """Run by run, until there is enough."""
    parts, count = [np.zeros(0, wanted.table.dtype)], 0
    for form, memory in found:
        parts.append(cut(wanted, _run(wanted.table, forms, form, memory)))
        count += len(parts[-1])
        if count >= wanted.most:
            break
    return np.concatenate(parts)[: wanted.most]


def _run(table: Table, forms: Forms, form: int, memory: bytes) -> Array:
    return archived.unpacked(table, np.frombuffer(memory, forms[form]))


def _forms(connection: sqlite3.Connection) -> Forms:
    return archived.forms(connection.execute(f"SELECT id, fields FROM {archived.FORMS}"))
