"""A journal that was written long ago is read as it was written, and leads to where it led.

`golden/` has one of each version of the format that was ever released, and of today's. The journal and what
is known of its records change with the version, and are new files then. Where its commands lead to, by the
digests in `*.replayed.json`, changes with the rules of the exchange, and is made again with them
(make_golden.py --replayed); not so that a test passes, but when a rule was meant to change.
"""

import json

import pytest

from engine.exchange import recovery
from engine.exchange.state import allocate
from engine.journal import record
from tests.engine.journal import make_golden
from tests.exchange.commands import ROOMY

VERSIONS = sorted(int(path.name[1:]) for path in make_golden.GOLDEN.glob("v*") if path.is_dir())
BYTES_MAX = 100_000


def known(version, suffix=".json"):
    return json.loads(make_golden.directory(version).with_suffix(suffix).read_text())


def test_every_version_has_one():
    assert VERSIONS == [*range(1, record.VERSION + 1)]
    for version in VERSIONS:
        assert sum(path.stat().st_size for path in make_golden.directory(version).iterdir()) < BYTES_MAX


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_read_as_it_was_written(version):
    commands, found = make_golden.read(make_golden.directory(version))
    assert found == known(version)
    assert len(commands) == sum(map(sum, make_golden.BATCHES)) and found["end"]["torn"] == "the file ends"
    assert [*commands["sequence"]] == [*range(1, len(commands) + 1)]


def test_the_same_commands_are_written_as_they_were(tmp_path):
    """To the byte: a writer has not changed the format without a new version."""
    at = make_golden.directory()
    commands, _ = make_golden.read(at)
    make_golden.write(tmp_path / "again", commands, make_golden.torn(at))
    for path in sorted(at.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("version", VERSIONS)
def test_it_leads_to_where_it_led(version):
    commands, _ = make_golden.read(make_golden.directory(version))
    found = make_golden.replayed(commands)
    assert found == known(version, ".replayed.json") and len(found["digests"]) > 5
    core = allocate(ROOMY)
    recovery.replay(core, None, commands)
    assert core.heap[0]["orders"] == found["orders"] > 30
