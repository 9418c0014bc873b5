"""A replica goes on where its files say, whatever ended the last one; it is silent once it has diverged."""

import itertools
import socket
import sqlite3

import numpy as np
import pytest

from engine.exchange import snapshot
from engine.exchange.apply import apply_commands
from engine.exchange.state import allocate
from engine.replica import copy as copies
from engine.replica.archive import sections_of
from engine.replica.copy import Copy
from engine.replica.runner import Runner, Settings
from shm import archived
from shm.codes import Command
from shm.control import Line
from tests.engine.replica.stream import RINGS, Pieces, rows, stream
from tests.exchange.commands import ROOMY

SEED = 0  # all rings go round


@pytest.fixture(scope="module")
def commands():
    return stream(SEED)


class Died(Exception):
    """The process is no more."""


def runner(directory, source, **more):
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    settings = Settings(
        journal="", snapshots=str(directory / "snapshots"), archive=str(directory / archived.FILE),
        capacity=ROOMY._asdict(), rings=RINGS, snapshot_seconds=1e9,
        **{"snapshot_commands": 300, **more},
    )  # fmt: skip
    made = Runner(settings, source, Line(theirs))
    made.supervisor = control  # its end would end it
    return made


def follow(running, turns=None):
    """Turn until there is nothing more, or so often."""
    running.begin()
    clock_ns = itertools.count(0, 60_000_000)
    for now_ns in itertools.islice(clock_ns, turns):
        if not running.turn(now_ns) or running.halted:
            return


def ended(running, commits=True):
    """The process has ended; and the archive holds all that it has taken, unless it has been killed."""
    if commits and not running.halted:
        running.archive.settle(running.copy.sequence)
        running.archive.commit()
    running.archive.close()
    running.supervisor.close()


def archive_of(directory):
    return rows(directory / archived.FILE)


@pytest.fixture(scope="module")
def whole(commands, tmp_path_factory):
    """The archive of a replica that nothing has happened to."""
    directory = tmp_path_factory.mktemp("whole")
    running = runner(directory, Pieces(commands))
    follow(running)
    ended(running)
    return directory


# --- what it keeps ------------------------------------------------------------------------------------------


def test_the_archive_holds_all_that_ever_stood_in_the_rings(commands, whole):
    """Its own rings are far smaller than the stream: a world with large ones says what there was."""
    found = archive_of(whole)
    assert found["span"] == [(1, len(commands))]
    copy = Copy(ROOMY, {name: 1 << 13 for name in RINGS})
    copy.take(commands, lambda world, sequence: None)
    sections = sections_of(copy.world)
    for table in archived.RINGS:
        tail = int(sections[table.ring][0]["tail"])
        items = archived.to_rows(table, sections[table.name][:tail])
        assert found[table.name] == [(at, *item) for at, item in enumerate(items)]
        assert tail > RINGS[table.name], "the replica's ring has gone round"
    heads = copy.world.candle_heads["count"]
    kept = len(copy.world.candles) // len(heads)
    candles = [
        (series, *row)
        for series, count in enumerate(heads.tolist())
        for row in archived.to_rows(archived.CANDLES, copy.world.candles[series * kept :][:count])
    ]
    assert found["candles"] == candles and len(candles) > 0
    hours = [
        (market, *row)
        for market, count in enumerate(copy.world.contracts["rate_count"].tolist())
        for row in archived.to_rows(archived.RATES, rates_of(copy.world, market)[:count])
    ]
    assert found["rates"] == hours and len(hours) > len(rates_of(Copy(ROOMY, RINGS).world, 0))


def rates_of(world, market):
    kept = len(world.rates) // len(world.contracts)
    return world.rates[market * kept : (market + 1) * kept]


