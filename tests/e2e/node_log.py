"""A node's log, cut where its writer may stop, and written again piece by piece while someone follows it."""

import re
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests import reference_book

_HEIGHT = re.compile(rb'"block_number":(\d+)')
_HEAD_BYTES = 400  # of a line, in which its block number stands


class Piece(NamedTuple):
    """Bytes that a node appends to one of its files."""

    path: Path  # below the directory of the logs
    content: bytes


def blocks(log: Path, form: str) -> dict[int, list[Piece]]:
    """Cut the log of a form by blocks: height -> what the node writes for it, statuses first."""
    found: dict[int, list[Piece]] = defaultdict(list)
    for stream in reference_book.STREAMS:
        for path in sorted((log / f"node_{stream}_{form}").glob("hourly/*/*")):
            lines: dict[int, bytearray] = defaultdict(bytearray)
            for line in path.read_bytes().splitlines(keepends=True):
                height = _HEIGHT.search(line, 0, _HEAD_BYTES)
                assert height is not None
                lines[int(height[1])] += line
            for number, text in lines.items():
                found[number].append(Piece(path.relative_to(log), bytes(text)))
    return dict(sorted(found.items()))


def append(node_data: Path, pieces: list[Piece]) -> None:
    """Write the pieces where a node would, each by one write."""
    for piece in pieces:
        path = node_data / piece.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write(piece.content)


def torn(pieces: list[Piece], random: Random, parts_max: int) -> list[Piece]:
    """Cut each piece at random places, also within its lines, into at most `parts_max` parts."""
    found = []
    for path, content in pieces:
        count = min(random.randrange(parts_max), len(content))
        cuts = [0, *sorted(random.sample(range(len(content)), count)), len(content)]
        found += [Piece(path, content[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
    return found
