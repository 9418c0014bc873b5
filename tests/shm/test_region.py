"""A region is what its reader expects, or refused; it cannot change size; its maker alone writes it."""

import ctypes
import errno
import fcntl
import gc
import json
import mmap
import os
import random
import socket
import subprocess
import sys

import numpy as np
import pytest

from shm import layout, region
from shm.constants import PAGE

SECTIONS = {"ring": (layout.BROADCAST, 1), "events": (layout.EVENT, 100), "empty": (layout.WORD, 0)}
DTYPES = {name: dtype for name, (dtype, _) in SECTIONS.items()}
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def made():
    made = region.create("test", SECTIONS, epoch=7)
    yield made
    made.close()


def attach(of, sections=None, **expected):
    return region.attach(os.dup(of.fd), sections or DTYPES, **expected)


def refusal(fd, sections=None, **expected):
    with pytest.raises(region.Refused) as caught:
        region.attach(fd, sections or DTYPES, **expected)
    os.fstat(fd)  # still open: it is the caller's
    return str(caught.value)


def damaged(raw, size=None, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW):
    fd = os.memfd_create("damaged", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(fd, raw, 0)
    os.ftruncate(fd, size or len(raw))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def raw_of(made):
    return bytearray(os.pread(made.fd, os.fstat(made.fd).st_size, 0))


def with_header(made, field, value):
    """A copy of the region with one field of its header changed, and nothing else."""
    raw = raw_of(made)
    np.frombuffer(raw, layout.HEADER, 1)[field] = value
    return damaged(raw)


def test_both_sides_see_the_same(made):
    theirs = attach(made, epoch=7)
    assert {name: (array.dtype, len(array)) for name, array in theirs.arrays.items()} == SECTIONS
    made.arrays["events"]["price"] = range(100)
    assert theirs.arrays["events"]["price"].tolist() == list(range(100))
    assert (theirs.epoch, int(theirs.header["pid"][0])) == (7, os.getpid())
    assert theirs.header["start_time"][0] == region.process_start_time(os.getpid())
    for array in made.arrays.values():
        assert len(array) == 0 or array.ctypes.data % PAGE == 0
    made.beat(1_000)
    assert theirs.heartbeat_age_ns(1_250) == 250


def test_arrays_outlive_the_descriptor():
    made = region.create("test", SECTIONS, epoch=1)
    events = made.arrays["events"]
    made.close()
    made.close()
    del made
    events["price"] = 5
    assert events["price"].sum() == 500


# --- refused, with both values in the text ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "found", "expected"),
    [("magic", b"rangside", "rangside", "ringside"), ("version", 99, "99", str(region.VERSION))],
)
def test_another_magic_or_version_is_refused(made, field, value, found, expected):
    text = refusal(with_header(made, field, value))
    assert field in text and found in text and expected in text


def test_another_layout_is_refused(made):
    other = {**DTYPES, "events": layout.TRADE}
    text = refusal(made.fd, other)
    assert layout.digest(DTYPES) in text and layout.digest(other) in text


@pytest.mark.parametrize("others", [["events", "ring", "empty"], ["ring", "events"]])
def test_the_same_records_in_other_sections_are_another_layout(made, others):
    assert "digest" in refusal(made.fd, {name: DTYPES[name] for name in others})


def test_another_epoch_is_refused_when_it_matters(made):
    text = refusal(made.fd, epoch=8)
    assert "7" in text and "8" in text
    attach(made)


@pytest.mark.parametrize("change", [-PAGE, PAGE, 1 - PAGE])
def test_another_size_is_refused(made, change):
    raw = raw_of(made)
    text = refusal(damaged(raw[: len(raw) + min(change, 0)], len(raw) + change))
    assert str(len(raw)) in text and str(len(raw) + change) in text


def test_less_than_a_header_is_refused():
    assert "100" in refusal(damaged(bytes(100)))


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_GROW, fcntl.F_SEAL_SHRINK])
def test_a_size_that_can_change_is_refused(made, seals):
    assert f"found {seals:#x}" in refusal(damaged(raw_of(made), seals=seals))


def test_what_is_not_a_memfd_is_refused(tmp_path):
    with open(tmp_path / "file", "w+b") as file:
        assert "memfd" in refusal(file.fileno())


