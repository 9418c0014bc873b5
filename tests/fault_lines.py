"""Faults in what a log says and in which order (F4 to F9, F11), as changes to a plan of chunks.

A chunk is what one block has in one stream. `LineFaults.spoil` puts one fault into a plan and marks the
chunks that it touched, with whether a careful reader can have lost something by it.
"""

import json
from dataclasses import dataclass
from random import Random

from tests.reference_book import STREAMS

FAULTS = tuple(f"F{number}" for number in range(1, 13))
SHUFFLE_MAX, LAG_MAX = 8, 24  # blocks that change places; blocks that a stream is behind
LONG_LINE_BYTES = 2 << 20
FOREIGN = (b"\n", b"null\n", b"[]\n", b"{}\n", b'{"unknown":1}\n', b"\xef\xbb\xbf\n", b"#\n")


@dataclass
class Chunk:
    """The lines of one block in one stream, to be written at one place of the script."""

    stream: str
    height: int
    content: bytes
    faults: frozenset[str] = frozenset()
    lossy: bool = False
    taken: bool = False  # written already, as a part of what happened to its file

    def spoil(self, fault: str, content: bytes | None = None, lossy: bool = False) -> None:
        self.content = self.content if content is None else content
        self.faults |= {fault}
        self.lossy |= lossy

    @property
    def label(self) -> str:
        return "+".join(sorted(self.faults, key=FAULTS.index))


class LineFaults:
    """Faults in what is written and in which order: F4 to F9 and F11."""

    def __init__(self, random: Random, form: str, lossy: bool):
        self._random = random
        self._form = form
        self._lossy = lossy

    def spoil(self, plan: list[Chunk], fault: str, with_snapshots: bool) -> list[Chunk]:
        if fault == "F4":
            return self._duplicate(plan)
        if fault == "F5":
            shuffled = self._random.random() < 0.5 and (self._lossy or self._form == "by_block")
            return self._shuffle(plan) if shuffled else self._lag(plan)
        if fault == "F6" and self._lossy:
            self._drop(plan)
        if fault == "F7" and self._lossy and self._random.random() < 0.3:
            self._drop_start(plan)
        if fault == "F8":
            for _ in range(self._random.randint(1, 3)):
                self._corrupt(self._random.choice(plan))
        if fault == "F9" and self._lossy and with_snapshots:
            self._falsify(plan)
        if fault == "F11":
            self._shift_times(plan)
        return plan

    def _duplicate(self, plan: list[Chunk]) -> list[Chunk]:
        """Write about one chunk of twenty, or one of its lines, again soon after."""
        again: dict[int, list[Chunk]] = {}
        for place, chunk in enumerate(plan):
            if self._random.random() < 0.05:
                content = chunk.content
                if self._random.random() < 0.3:
                    content = self._random.choice(content.splitlines(keepends=True))
                copy = Chunk(chunk.stream, chunk.height, content, frozenset({"F4"}))
                again.setdefault(min(len(plan) - 1, place + self._random.randint(0, 9)), []).append(copy)
        return [entry for place, chunk in enumerate(plan) for entry in (chunk, *again.get(place, ()))]

    def _shuffle(self, plan: list[Chunk]) -> list[Chunk]:
        """Change the order of some blocks in one stream. Streaming readers cannot know what is late."""
        stream = self._random.choice(STREAMS)
        places = [place for place, chunk in enumerate(plan) if chunk.stream == stream]
        for _ in range(self._random.randint(1, 4)):
            first = self._random.randrange(max(1, len(places) - SHUFFLE_MAX))
            window = places[first : first + self._random.randint(2, SHUFFLE_MAX)]
            moved = self._random.sample(window, len(window))
            shuffled = [plan[place] for place in moved]
            for place, chunk in zip(window, shuffled, strict=True):
                if plan[place] is not chunk:
                    chunk.spoil("F5", lossy=self._form == "streaming")
                plan[place] = chunk
        return plan

    def _lag(self, plan: list[Chunk]) -> list[Chunk]:
        """Let a stream be behind the others from the start: its file appears late, its end comes last."""
        stream, behind = self._random.choice(STREAMS), self._random.randint(1, LAG_MAX)
        for chunk in plan:
            if chunk.stream == stream:
                chunk.spoil("F5")
        return sorted(plan, key=lambda chunk: chunk.height + (behind + 0.5) * (chunk.stream == stream))

    def _drop(self, plan: list[Chunk]) -> None:
        """Leave out a block, or a few in a row, in one stream or in all."""
        first = self._random.choice(plan).height
        heights = range(first, first + self._random.choice((1, 1, 1, 2, 5)))
        streams = STREAMS if self._random.random() < 0.5 else (self._random.choice(STREAMS),)
        for chunk in plan:
            if chunk.height in heights and chunk.stream in streams:
                chunk.spoil("F6", b"", lossy=True)

    def _drop_start(self, plan: list[Chunk]) -> None:
        """Leave out the first blocks: the log begins after the snapshot."""
        first = min(chunk.height for chunk in plan) + self._random.randint(1, 10)
        for chunk in plan:
            if chunk.height < first:
                chunk.spoil("F7", b"", lossy=True)

    def _corrupt(self, chunk: Chunk) -> None:
        """Spoil a line so that it is no record, or put in a foreign line or key, which loses nothing."""
        lines = chunk.content.splitlines(keepends=True)
        if not lines or "F8" in chunk.faults:
            return
        place = self._random.randrange(len(lines))
        harmless = [_with_long_line, _with_foreign_line, _with_unknown_key]
        harmful = [with_flipped_bit, _with_nul, _with_bad_utf8, _cut, _with_wrong_type]
        kind = self._random.choice(harmful if self._lossy and self._random.random() < 0.7 else harmless)
        lines[place] = kind(self._random, lines[place])
        chunk.spoil("F8", b"".join(lines), lossy=kind in harmful)

    def _falsify(self, plan: list[Chunk]) -> None:
        """Change the size of a new order: all lines are well formed, only a comparison can find it."""
        chunk = self._random.choice([chunk for chunk in plan if b'{"new":{"sz":"' in chunk.content] or plan)
        before, mark, after = chunk.content.partition(b'{"new":{"sz":"')
        if mark:
            chunk.spoil("F9", before + mark + b"7" + after, lossy=True)

    def _shift_times(self, plan: list[Chunk]) -> None:
        """Move the stamps of some lines to another hour or year; the heights still tell the order."""
        for chunk in plan:
            if "F8" not in chunk.faults and self._random.random() < 0.2:
                year, hour = self._random.choice((1999, 2025, 2031)), self._random.randrange(24)
                lines = [_restamped(line, year, hour) for line in chunk.content.splitlines(keepends=True)]
                chunk.spoil("F11", b"".join(lines))


