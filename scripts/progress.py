"""How far something is, for a person at a terminal: a bar drawn over itself, and nothing elsewhere."""

import time
from typing import TextIO

CELLS = 24
REDRAW_SECONDS = 0.1
CLEAR = "\r\x1b[K"


def bar(done: int, total: int) -> str:
    filled = CELLS * min(done, total) // max(total, 1)
    return "[" + "#" * filled + "." * (CELLS - filled) + "]"


class Bar:
    """`show` as often as one likes; `clear` before anything else is written to the terminal."""

    def __init__(self, what: str, out: TextIO):
        self._what, self._out = what, out
        self._is_shown = out.isatty()
        self._drawn = 0.0

    def show(self, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if self._is_shown and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._out.write(f"{CLEAR}{self._what} {bar(done, total)} {done:,} of {total:,} {unit}")
            self._out.flush()

    def clear(self) -> None:
        if self._is_shown and self._drawn:
            self._drawn = 0.0
            self._out.write(CLEAR)
            self._out.flush()
