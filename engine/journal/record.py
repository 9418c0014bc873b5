"""One record of a journal, as bytes: what is written at once, and how damage to it is seen.

A record is a header, what it holds, and zeros up to the next sector, so that a torn write of one never
reaches another. Three kinds:

SEGMENT   the first of each file: the layout of the commands, and where the journal goes on
COMMANDS  what was made durable at once: COMMAND[count], `sequence` is that of the first
MARK      holds nothing: it says what is durable when no commands follow to say it

`durable` is the highest sequence that was safe before the record was written. What is broken above all of
those is a write that was under way when the machine stopped; what is broken below one was lost later.

`chain` is SHA-256 over the chain before and over the commands: it names all commands up to here. A record
that holds none repeats it. Checksums find what is broken; chain, segment, offset, epoch and sequence find
what is whole and stands in the wrong place.
"""

import hashlib
from enum import IntEnum

import numpy as np

from shm import constants as c
from shm import layout
from shm.bulk import crc32c_word
from shm.kernel import entry, inner
from shm.layout import COMMAND

SECTOR = 512  # bytes: what a disk writes whole, or not at all
VERSION = 1
MAGIC = int.from_bytes(b"ringjrnl", "little")
CHAIN_BYTES = 32
NO_CHAIN = bytes(CHAIN_BYTES)  # before the first command

HEADER = layout.record(
    ("magic", "i8"),
    ("version", "i4"),
    ("kind", "i4"),
    ("length", "i8"),  # of the whole record, a multiple of SECTOR
    ("epoch", "i8"),  # of the journal's writer: never falls
    ("segment", "i8"),  # number of its file, from 1
    ("offset", "i8"),  # in that file
    ("sequence", "i8"),  # of its first command; of the next one, where it holds none
    ("count", "i8"),
    ("time_ns", "i8"),  # of its last command
    ("durable", "i8"),
    ("chain", "u1", CHAIN_BYTES),
    ("body_crc", "u4"),  # of all that follows the header
    ("reserved", "u4"),  # zero
    ("reserved_too", "u4"),
    ("crc", "u4"),  # of all that stands before it
)
assert HEADER.itemsize == 128, "a header divides a sector"
assert COMMAND.itemsize % layout.WORD.itemsize == 0

