"""Memory that processes share: one sealed memfd each, with a header that says what is in it and whose it is.

A region has no name in the file system: its descriptor is handed over a unix socket (`send`, `receive`), so
nothing stale is ever left behind. Its size is sealed, so nothing can be cut from under a reader; after
`Region.seal` nobody but its maker can write it. Who attaches checks the header against its own layout, and
is refused with both values in the text. The header is one page; each section begins on a page of its own,
in the order given.

A region takes memory only where it was touched (a reader's touch counts). Sections are sized for the worst
day, so `create` does not reserve them. When memory runs out later, the kernel kills a process and names it
in its log: a memfd has no quota of its own, and no SIGBUS (measured, also below a cgroup's limit; there
posix_fallocate does not fail either, it is killed). So `create` compares the whole size with what is free
and refuses at the start. With `reserve=True` the pages are taken at once: for machines with strict
overcommit, and against page faults later.
"""

import fcntl
import hashlib
import json
import mmap
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shm import layout
from shm.atomics import load_acquire_at, store_release_at
from shm.constants import PAGE
from shm.kernel import entry
from shm.layout import HEADER

MAGIC = b"ringside"
VERSION = 1  # of the header's own form; what is in the sections is named by the digest
MESSAGE_BYTES_MAX = 65_536  # of one message between processes
FDS_MAX = 253  # the kernel's own bound (SCM_MAX_FD)

_SEALED_SIZE = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_SEAL_FUTURE_WRITE = 0x10  # not in Python's fcntl yet
_CHECKSUM_BYTES = 16
_CHECKSUM_AT = PAGE - _CHECKSUM_BYTES  # in the header's page: of all its fields but the heartbeat
_HEARTBEAT_AT = HEADER.fields["heartbeat_ns"][1]
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_START_TIME_FIELD = 22  # of /proc/<pid>/stat, counted from 1

assert HEADER.itemsize <= _CHECKSUM_AT


class Refused(Exception):
    """What was handed over is not what this process expects; the text holds both."""


class Section(NamedTuple):
    """Where one array of a region lies: `count` records of `itemsize` bytes from byte `offset` on."""

    name: str
    offset: int
    count: int
    itemsize: int

    @property
    def end(self) -> int:
        return self.offset + self.count * self.itemsize


class Region:
    """A mapped region. Its arrays keep the mapping alive; `close`, or its end, gives the descriptor back.

    fd      the memfd
    arrays  section -> array of its records, writeable or not as the region was attached
    header  HEADER[1]
    epoch   the incarnation of its writer
    """

    def __init__(self, fd: int, sections: list[Section], dtypes: Mapping[str, np.dtype], writable: bool):
        self.fd = -1  # until it is ours
        size = os.fstat(fd).st_size
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        mapped = mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=protection)
        self.fd = fd
        self.arrays = {
            section.name: np.ndarray(section.count, dtypes[section.name], mapped, section.offset)
            for section in sections
        }
        self.header = np.ndarray(1, HEADER, mapped)
        self.epoch = int(self.header["epoch"][0])
        self._heartbeat = np.ndarray(1, layout.WORD, mapped, _HEARTBEAT_AT)

    def seal(self) -> None:
        """From now on nobody can write the region but through mappings that exist. There is no way back."""
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL)

    def beat(self, now_ns: int) -> None:
        """The writer's sign of life; `now_ns` is CLOCK_MONOTONIC, which all processes of a machine share."""
        _beat(self._heartbeat, now_ns)

    def heartbeat_age_ns(self, now_ns: int) -> int:
        """How long the writer has been silent."""
        return now_ns - int(_heartbeat(self._heartbeat))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __del__(self) -> None:
        self.close()


@entry
def _beat(words, now_ns):
    store_release_at(words, 0, now_ns)


@entry
def _heartbeat(words):
    return load_acquire_at(words, 0)


# --- making one ---------------------------------------------------------------------------------------------


