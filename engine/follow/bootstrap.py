"""Where snapshots come from: a file that someone writes, or the node's own info server.

A source is asked and answers later; it never blocks the engine. A file is read again when it has changed. A
node is asked to write one (`fileSnapshot`): its reply says only that the file is there, so the file's name is
ours and the node must be able to write into our directory.
"""

import os
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

REPLY_SECONDS = 120  # a node can hold its state lock for long
REPLY_BYTES_MAX = 64 << 20


class Source(Protocol):
    def ask(self) -> bool:
        """Ask for a snapshot, unless one is on its way. False: there is none to be had now."""

    def take(self) -> np.ndarray | None:
        """The text of the snapshot that came since the last call (u1[]), or None. Raises OSError,
        ValueError.
        """


class NoSource:
    """Follow without a snapshot: every market is in doubt."""

    def ask(self) -> bool:
        return False

    def take(self) -> None:
        return None


class FileSource:
    """A snapshot file; it counts as new when its inode, size or modification time is."""

    def __init__(self, path: Path):
        self.path = path
        self._stamp: tuple[int, ...] = ()
        self._asked = False

    def ask(self) -> bool:
        self._asked = self._asked or self._now() not in ((), self._stamp)
        return self._asked

    def _now(self) -> tuple[int, ...]:
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            return ()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def take(self) -> np.ndarray | None:
        if not self._asked:
            return None
        self._asked, self._stamp = False, self._now()
        return np.fromfile(self.path, np.uint8)


class NodeSource:
    """The `fileSnapshot` request of a node's info server.

    url   the server's base address, http://127.0.0.1:3001
    path  where the node is to write
    """

    def __init__(self, url: str, path: Path):
        self.url, self.path = url.rstrip("/"), path
        self._pool = ThreadPoolExecutor(1, "snapshot")
        self._reply: Future[np.ndarray] | None = None

    def ask(self) -> bool:
        if self._reply is None:
            self._reply = self._pool.submit(self._fetch)
        return True

    def take(self) -> np.ndarray | None:
        if self._reply is None or not self._reply.done():
            return None
        reply, self._reply = self._reply, None
        return reply.result()

    def _fetch(self) -> np.ndarray:
        """Have the node write its L4 snapshot, with users and untriggered orders, and read it."""
        self.path.unlink(missing_ok=True)
        request = {
            "type": "fileSnapshot",
            "request": {"type": "l4Snapshots", "includeUsers": True, "includeTriggerOrders": True},
            "outPath": str(self.path.absolute()),
            "includeHeightInOutput": True,
        }
        ask_node(self.url, request)
        text = np.fromfile(self.path, np.uint8)
        self.path.unlink(missing_ok=True)
        return text


def ask_node(url: str, request: dict[str, Any]) -> bytes:
    """POST one request to a node's /info and return the body. Raises OSError."""
    body = msgspec.json.encode(request)
    post = urllib.request.Request(f"{url.rstrip('/')}/info", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(post, timeout=REPLY_SECONDS) as reply:  # noqa: S310 - the operator's own address
        return reply.read(REPLY_BYTES_MAX)