def _restamped(line: bytes, year: int, hour: int) -> bytes:
    head, mark, events = line.partition(b',"block_number":')
    key = b'_time":"'
    parts = head.split(key)
    stamped = [b"%04d%b%02d%b" % (year, part[4:11], hour, part[13:]) for part in parts[1:]]
    return key.join([parts[0], *stamped]) + mark + events


def with_flipped_bit(random: Random, line: bytes) -> bytes:
    """Flip a bit such that the line is no JSON any more: another flip nobody could notice."""
    while True:
        place, bit = random.randrange(len(line) - 1), 1 << random.randrange(8)
        flipped = line[:place] + bytes([line[place] ^ bit]) + line[place + 1 :]
        try:
            json.loads(flipped)
        except ValueError:
            return flipped


def _with_nul(random: Random, line: bytes) -> bytes:
    place = random.randrange(len(line) - 1)
    return line[:place] + b"\0" * random.randint(1, 600) + line[place + 1 :]


def _with_bad_utf8(random: Random, line: bytes) -> bytes:
    place = random.randrange(len(line) - 1)
    return line[:place] + random.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8")) + line[place + 1 :]


def _cut(random: Random, line: bytes) -> bytes:
    return line[: random.randrange(1, len(line) - 1)] + b"\n"


def _with_wrong_type(random: Random, line: bytes) -> bytes:
    """Well-formed JSON that is no record."""
    changes = [
        (b'"events":', b'"eventz":'),
        (b'"block_number":', b'"block_number":-'),
        (b'"events":[', b'"events":[7,'),
        (b'{"new":', b'{"old":'),
        (b'"raw_book_diff":', b'"raw_book_diff":[],"was":'),
        (b'"oid":', b'"oid":1.5e'),
        (b'"limitPx":"', b'"limitPx":"x'),
    ]
    old, new = random.choice([change for change in changes if change[0] in line])
    return line.replace(old, new, 1).replace(b"[7,]", b"[7]", 1)


def _with_long_line(random: Random, line: bytes) -> bytes:
    return b'{"local_time":"' + b"x" * random.randrange(LONG_LINE_BYTES) + b"\n" + line


def _with_foreign_line(random: Random, line: bytes) -> bytes:
    return random.choice(FOREIGN) + line


def _with_unknown_key(random: Random, line: bytes) -> bytes:
    """A record with one more key, as a newer node might write: the general decode must take it."""
    return line.rstrip()[:-1] + random.choice(
        (b',"extra":{"a":[1,"]}"]}}\n', b',"extra":null}\n', b',"x":-1.5e3}\n')
    )