def create(
    name: str, sections: Mapping[str, tuple[np.dtype, int]], epoch: int, reserve: bool = False
) -> Region:
    """Make a region of `sections` (name -> dtype, count), zero but for its header, written by this process.

    `name` is what /proc shows; it names nothing else. Raises MemoryError when less is free than it may
    come to take.
    """
    dtypes = {section: np.dtype(dtype) for section, (dtype, _) in sections.items()}
    places = _places([(section, dtypes[section].itemsize, count) for section, (_, count) in sections.items()])
    size = _page_up(max([place.end for place in places], default=0), least=PAGE)
    free = free_bytes()
    if size > free:
        raise MemoryError(f"region {name} may grow to {size:,} bytes, and {free:,} are free")
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        if reserve:
            os.posix_fallocate(fd, 0, size)
        os.pwrite(fd, _header(places, layout.digest(dtypes), epoch), 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALED_SIZE)
        return Region(fd, places, dtypes, writable=True)
    except BaseException:
        os.close(fd)
        raise


def free_bytes() -> int:
    """Bytes that this process may still take: the machine's, or its cgroup's (version 2) if that is less."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            group = Path("/sys/fs/cgroup") / line[3:].lstrip("/")
            for parent in (group, *group.parents):
                free = min(free, _left_in(parent, otherwise=free))
    return free


def _left_in(group: Path, otherwise: int) -> int:
    try:
        limit, taken = ((group / f"memory.{what}").read_text().strip() for what in ("max", "current"))
    except OSError:
        return otherwise
    return otherwise if limit == "max" else int(limit) - int(taken)


def _places(wanted: Iterable[tuple[str, int, int]]) -> list[Section]:
    """Lay out (name, itemsize, count), each on the first page that is free."""
    places, start = [], PAGE
    for name, itemsize, count in wanted:
        places.append(Section(name, start, count, itemsize))
        start = _page_up(places[-1].end, least=start)
    return places


def _page_up(position: int, least: int) -> int:
    return max(-(-position // PAGE) * PAGE, least)


def _header(places: list[Section], digest: str, epoch: int) -> bytes:
    """The header's page. Raises ValueError when there are too many sections, or a name is too long."""
    header = np.zeros(1, HEADER)
    if len(places) > layout.SECTIONS_MAX:
        raise ValueError(f"{len(places)} sections, {layout.SECTIONS_MAX} at most")
    header["magic"], header["version"], header["digest"], header["epoch"] = MAGIC, VERSION, digest, epoch
    header["pid"], header["start_time"] = os.getpid(), process_start_time(os.getpid())
    header["section_count"] = len(places)
    for i, place in enumerate(places):
        header["sections"][0, i] = place
        if header["sections"]["name"][0, i].decode() != place.name:
            raise ValueError(f"section name {place.name!r} does not fit")
    fields = header.tobytes()
    return fields.ljust(_CHECKSUM_AT, b"\0") + _checksum(fields)


def _checksum(page: bytes) -> bytes:
    """Name a header by all its bytes but the heartbeat, the only ones that change."""
    after = _HEARTBEAT_AT + layout.WORD.itemsize
    still = page[:_HEARTBEAT_AT] + page[after : HEADER.itemsize]
    return hashlib.blake2b(still, digest_size=_CHECKSUM_BYTES).digest()


# --- taking one over ----------------------------------------------------------------------------------------


def attach(
    fd: int, sections: Mapping[str, np.dtype], writable: bool = False, epoch: int | None = None
) -> Region:
    """Map the region behind `fd`, which must hold exactly `sections`, in this order; it then owns `fd`.

    Raises Refused, with what was found and what was expected, unless all agree: seals, magic, version,
    layout, epoch (where given), size and the section table. Whatever the header holds, nothing outside of the
    file is mapped. After a refusal `fd` is still the caller's.
    """
    dtypes = {name: np.dtype(dtype) for name, dtype in sections.items()}
    size = _sealed_size(fd)
    page = os.pread(fd, PAGE, 0)
    header = np.frombuffer(page, HEADER, 1)[0]
    _agree("magic", bytes(header["magic"]), MAGIC)
    _agree("version", int(header["version"]), VERSION)
    _agree("layout digest", bytes(header["digest"]).decode("ascii", "replace"), layout.digest(dtypes))
    if epoch is not None:
        _agree("epoch", int(header["epoch"]), epoch)
    places = _sections(header, dtypes, size)
    _agree("header checksum", page[_CHECKSUM_AT:].hex(), _checksum(page).hex())
    try:
        return Region(fd, places, dtypes, writable)
    except PermissionError:
        raise Refused("the region is sealed against writing; expected one that can be written") from None