LAYOUT = layout.digest({"commands": COMMAND}).encode()
BODY_BYTES_MAX = c.COMMANDS_MAX * COMMAND.itemsize
RECORD_BYTES_MAX = -(-(HEADER.itemsize + BODY_BYTES_MAX) // SECTOR) * SECTOR

_FULL = np.uint64(0xFFFFFFFF)
_WORD = layout.WORD.itemsize
_HEADER_BYTES = HEADER.itemsize
_HEADER_WORDS = _HEADER_BYTES // _WORD
_COMMAND_BYTES = COMMAND.itemsize


class Kind(IntEnum):
    SEGMENT = 1
    COMMANDS = 2
    MARK = 3


class Found(IntEnum):
    """What stands at a place."""

    RECORD = 0
    PART = 1  # of what may be a record: the bytes end before it does
    BLANK = 2  # no header was ever written here
    NOT_A_RECORD = 3
    HEADER_DAMAGED = 4
    OTHER_VERSION = 5
    ELSEWHERE = 6  # written for another segment or offset
    FORM = 7  # a kind, length or count that no writer gives
    EPOCH = 8  # below that of the record before
    SEQUENCE = 9  # not the next one
    BODY_DAMAGED = 10


CURSOR = layout.record(  # where a walk stands
    ("at", "i8"),  # in the bytes at hand
    ("segment", "i8"),
    ("offset", "i8"),  # of the byte at `at`, in its segment
    ("epoch", "i8"),
    ("sequence", "i8"),  # of the next command
    ("found", "i8"),  # Found: why the walk has stopped
)
PLACE = layout.record(("at", "i8"), ("commands", "i8"), ("durable", "i8"), ("kind", "i8"))


# --- reading ------------------------------------------------------------------------------------------------


@entry
def walk(headers, words, size, cursor, commands, places):
    """Go from record to record, as long as each is what must come next; return how many.

    headers, words  the same bytes, as HEADER[] and u8[]; `size` of them are there
    cursor          CURSOR[1], moved; its `found` says what stands where the walk has stopped
    commands        u8[]: what the records hold, one after the other
    places          PLACE[], one a record; full places or commands end the walk with RECORD
    """
    here, count, filled = cursor[0], 0, 0
    while True:
        here.found = _look(headers, words, size, here)
        if here.found != Found.RECORD:
            return count
        header = headers[here.at // _HEADER_BYTES]
        body = header.count * _COMMAND_BYTES // _WORD if header.kind == Kind.COMMANDS else 0
        if count == len(places) or filled + body > len(commands):
            return count
        first = here.at // _WORD + _HEADER_WORDS
        for i in range(body):
            commands[filled + i] = words[first + i]
        filled += body
        place = places[count]
        place.at, place.commands, place.durable, place.kind = here.at, body, header.durable, header.kind
        count += 1
        here.at += header.length
        here.offset += header.length
        here.epoch = header.epoch
        if header.kind == Kind.COMMANDS:
            here.sequence += header.count


@inner
def _look(headers, words, size, here):
    """What stands at the cursor (Found)."""
    if here.at + SECTOR > size:
        return Found.PART
    header = headers[here.at // _HEADER_BYTES]
    if header.magic != MAGIC:
        return Found.BLANK if header.magic == 0 else Found.NOT_A_RECORD
    if not _is_whole(headers, words, here.at):
        return Found.HEADER_DAMAGED
    if header.version != VERSION:
        return Found.OTHER_VERSION
    if header.segment != here.segment or header.offset != here.offset:
        return Found.ELSEWHERE
    if not _is_well_formed(header):
        return Found.FORM
    if header.epoch < here.epoch:
        return Found.EPOCH
    if header.sequence != here.sequence:
        return Found.SEQUENCE
    if here.at + header.length > size:
        return Found.PART
    if header.body_crc != _body_crc(headers, words, here.at):
        return Found.BODY_DAMAGED
    return Found.RECORD


@inner
def _is_whole(headers, words, at):
    """Whether the header's own checksum is right."""
    return headers[at // _HEADER_BYTES].crc == _header_crc(words, at)


@inner
def _header_crc(words, at):
    """Of all its words, with zero in place of the checksum itself: the upper half of the last one."""
    first = at // _WORD
    crc = _FULL
    for i in range(first, first + _HEADER_WORDS - 1):
        crc = crc32c_word(crc, words[i])
    return crc32c_word(crc, words[first + _HEADER_WORDS - 1] & _FULL) ^ _FULL


@inner
def _body_crc(headers, words, at):
    crc, end = _FULL, (at + headers[at // _HEADER_BYTES].length) // _WORD
    for i in range(at // _WORD + _HEADER_WORDS, end):
        crc = crc32c_word(crc, words[i])
    return crc ^ _FULL


@inner
def _is_well_formed(header):
    kind, count = header.kind, header.count
    if kind == Kind.COMMANDS:
        if count < 1 or count > c.COMMANDS_MAX:
            return False
        held = _HEADER_BYTES + count * _COMMAND_BYTES
        return header.length == (held + SECTOR - 1) // SECTOR * SECTOR
    return (kind == Kind.SEGMENT or kind == Kind.MARK) and count == 0 and header.length == SECTOR


@entry
def highest_durable(headers, words, size):
    """The highest `durable` of all whole headers in these bytes, whatever lies between; -1: there is none.

    The first byte at hand is the first of a sector.
    """
    highest = -1
    for at in range(0, size - _HEADER_BYTES + 1, SECTOR):
        header = headers[at // _HEADER_BYTES]
        if header.magic == MAGIC and _is_whole(headers, words, at):
            highest = max(highest, header.durable)
    return highest


# --- writing ------------------------------------------------------------------------------------------------


def length_of(count: int) -> int:
    """Bytes of a record of so many commands; 0: of one without any."""
    return -(-(HEADER.itemsize + count * COMMAND.itemsize) // SECTOR) * SECTOR


class Draft:
    """A record that grows: what comes is copied, checked and chained at once, so that little is left to do
    when it is to be written.
    """

    def __init__(self, size: int = RECORD_BYTES_MAX):
        self._out = np.zeros(size, np.uint8)
        self._header, self._words = self._out[:_HEADER_BYTES].view(HEADER)[0], self._out.view(np.uint64)
        self.begin(NO_CHAIN)

    def begin(self, chain: bytes) -> None:
        """Begin anew, empty; `chain` is that of the record before."""
        self.count = 0  # of the commands that it holds
        self._before, self._chained, self._crc = chain, hashlib.sha256(chain), _FULL

    def take(self, commands: np.ndarray) -> None:
        """Take on the commands that come next."""
        first = _HEADER_BYTES + self.count * _COMMAND_BYTES
        end = first + len(commands) * _COMMAND_BYTES
        to, words = self._words[first // _WORD :], commands.view(np.uint64)
        self._crc = np.uint64(copy_checked(to, words, self._crc))
        self._chained.update(self._out[first:end].data)
        self._header["time_ns"] = commands["time_ns"][-1]
        self.count += len(commands)

    def close(self, kind: Kind, epoch: int, sequence: int) -> np.ndarray:
        """The record (u1[], whole sectors), all but its place; `seal` makes it whole."""
        out, header = self._out[: length_of(self.count)], self._header
        rest = out[_HEADER_BYTES + self.count * _COMMAND_BYTES :]
        rest[:] = 0
        if kind == Kind.SEGMENT:
            rest[: len(LAYOUT)] = np.frombuffer(LAYOUT, np.uint8)
        if self.count == 0:
            header["time_ns"] = 0
        header["magic"], header["version"], header["kind"], header["length"] = MAGIC, VERSION, kind, len(out)
        header["epoch"], header["sequence"], header["count"] = epoch, sequence, self.count
        header["chain"] = np.frombuffer(self.chain, np.uint8)
        header["body_crc"] = checked(rest.view(np.uint64), self._crc) ^ _FULL
        return out

    @property
    def chain(self) -> bytes:
        """The chain up to here."""
        return self._chained.digest() if self.count else self._before


def seal(out: np.ndarray, segment: int, offset: int, durable: int) -> None:
    """Say where the record will stand, and what is safe by now."""
    header = out[: HEADER.itemsize].view(HEADER)[0]
    header["segment"], header["offset"], header["durable"] = segment, offset, durable
    header["crc"] = header_crc(out[: HEADER.itemsize].view(np.uint64))


def link(chain: bytes, commands: np.ndarray) -> bytes:
    """The chain after these commands (as u1[])."""
    chained = hashlib.sha256(chain)
    chained.update(commands.data)
    return chained.digest()


@entry
def copy_checked(to, words, crc):
    """Copy words to where a record holds them, and take the checksum on over them."""
    for i in range(len(words)):
        to[i] = words[i]
        crc = crc32c_word(crc, words[i])
    return crc


@entry
def checked(words, crc):
    """The checksum, taken on over these words."""
    for word in words:
        crc = crc32c_word(crc, word)
    return crc


@entry
def header_crc(words):
    return _header_crc(words, 0)


def warm() -> None:
    """Compile the entry points."""
    draft = Draft(length_of(1))
    draft.take(np.zeros(1, COMMAND))
    out = draft.close(Kind.COMMANDS, 1, 1)
    seal(out, 1, 0, 0)
    headers, words = out.view(HEADER), out.view(np.uint64)
    walk(headers, words, SECTOR, np.zeros(1, CURSOR), np.zeros(1, np.uint64), np.zeros(1, PLACE))
    highest_durable(headers, words, SECTOR)
