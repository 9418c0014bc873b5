"""The core and the world of an exchange at the end of a block, as a file that is loaded sooner than it grew.

A file is one page of header, then each array in turn. Tables are sized for the worst day and mostly empty:
of every 4 KiB of an array the file holds one word, which says which of its 64 lines are not zero, and those
lines. An array that is not all zeros when it is new is held whole. What a block needs only while it is
applied is not held at all.

It is written beside, synced, renamed, and the directory synced; the last two good ones are kept. Nothing is
loaded before all of the file has been found to be what was written: its checksum tells any one changed word,
and is no defence against who could write the file anew.
"""

import mmap
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.exchange import state, world
from engine.exchange.state import State
from engine.exchange.world import World
from shm import layout
from shm.constants import PAGE
from shm.kernel import entry
from shm.layout import WORD, record

MAGIC, VERSION = b"RINGSNAP", 1
KEPT = 2
SUFFIX = ".snapshot"
SECTIONS_MAX = 80
ALWAYS = (1 << 63) - 1  # later than any command
SCRATCH = {  # of a block or a call under way
    *("touched_accounts", "touched_positions", "outcomes", "outcome_words", "acks"),
    *("own", "rank_keys", "rank_rows"),
    *("market_dirty", "dirty_markets", "account_dirty", "dirty_accounts", "fact_index", "removed_index"),
    *("pair", "trade", "ended", "entry", "twap_entry", "of_slice"),
}
LINE_WORDS, PAGE_LINES = 8, 64
PAGE_WORDS = LINE_WORDS * PAGE_LINES
assert PAGE_WORDS * WORD.itemsize == PAGE
PIECE_PAGES = 256  # packed at once
SYNCED_BYTES = 8 << 20  # written between two syncs: more at once would stand in the way of a journal's
READ_WORDS = 1 << 20
LANES = 8
_MIX, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)
_WORD_MASK = (1 << 64) - 1

SECTION = record(("name", "S24"), ("count", "i8"))
HEADER = record(
    ("magic", "S8"),
    ("version", "i8"),
    ("layout", "S32"),  # of every record within, and which there are
    ("sequence", "i8"),  # of the last command
    ("time_ns", "i8"),
    ("height", "i8"),
    ("digest", "i8"),  # over every outcome so far: which exchange it is
    ("body_words", "i8"),
    ("body_checksum", "u8"),
    ("section_count", "i8"),
    ("sections", SECTION, SECTIONS_MAX),
)
_CHECKSUM_AT = PAGE - WORD.itemsize  # of all the page before it
assert HEADER.itemsize <= _CHECKSUM_AT


class Taken(NamedTuple):
    """At which command a snapshot was taken, and what was known of the exchange then."""

    sequence: int
    time_ns: int
    height: int
    digest: int


class Refused(Exception):
    """The file is damaged, or of something else; the text says what was found and what was expected."""


# --- writing one --------------------------------------------------------------------------------------------


def save(directory: Path, core: State, shown: World) -> Path:
    """Write both durably, between two blocks. Raises OSError: then the older ones are still whole."""
    heap = core.heap[0]
    if heap["touched_accounts"] or heap["touched_positions"] or shown.state.status[0]["sequence"] % 2:
        raise ValueError("a snapshot is taken between two blocks")
    directory.mkdir(parents=True, exist_ok=True)
    final = directory / f"{int(heap['sequence']):020d}{SUFFIX}"
    beside = final.with_suffix(".writing")
    sections = _sections(core, shown)
    with open(beside, "w+b") as file:
        file.write(bytes(PAGE))
        _write_body(file, sections)
        file.write(_header(file, core, sections))
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, final)
    _sync_directory(directory)
    return final


def _write_body(file: Any, sections: dict[str, np.ndarray]) -> None:
    out = np.zeros(PIECE_PAGES * (PAGE_WORDS + 1), WORD)
    unsynced = 0
    for name, array in sections.items():
        pages, tail = _parts(name, array)
        for first in range(0, len(pages), PIECE_PAGES * PAGE_WORDS):
            packed = pack(pages[first : first + PIECE_PAGES * PAGE_WORDS], out)
            unsynced += file.write(out[:packed])
            if unsynced >= SYNCED_BYTES:
                file.flush()
                os.fdatasync(file.fileno())
                unsynced = 0
        file.write(tail.tobytes().ljust(_words(tail) * WORD.itemsize, b"\0"))