def test_what_accounts_are_worth_is_sampled_at_the_first_block_of_each_hour(commands, whole):
    """As one would say it by hand, of a world that nobody has archived."""
    copy, before_ms, told, samples, rows = Copy(ROOMY, RINGS), 0, {}, [], []
    for block in copies.blocks(commands)[0]:
        copy.take(block, lambda world, sequence: None)
        time_ms = int(block["time_ns"][-1]) // 10**6
        if time_ms // 3_600_000 != before_ms // 3_600_000:
            samples.append((time_ms, int(copy.world.state.status[0]["height"])))
            for account, worth in enumerate(worth_of(copy.world)):
                if told.get(account, (0, 0, 0)) != worth:
                    rows.append((account, time_ms, *worth))
                    told[account] = worth
        before_ms = time_ms
    found = archive_of(whole)
    assert found["samples"] == samples and len(samples) > 5
    assert found["equity"] == sorted(rows)
    assert len(rows) < len(samples) * len(told), "who has not changed has no row"
    assert any(value != deposited for _, _, value, deposited, _ in rows)


def worth_of(world):
    """Of each account, as the wire counts it: accountValue, what was paid in, what was traded."""
    status = world.state.status[0]
    for account in range(int(status["account_count"])):
        funds = world.funds[account]
        value = int(funds["cash"])
        for row in world.positions[: int(status["position_count"])]:
            if row["account"] == account:
                mark = int(world.contracts["mark"][row["market"]])
                value += int(row["isolated"]) + int(row["size"]) * mark - int(row["entry"])
        yield value, int(funds["deposited"]), int(funds["volume"])


@pytest.mark.parametrize("table", archived.RINGS, ids=lambda table: table.name)
def test_records_come_back_as_they_were(commands, table):
    copy = Copy(ROOMY, {name: 1 << 13 for name in RINGS})
    copy.take(commands, lambda world, sequence: None)
    slots = sections_of(copy.world)[table.name]
    records = slots[: int(sections_of(copy.world)[table.ring][0]["tail"])].copy()
    packed = archived.packed(table, records, 0)
    form = archived.read(archived.written(packed.dtype))
    found = archived.unpacked(table, np.frombuffer(packed.tobytes(), form))
    for link in archived.LINKS - {"sequence"}:
        if link in table.dtype.names:
            records[link] = 0
    assert found.tobytes() == records.tobytes() and len(records)


def test_a_run_is_what_an_account_got_in_one_transaction(whole):
    connection = sqlite3.connect(whole / archived.FILE)
    forms = archived.forms(connection.execute("SELECT id, fields FROM forms"))
    longest = 0
    for table in archived.RINGS:
        runs = connection.execute(f"SELECT * FROM {table.name}").fetchall()
        for account, since, first, _, form, memory in runs:
            items = np.frombuffer(memory, forms[form])
            assert (items["account"] == account).all()
            assert (int(items[table.time][0]), int(items["position"][0])) == (since, first)
            assert (np.diff(items["position"]) > 0).all()
            longest = max(longest, len(items))
        assert len({(settled, account) for account, _, _, settled, _, _ in runs}) == len(runs)
    connection.close()
    assert longest > 3


def test_snapshots_are_taken_and_the_source_forgets_what_is_below_the_older(commands, whole):
    files = sorted((whole / "snapshots").iterdir())
    assert len(files) == snapshot.KEPT
    source = Pieces(commands)
    running = runner(whole, source)
    running.begin()
    assert source.sequence == int(files[-1].stem) + 1
    ended(running)


def test_only_below_the_older_good_snapshot_anything_is_forgotten(commands, tmp_path):
    source = Pieces(commands)
    running = runner(tmp_path, source)
    follow(running)
    files = sorted((tmp_path / "snapshots").iterdir())
    assert source.forgotten == int(files[0].stem) > 0
    ended(running)


# --- what ends it -------------------------------------------------------------------------------------------


def test_killed_at_any_turn_the_next_one_makes_the_same_archive(commands, whole, tmp_path, pytestconfig):
    """Every turn ends a process here, some in the middle of a commit or of a snapshot."""
    step = 1 if pytestconfig.getoption("--soak") else 4
    expected, source, lives = archive_of(whole), Pieces(commands), 0
    for turns in itertools.cycle(range(1, 30, step)):
        running = runner(tmp_path, source)
        lives += 1
        follow(running, turns)
        at_end = source.sequence > len(commands)
        ended(running, commits=False)
        if at_end:
            break
    assert lives > 3
    running = runner(tmp_path, source)
    follow(running)
    ended(running)
    assert archive_of(tmp_path) == expected