@pytest.mark.parametrize("field", ["offset", "count", "itemsize"])
@pytest.mark.parametrize("value", [-1, 0, 1, 2**62, -(2**63), 2**63 - 1, PAGE, 3 * PAGE])
@pytest.mark.parametrize("resealed", [False, True], ids=["by chance", "by a liar"])
def test_no_section_leads_out_of_the_file(made, field, value, resealed):
    raw = raw_of(made)
    header = np.frombuffer(raw, layout.HEADER, 1)
    assert header["sections"][field][0, 1] != value
    header["sections"][field][0, 1] = value
    if resealed:  # one who knows the checksum may tell another layout, but only one that fits
        raw[region._CHECKSUM_AT : PAGE] = region._checksum(bytes(raw[:PAGE]))
    try:
        fd = damaged(raw)
        theirs = region.attach(fd, DTYPES)
    except region.Refused:
        return
    assert resealed and field == "count"
    end = max(array.ctypes.data + array.nbytes for array in theirs.arrays.values())
    assert end <= theirs.header.ctypes.data + len(raw)


def test_a_header_damaged_anywhere_is_refused_or_the_same(made):
    chance, raw = random.Random(9), raw_of(made)
    heartbeat = layout.HEADER.fields["heartbeat_ns"][1]
    refused, fd = 0, damaged(raw)
    for _ in range(1_000):
        at, byte = chance.randrange(layout.HEADER.itemsize), chance.randrange(1, 256)
        os.pwrite(fd, bytes([raw[at] ^ byte]), at)
        theirs_fd = os.dup(fd)
        try:
            theirs = region.attach(theirs_fd, DTYPES, epoch=7)
        except region.Refused as refusal:
            os.close(theirs_fd)  # a refused descriptor is still its owner's
            refused += 1
            assert "found" in str(refusal) and ("expected" in str(refusal) or "records" in str(refusal))
            assert not heartbeat <= at < heartbeat + 8
        else:
            assert heartbeat <= at < heartbeat + 8
            assert {name: (array.dtype, len(array)) for name, array in theirs.arrays.items()} == SECTIONS
        os.pwrite(fd, bytes([raw[at]]), at)
    assert refused > 900
    region.attach(fd, DTYPES, epoch=7).close()  # undamaged again


# --- made -------------------------------------------------------------------------------------------------


def test_a_region_that_is_forgotten_gives_its_descriptor_back():
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        made = region.create("test", {"words": (layout.WORD, 1)}, epoch=1)
        kept = made.arrays["words"]
        del made
    gc.collect()
    kept[0] = 1  # the memory stays as long as an array does
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the mapping's own, of the array that is kept


def test_what_does_not_fit_in_memory_is_refused_at_the_start():
    with pytest.raises(MemoryError, match="free"):
        region.create("test", {"words": (layout.WORD, region.free_bytes())}, epoch=1)


def test_untouched_memory_is_not_taken_unless_it_is_reserved():
    sections = {"words": (layout.WORD, 1 << 20)}
    for reserve, taken in ((False, PAGE), (True, (1 << 23) + PAGE)):
        made = region.create("test", sections, epoch=1, reserve=reserve)
        assert os.fstat(made.fd).st_blocks * 512 == taken
        made.close()


@pytest.mark.parametrize(
    "sections",
    [{f"section{i}": (layout.WORD, 1) for i in range(layout.SECTIONS_MAX + 1)}, {"n" * 25: (layout.WORD, 1)}],
)
def test_what_does_not_fit_in_the_header_is_an_error(sections):
    gc.collect()  # what other tests left closes its descriptors now, and not in between
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError):
        region.create("test", sections, epoch=1)
    assert len(os.listdir("/proc/self/fd")) == before


# --- who may write ----------------------------------------------------------------------------------------


def refused_by_the_kernel(action):
    with pytest.raises(OSError) as caught:
        action()
    return caught.value.errno in (errno.EPERM, errno.EACCES)