def _agree(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise Refused(f"{what}: found {found}, expected {expected}")


def _sealed_size(fd: int) -> int:
    """The size of the memfd, which can no longer change."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        raise Refused(f"seals: found none (not a memfd), expected {_SEALED_SIZE:#x}") from None
    _agree("seals", f"{seals & _SEALED_SIZE:#x}", f"{_SEALED_SIZE:#x}")
    size = os.fstat(fd).st_size
    if size < PAGE:
        raise Refused(f"size: found {size}, expected {PAGE} or more")
    return size


def _sections(header: np.void, dtypes: Mapping[str, np.dtype], size: int) -> list[Section]:
    """Read the section table, which must be the one that `create` writes for these counts and this size."""
    _agree("section count", int(header["section_count"]), len(dtypes))
    found = [
        Section(bytes(name).decode("ascii", "replace"), int(offset), int(count), int(itemsize))
        for name, offset, count, itemsize in header["sections"][: len(dtypes)]
    ]
    for section in found:
        if not 0 <= section.count <= size:
            raise Refused(f"section {section.name}: found {section.count} records in {size} bytes")
    expected = _places(
        (name, dtype.itemsize, section.count)
        for (name, dtype), section in zip(dtypes.items(), found, strict=True)
    )
    for one, other in zip(found, expected, strict=True):
        _agree(f"section {other.name}", one, other)
    _agree("size", size, _page_up(max([place.end for place in expected], default=0), least=PAGE))
    return found


# --- handing one over ---------------------------------------------------------------------------------------


def send(sock: socket.socket, message: Mapping[str, Any], fds: Iterable[int] = ()) -> None:
    """Send one message and descriptors over a SOCK_SEQPACKET unix socket: all of it, or an OSError.

    Raises ValueError when the message is larger than MESSAGE_BYTES_MAX as JSON.
    """
    text = json.dumps(message, separators=(",", ":")).encode()
    if len(text) > MESSAGE_BYTES_MAX:
        raise ValueError(f"a message of {len(text)} bytes, {MESSAGE_BYTES_MAX} at most")
    socket.send_fds(sock, [text], list(fds))


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Take one message and its descriptors, which are closed on exec and are the caller's from now on.

    Raises ConnectionError when the peer is gone, and Refused, with all descriptors closed, when what came is
    not one whole JSON object. On a non-blocking socket BlockingIOError says that there is nothing yet.
    """
    space = socket.CMSG_SPACE(FDS_MAX * struct.calcsize("i"))
    text, ancillary, flags, _ = sock.recvmsg(MESSAGE_BYTES_MAX, space, socket.MSG_CMSG_CLOEXEC)
    fds = [fd for level, kind, rights in ancillary for fd in _descriptors(level, kind, rights)]
    try:
        if not text:
            raise ConnectionError("the peer has closed the socket")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise Refused(f"a message was cut at {MESSAGE_BYTES_MAX} bytes or {FDS_MAX} descriptors")
        message = json.loads(text)
        if not isinstance(message, dict):
            raise Refused(f"a message is a {type(message).__name__}, expected an object")
    except (ValueError, RecursionError) as fault:
        _close(fds)
        raise Refused(f"a message is not JSON: {fault}") from None
    except BaseException:
        _close(fds)
        raise
    return message, fds


def _descriptors(level: int, kind: int, rights: bytes) -> list[int]:
    if level != socket.SOL_SOCKET or kind != socket.SCM_RIGHTS:
        return []
    return [fd for (fd,) in struct.iter_unpack("i", rights[: len(rights) // 4 * 4])]


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def peer(sock: socket.socket) -> tuple[int, int, int]:
    """Who is at the other end of a unix socket, told by the kernel: (pid, uid, gid)."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(credentials)
    return pid, uid, gid


def process_start_time(pid: int) -> int:
    """When the process began, in clock ticks since boot: with its pid, who it is.

    Raises ProcessLookupError when it is gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    after_name = stat.rpartition(")")[2].split()  # a process may call itself anything, parentheses too
    return int(after_name[_START_TIME_FIELD - 3])


def warm():
    """Compile the heartbeat, for memory that can and that cannot be written."""
    words = np.zeros(1, layout.WORD)
    _beat(words, 0)
    _heartbeat(words)
    words.flags.writeable = False
    _heartbeat(words)