@pytest.mark.parametrize(("method", "number"), [("executemany", 22), ("COMMIT", 3), ("UPDATE", 3)])
def test_a_transaction_that_is_cut_leaves_nothing(commands, whole, tmp_path, method, number):
    class Cut:
        def __init__(self, connection):
            self.connection, self.left = connection, number

        def execute(self, statement, *values):
            self.look(statement)
            return self.connection.execute(statement, *values)

        def executemany(self, statement, values):
            self.look("executemany")
            return self.connection.executemany(statement, values)

        def look(self, statement):
            if statement.startswith(method):
                self.left -= 1
                if self.left == 0:
                    raise Died

        def close(self):
            self.connection.close()

    running = runner(tmp_path, Pieces(commands))
    running.archive._connection = Cut(running.archive._connection)
    with pytest.raises(Died):
        follow(running)
    running.archive._connection.connection.close()
    running = runner(tmp_path, Pieces(commands))
    assert 0 < running.archive.last < len(commands)
    follow(running)
    ended(running)
    assert archive_of(tmp_path) == archive_of(whole)


# --- what is gone -------------------------------------------------------------------------------------------


def test_an_archive_that_was_deleted_is_made_again(commands, whole, tmp_path):
    running = runner(tmp_path, Pieces(commands))
    follow(running)
    ended(running)
    (tmp_path / archived.FILE).unlink()
    running = runner(tmp_path, Pieces(commands))
    follow(running)
    ended(running)
    assert archive_of(tmp_path) == archive_of(whole)


def test_as_far_as_the_journal_reaches(commands, whole, tmp_path):
    source = Pieces(commands)
    running = runner(tmp_path, source)
    follow(running)
    ended(running)
    (tmp_path / archived.FILE).unlink()
    source.first = source.forgotten + 1
    running = runner(tmp_path, source)
    follow(running)
    ended(running)
    expected, found = archive_of(whole), archive_of(tmp_path)
    (span,) = found["span"]
    assert span == (source.first, expected["span"][0][1])
    for table in archived.RINGS:
        rest = found[table.name]
        assert rest and rest == expected[table.name][-len(rest) :]
        assert len(rest) < len(expected[table.name])
    assert {row[:2] for row in found["candles"]} <= {row[:2] for row in expected["candles"]}
    for name in ("rates", "samples"):
        rest = found[name]
        assert rest and rest == expected[name][-len(rest) :] and len(rest) < len(expected[name])
    first_ms = found["samples"][0][0]
    at_first = {row[0]: row[2:] for row in expected["equity"] if row[1] <= first_ms}
    assert {row[0]: row[2:] for row in found["equity"] if row[1] == first_ms} == at_first
    later = [[row for row in of["equity"] if row[1] > first_ms] for of in (found, expected)]
    assert later[0] == later[1] != []


def test_what_cannot_be_read_is_put_aside_and_said(commands, whole, tmp_path, capfd):
    (tmp_path / archived.FILE).write_bytes(b"this is not a database, whatever its name says" * 100)
    running = runner(tmp_path, Pieces(commands))
    follow(running)
    ended(running)
    assert archive_of(tmp_path) == archive_of(whole)
    assert "archive_begins_anew" in capfd.readouterr().err
    assert (tmp_path / "archive.old").read_bytes().startswith(b"this is not")


def test_a_damaged_snapshot_is_passed_over_and_said(commands, whole, tmp_path, capfd):
    running = runner(tmp_path, Pieces(commands))
    follow(running)
    ended(running)
    for file in (tmp_path / "snapshots").iterdir():
        file.write_bytes(file.read_bytes()[:-8])
    running = runner(tmp_path, Pieces(commands))
    follow(running)
    ended(running)
    assert capfd.readouterr().err.count("snapshot_passed_over") == 2
    assert archive_of(tmp_path) == archive_of(whole)