def _header(file: Any, core: State, sections: dict[str, np.ndarray]) -> bytes:
    """The page that describes what was written; the file stands where it belongs."""
    file.flush()
    heap, header = core.heap[0], np.zeros(1, HEADER)
    header["magic"], header["version"], header["layout"] = MAGIC, VERSION, _layout(sections)
    for name in Taken._fields:
        header[name] = heap[name]
    header["body_words"], header["body_checksum"] = _body(file)
    header["section_count"] = len(sections)
    for at, (name, array) in enumerate(sections.items()):
        header["sections"][0, at] = name, len(array)
    page = header.tobytes().ljust(_CHECKSUM_AT, b"\0")
    file.seek(0)
    return page + _checksum(page)


def _body(file: Any) -> tuple[int, int]:
    """How many words stand after the header, and their checksum. Raises OSError."""
    lanes, piece, count = _lanes(), np.zeros(READ_WORDS, WORD), 0
    file.seek(PAGE)
    while taken := file.readinto(piece):
        stir(piece[: taken // WORD.itemsize], lanes)
        count += taken // WORD.itemsize
    return count, _folded(lanes)


def _checksum(raw: bytes) -> bytes:
    lanes = _lanes()
    stir(np.frombuffer(raw, WORD), lanes)
    return _folded(lanes).to_bytes(WORD.itemsize, "little")


def _lanes() -> np.ndarray:
    return np.arange(1, LANES + 1, dtype=np.uint64)


def _folded(lanes: np.ndarray) -> int:
    total = 0
    for lane in lanes.tolist():
        total = ((total ^ lane) * int(_MIX)) & _WORD_MASK
    return total


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(directory: Path, core: State, shown: World) -> list[Taken]:
    """Remove what is older than the last KEPT good ones, and what was left half written; return those."""
    good = [found for _, found in zip(range(KEPT), _look(directory, _sections(core, shown)), strict=False)]
    for path in directory.glob(f"*{SUFFIX}"):
        if len(good) == KEPT and path.name < good[-1][0].name:
            path.unlink()
    for path in directory.glob("*.writing"):
        path.unlink()
    return [taken for _, taken in good]


# --- reading one --------------------------------------------------------------------------------------------


def newest(directory: Path, core: State, shown: World, until: int = ALWAYS) -> tuple[Taken | None, list[str]]:
    """Load the newest good snapshot that is not of a later command than `until`, if there is one.

    core, shown  as they were allocated; they stay so, if there is none

    Returns what was loaded, and what is wrong with those that were passed over.
    """
    complaints: list[str] = []
    sections = _sections(core, shown)
    for path, taken in _look(directory, sections, until, complaints):
        _load(path, sections)
        return taken, complaints
    return None, complaints


def _look(
    directory: Path, sections: dict[str, np.ndarray], until: int = ALWAYS, complaints: list[str] | None = None
) -> Iterator[tuple[Path, Taken]]:
    """The good ones, newest first."""
    for path in sorted(directory.glob(f"*{SUFFIX}"), reverse=True):
        try:
            taken = _read(path, sections)
        except (OSError, Refused) as damage:
            if complaints is not None:
                complaints.append(f"{path.name}: {damage}")
            continue
        if taken.sequence <= until:
            yield path, taken


def examine(path: Path) -> Taken:
    """Look at all of a file, of whatever capacity. Raises Refused, OSError."""
    return _taken(_examined(path))


def _read(path: Path, sections: dict[str, np.ndarray]) -> Taken:
    """Look at all of a file that is to be loaded into these arrays. Raises Refused."""
    header = _examined(path)
    _agree("layout", bytes(header["layout"]).decode(), _layout(sections).decode())
    for (name, array), (_, count) in zip(sections.items(), header["sections"], strict=False):
        _agree(f"{name}: records", int(count), len(array))
    return _taken(header)


def _examined(path: Path) -> np.void:
    """The header of a file that is as it was written. Raises Refused."""
    with open(path, "rb", buffering=0) as file:
        size, page = os.fstat(file.fileno()).st_size, file.read(PAGE)
        if len(page) < PAGE or size % WORD.itemsize:
            raise Refused(f"size: found {size}, expected whole words, and a page of {PAGE} or more")
        header = np.frombuffer(page, HEADER, 1)[0]
        _agree("magic", bytes(header["magic"]), MAGIC)
        _agree("version", int(header["version"]), VERSION)
        _agree("header checksum", page[_CHECKSUM_AT:].hex(), _checksum(page[:_CHECKSUM_AT]).hex())
        words = (size - PAGE) // WORD.itemsize
        _agree("words", words, int(header["body_words"]))
        _agree("checksum", _body(file), (words, int(header["body_checksum"])))
    return header


def _taken(header: np.void) -> Taken:
    return Taken(*(int(header[name]) for name in Taken._fields))


def _agree(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise Refused(f"{what}: found {found}, expected {expected}")


def _load(path: Path, sections: dict[str, np.ndarray]) -> None:
    """Fill the arrays from a file that was found good."""
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    body = np.frombuffer(mapped, WORD)[PAGE_WORDS:]
    at = 0
    for name, array in sections.items():
        pages, tail = _parts(name, array)
        at += unpack(body[at:], pages)
        tail[:] = body[at : at + _words(tail)].view(np.uint8)[: len(tail)]
        at += _words(tail)
    assert at == len(body), "a good file holds these arrays and nothing more"


# --- what is in it ------------------------------------------------------------------------------------------


def _arrays(prefix: str, of: tuple) -> Iterator[tuple[str, np.ndarray]]:
    """Each array of a NamedTuple of arrays, and of those within it, by its name."""
    for name, value in zip(of._fields, of, strict=True):  # type: ignore[attr-defined]
        if isinstance(value, tuple):
            yield from _arrays(prefix, value)
        elif name not in SCRATCH:
            yield prefix + name, value


def _sections(core: State, shown: World) -> dict[str, np.ndarray]:
    sections = {**dict(_arrays("core.", core)), **dict(_arrays("world.", shown))}
    assert len(sections) <= SECTIONS_MAX
    return sections


def _layout(sections: dict[str, np.ndarray]) -> bytes:
    return layout.digest({name: array.dtype for name, array in sections.items()}).encode()


@cache
def _born() -> set[str]:
    """The arrays that are not all zeros when they are new."""
    small = dict.fromkeys(
        ("events", "trades", "fills", "closed", "rejected", "buckets", "ledger", "twaps"), 8
    )
    shown = world.allocate(world.capacity_for(state.TINY, candles_kept=2, **small))
    sections = _sections(state.allocate(state.TINY), shown)
    return {name for name, array in sections.items() if array.view(np.uint8).any()}


def _parts(name: str, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The whole pages of an array, as words to pack, and the bytes after them that are held as they are."""
    raw = array.view(np.uint8)
    packed = 0 if name in _born() else len(raw) // PAGE * PAGE
    return raw[:packed].view(WORD), raw[packed:]


def _words(raw: np.ndarray) -> int:
    return -(-len(raw) // WORD.itemsize)


# --- kernels ------------------------------------------------------------------------------------------------


@entry
def pack(words, out):
    """Write, for each page of `words` (whole pages), its mask and its lines that are not zero into `out`.

    Returns how many words that were.
    """
    at = 0
    for page in range(0, len(words), PAGE_WORDS):
        mask, mask_at = 0, at
        at += 1
        for line in range(PAGE_LINES):
            first, any_bit = page + line * LINE_WORDS, 0
            for i in range(LINE_WORDS):
                any_bit |= words[first + i]
            if any_bit != 0:
                mask |= 1 << line
                for i in range(LINE_WORDS):
                    out[at + i] = words[first + i]
                at += LINE_WORDS
        out[mask_at] = mask
    return at


@entry
def unpack(packed, words):
    """Fill `words` (whole pages, all zero) from what `pack` made of them; return how many words that took.

    A page without a line is not touched.
    """
    at = 0
    for page in range(0, len(words), PAGE_WORDS):
        mask = packed[at]
        at += 1
        line = page
        while mask != 0:
            if mask & 1:
                for i in range(LINE_WORDS):
                    words[line + i] = packed[at + i]
                at += LINE_WORDS
            mask = np.int64(np.uint64(mask) >> np.uint64(1))
            line += LINE_WORDS
    return at


@entry
def stir(words, lanes):
    """Take `words` into eight sums (u8[LANES]) side by side: the multiplications of one would wait in a row.

    All calls but the last take a multiple of LANES words.
    """
    for at in range(len(words)):
        lane = (lanes[at % LANES] ^ np.uint64(words[at])) * _MIX
        lanes[at % LANES] = lane ^ (lane >> _SHIFT)


def warm() -> None:
    """Compile the entry points."""
    words, out = np.zeros(PAGE_WORDS, WORD), np.zeros(PAGE_WORDS + 1, WORD)
    pack(words, out)
    mapped = np.frombuffer(out.tobytes(), WORD)
    unpack(mapped, words)
    stir(out, np.zeros(LANES, np.uint64))
    stir(mapped, np.zeros(LANES, np.uint64))
