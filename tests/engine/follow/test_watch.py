"""A change in a log directory wakes the engine: also in directories that came after it."""

import select

import pytest

from engine.follow.watch import Watch


@pytest.fixture
def watch(tmp_path):
    watch = Watch([tmp_path / "stream", tmp_path / "never"])
    if watch.fd < 0:
        pytest.skip("inotify is not to be had here")
    yield watch
    watch.close()


def woken(watch):
    """Whether the descriptor is readable now; then it is drained."""
    ready = bool(select.select([watch.fd], [], [], 0)[0])
    watch.drain()
    assert not select.select([watch.fd], [], [], 0)[0], "drained is quiet"
    return ready


def test_appended_lines_new_files_and_renames_wake(watch, tmp_path):
    day = tmp_path / "stream" / "hourly" / "20260505"
    day.mkdir(parents=True)
    watch.renew()
    woken(watch)
    (day / "17").write_bytes(b"line\n")
    assert woken(watch)
    with (day / "17").open("ab") as file:
        file.write(b"more\n")
        file.flush()
        assert woken(watch)
    (day / "17").read_bytes()
    assert not woken(watch), "reading is no news"
    (tmp_path / "beside").write_bytes(b"x\n")
    woken(watch)
    (tmp_path / "beside").rename(day / "18")
    assert woken(watch)


def test_directories_that_appear_are_watched_after_the_next_renewal(watch, tmp_path):
    for directory in (tmp_path / "stream", tmp_path / "stream/hourly", tmp_path / "stream/hourly/20260506"):
        directory.mkdir()
        watch.renew()
        woken(watch)
    (tmp_path / "stream/hourly/20260506/0").write_bytes(b"line\n")
    assert woken(watch)


def test_a_missing_root_is_no_error_and_drain_never_waits(watch):
    watch.renew()
    watch.drain()
    assert not woken(watch)