def test_a_field_that_is_new_is_zero_in_the_rows_of_before(commands, tmp_path, monkeypatch):
    """The first half of the archive was written by a program that did not know it."""
    source, known = Pieces(commands), archived.kept
    monkeypatch.setattr(archived, "kept", lambda table: [name for name in known(table) if name != "cloid"])
    source.until = len(commands) // 2
    running = runner(tmp_path, source)
    follow(running)
    ended(running, commits=False)
    before = running.archive.last
    monkeypatch.undo()
    running = runner(tmp_path, Pieces(commands))
    follow(running)
    ended(running)
    heights = np.cumsum(commands["kind"] == Command.END_BLOCK)
    found = archive_of(tmp_path)["closed"]
    of_before = [row for row in found if row[1] <= heights[before - 1]]
    cloid = archived.columns(archived.CLOSED).index("cloid")
    assert 0 < len(of_before) < len(found) and not any(any(row[cloid]) for row in of_before)
    assert any(any(row[cloid]) for row in found)


def test_an_archive_of_an_earlier_version_is_put_aside_and_said(commands, whole, tmp_path, capfd):
    connection = sqlite3.connect(tmp_path / archived.FILE)
    connection.execute("CREATE TABLE fills (position INTEGER PRIMARY KEY)")
    connection.close()
    running = runner(tmp_path, Pieces(commands))
    follow(running)
    ended(running)
    assert archive_of(tmp_path) == archive_of(whole)
    assert "earlier version" in capfd.readouterr().err and (tmp_path / "archive.old").exists()


# --- an engine that does something else ---------------------------------------------------------------------


def wrong(commands, number):
    """The stream of an engine whose digest is another one from the end of block `number` on."""
    changed = commands.copy()
    ends = np.flatnonzero(changed["kind"] == Command.END_BLOCK)
    changed["amount"][ends[number + 1 :]] ^= 1 << 40
    return changed, int(changed["sequence"][ends[number]])


def test_a_divergence_is_an_alarm_and_nothing_is_written_after_it(commands, tmp_path, capfd):
    changed, since = wrong(commands, 15)
    source = Pieces(changed)
    running = runner(tmp_path, source, snapshot_commands=1)
    follow(running)
    assert running.halted and source.forgotten < since
    ended(running)
    (alarm,) = [line for line in capfd.readouterr().err.splitlines() if "diverged" in line]
    assert f"after sequence {since}" in alarm and '"level":"error"' in alarm
    assert max(int(file.stem) for file in (tmp_path / "snapshots").iterdir()) < since
    assert archive_of(tmp_path)["span"][0][1] < since


def test_a_copy_that_applies_wrongly_is_found_in_the_next_block(commands, tmp_path, monkeypatch):
    """One order of hundreds is left out, as by a bit of memory that has flipped."""
    orders = commands["sequence"][commands["kind"] == Command.ORDER]
    real, at = copies.apply_commands, int(orders[len(orders) // 2])

    def crooked(state, rows, count):
        changed = rows.copy()
        changed["kind"][changed["sequence"] == at] = Command.NOOP
        return real(state, changed, count)

    monkeypatch.setattr(copies, "apply_commands", crooked)
    running = runner(tmp_path, Pieces(commands), snapshot_commands=1)
    follow(running)
    ended(running)
    assert running.halted and at <= running.copy.sequence < at + 100
    assert max(int(file.stem) for file in (tmp_path / "snapshots").iterdir()) < at


def test_it_ends_with_its_supervisor(commands, tmp_path):
    running = runner(tmp_path, Pieces(commands))
    running.supervisor.close()
    running.run()
    assert running.ending


def test_a_whole_copy_is_the_engine(commands, tmp_path):
    running = runner(tmp_path, Pieces(commands))
    follow(running)
    ended(running)
    core, done = allocate(ROOMY), 0
    while done < len(commands):
        done += apply_commands(core, commands[done:], len(commands) - done)
    assert running.copy.core.heap["digest"] == core.heap["digest"]
