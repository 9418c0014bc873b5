"""One line for each thing that happened: JSON in a file that is bounded, plain text for people.

Lines of children pass through here too. What a person sees is free of control characters, whoever wrote it.
"""

import io
import json
import os
import select
import time
from collections import deque
from pathlib import Path
from typing import Any, TextIO

import msgspec

FILE_BYTES_MAX = 16 << 20  # then the file becomes ringside.log.1, and the one before it is dropped
TEXT_MAX = 4_000  # characters of one line
RECENT_MAX = 6  # lines kept for the screen
_OURS = {"time", "time_ms", "process", "level", "who", "text", "unshown"}  # said by this log of every line


class Log:
    """Append to `directory`/ringside.log, and say the same on `people` (None: to nobody).

    A log that cannot be written ends nothing: the lines are counted in `lost_count` and go on to `people`.
    """

    def __init__(self, directory: Path, people: TextIO | None):
        self.path = directory / "ringside.log"
        self.people = people
        self.recent: deque[str] = deque(maxlen=RECENT_MAX)
        self.lost_count = 0
        self._open()

    def write(
        self,
        text: str,
        *,
        who: str = "supervisor",
        level: str = "info",
        unshown: dict[str, Any] | None = None,
        **facts: Any,
    ) -> None:
        """level: info, warning or error. facts: anything JSON can hold, shown to people as name=value.

        unshown: more facts, for the file alone.
        """
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        text = text[:TEXT_MAX]
        self._append({"time": stamp, "level": level, "who": who, "text": text, **facts, **(unshown or {})})
        shown = " ".join([text, *(f"{name}={value}" for name, value in facts.items())])
        mark = "" if level == "info" else f"{level}: "
        line = f"{time.strftime('%H:%M:%S', time.localtime(now))} {who}: {mark}{printable(shown)}"
        self.recent.append(line)
        if self.people is not None:
            say(self.people, line + "\n")

    def forward(self, who: str, line: str) -> None:
        """Take over a line that a child has printed. A JSON object with an `event` keeps its facts.

        The event `fault` is an error: a child says so of a bug of ours.
        """
        try:
            facts = json.loads(line)
            text = facts.pop("event")
        except (ValueError, RecursionError, TypeError, AttributeError, KeyError):
            text, facts = line, {}
        if not isinstance(text, str):
            text, facts = line, {}
        level = "error" if text == "fault" else "info"
        self.write(text, who=who, level=level, **{name: facts[name] for name in facts if name not in _OURS})

    def close(self) -> None:
        os.close(self._file)

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, default=_plain).encode() + b"\n"
        try:
            if self._size + len(line) > FILE_BYTES_MAX:
                self.path.replace(self.path.with_suffix(".log.1"))
                full = self._file
                self._open()
                os.close(full)
            self._size += os.write(self._file, line)
        except OSError:
            self.lost_count += 1

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else str(value)


def say(out: TextIO, text: str) -> bool:
    """Write `text` if `out` takes it now. A terminal that was stopped, or a pipe that nobody reads, stops
    nobody.

    False: it was dropped.
    """
    try:
        waiter = select.poll()
        waiter.register(out, select.POLLOUT)
        if not waiter.poll(0):
            return False
    except (TypeError, ValueError, io.UnsupportedOperation):
        pass  # no file of the system
    try:
        out.write(text)
        out.flush()
    except (OSError, ValueError):
        return False
    return True


def printable(text: str) -> str:
    """Replace what could move a cursor or hide a text."""
    return "".join(character if character.isprintable() else "?" for character in text)