def test_a_reader_cannot_write_a_sealed_region_by_any_way(made):
    made.seal()
    theirs, size = attach(made), os.fstat(made.fd).st_size
    events, fd = theirs.arrays["events"], theirs.fd
    with pytest.raises(ValueError):
        events["price"] = 1
    assert refused_by_the_kernel(lambda: mmap.mmap(fd, size))
    assert refused_by_the_kernel(lambda: os.pwrite(fd, b"x", PAGE))
    assert refused_by_the_kernel(lambda: os.ftruncate(fd, 0))
    assert refused_by_the_kernel(lambda: os.ftruncate(fd, size + PAGE))
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    assert refused_by_the_kernel(lambda: mmap.mmap(again, size))
    os.close(again)
    LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    assert LIBC.mprotect(events.ctypes.data, PAGE, protection) == -1
    assert ctypes.get_errno() == errno.EACCES
    assert "sealed" in refusal(fd, writable=True)
    assert refused_by_the_kernel(lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0))
    made.arrays["events"]["price"] = 3  # its maker still can, where no page was touched before
    assert events["price"].sum() == 300


def test_a_region_that_is_not_sealed_is_written_by_both(made):
    theirs = attach(made, writable=True)
    theirs.arrays["events"]["price"] = 4
    assert made.arrays["events"]["price"].sum() == 400
    assert not attach(made).arrays["events"].flags.writeable


READER = """
import mmap, os, socket, sys
from shm import layout, region

sock = socket.socket(fileno=int(sys.argv[1]))
message, (fd,) = region.receive(sock)
dtypes = {"ring": layout.BROADCAST, "events": layout.EVENT, "empty": layout.WORD}
theirs = region.attach(fd, dtypes, epoch=7)
refused = 0
for attempt in (lambda: mmap.mmap(fd, 0), lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0)):
    try:
        attempt()
    except OSError:
        refused += 1
region.send(sock, {"price": int(theirs.arrays["events"]["price"].sum()), "refused": refused})
"""


def test_another_process_reads_what_it_is_handed_and_cannot_write_it(made):
    made.arrays["events"]["price"] = 2
    made.seal()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", READER, str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as child:
        theirs.close()
        region.send(ours, {"name": "test"}, [made.fd])
        assert region.receive(ours) == ({"price": 200, "refused": 3}, [])
        with pytest.raises(ConnectionError):
            region.receive(ours)
    assert child.returncode == 0


# --- messages ---------------------------------------------------------------------------------------------


@pytest.fixture
def pair():
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield pair
    for end in pair:
        end.close()


def test_messages_keep_their_bounds_and_their_descriptors(pair, made):
    region.send(pair[0], {"n": 1}, [made.fd, made.fd])
    region.send(pair[0], {"n": 2, "text": "é"})
    message, fds = region.receive(pair[1])
    assert message == {"n": 1} and len(fds) == 2
    assert not any(os.get_inheritable(fd) for fd in fds)
    assert {os.fstat(fd).st_ino for fd in fds} == {os.fstat(made.fd).st_ino}
    assert region.receive(pair[1]) == ({"n": 2, "text": "é"}, [])
    for fd in fds:
        os.close(fd)


def test_the_largest_message_passes_and_a_larger_one_is_an_error(pair):
    text = "x" * (region.MESSAGE_BYTES_MAX - len(json.dumps({"t": ""}, separators=(",", ":"))))
    region.send(pair[0], {"t": text})
    assert region.receive(pair[1])[0] == {"t": text}
    with pytest.raises(ValueError):
        region.send(pair[0], {"t": text + "x"})


def open_descriptors(inode):
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum(os.path.exists(link) and os.stat(link).st_ino == inode for link in links)


@pytest.mark.parametrize("text", [b"{", b"[1]", b"7", b"\xff{}", b"[" * 60_000, b'{"a": 1}' + b" " * 66_000])
def test_what_is_not_one_object_is_refused_and_its_descriptors_are_closed(pair, made, text):
    inode = os.fstat(made.fd).st_ino
    before = open_descriptors(inode)
    socket.send_fds(pair[0], [text], [made.fd])
    with pytest.raises(region.Refused):
        region.receive(pair[1])
    assert open_descriptors(inode) == before


def test_nothing_yet_and_nobody_there_are_told_apart(pair):
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        region.receive(pair[1])
    pair[0].close()
    with pytest.raises(ConnectionError):
        region.receive(pair[1])


def test_the_kernel_says_who_is_there(pair):
    assert region.peer(pair[0]) == (os.getpid(), os.getuid(), os.getgid())


def test_a_process_is_told_by_its_start_time():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        first = region.process_start_time(child.pid)
        assert first == region.process_start_time(child.pid) >= region.process_start_time(os.getpid())
        child.communicate()
    with pytest.raises(ProcessLookupError):
        region.process_start_time(child.pid)
