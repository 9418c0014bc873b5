"""Each point of a portfolio is what the account had at that very moment; none is missing or told twice."""

import asyncio
import json
import random
from types import SimpleNamespace

import pytest

from engine.replica import archive as archives
from gateway import accounts, portfolio
from gateway import archive as readers
from gateway.archive import Archive
from gateway.contracts import DAY_MS, HOUR_MS, usd
from gateway.info import Info
from gateway.older import Elsewhere
from gateway.world import World as Mapped
from shm import archived
from tests.exchange_world import Exchange
from tests.world import ALICE, BOB, CAROL, NOBODY

START_MS = 1_700_000_000_000
END_MS = START_MS - START_MS % HOUR_MS + 40 * DAY_MS  # the last block is the first of its hour
BEGAN_MS = {ALICE: START_MS, BOB: START_MS + 10 * DAY_MS, CAROL: END_MS - 200 * 60_000}
STEP_MS = 37 * 60_000  # some hours have one block, some have two
NIGHT = 14  # steps of each 39 without a block
USERS = (ALICE, BOB, CAROL)


class Kept:
    """A world, what a replica writes of it, and what each account had at each block, by its time."""

    def __init__(self):
        self.world = Exchange()
        self.world.market("BTC", 5, max_leverage=40, price="60000")
        for user in USERS:
            self.world.account(user)
        self.reader = Mapped(self.world.reader())
        self.truth = {user: {} for user in USERS}

    def live(self, archive, until_ms=END_MS + 1):
        """Days of it. archive: behind from `until_ms` on."""
        archive.begin(self.as_replica(), 0)
        chance, volume, times = random.Random(7), 0, [*range(START_MS, END_MS, STEP_MS), END_MS]
        for n, time_ms in enumerate(times):
            if n % 39 < NIGHT and time_ms != END_MS:
                continue
            with self.world.block(time_ms=time_ms) as block:
                volume += chance.randrange(10**9)
                block.contract("BTC", mark=chance.randrange(5 * 10**5, 7 * 10**5))
                told = {"deposited": n // 50 * 10**9, "created_ms": START_MS}
                block.funds(ALICE, cash=chance.randrange(10**12), volume=volume, **told)
                size = chance.randrange(-(10**6), 10**6)
                block.position(ALICE, "BTC", str(size / 10**5), entry=size * 6 * 10**5)
                for user in (BOB, CAROL):
                    if time_ms >= BEGAN_MS[user] and self.began(user) == 0:
                        block.funds(user, cash=5 * 10**9, deposited=5 * 10**9, created_ms=time_ms)
            for user in USERS:
                self.note(user)
            if time_ms < until_ms:
                archive._take_sample(self.as_replica())
            archive.settle(n + 1)
        archive.commit()
        archive.close()
        return self

    def note(self, user):
        account = accounts.read(self.reader, self.reader.account(bytes.fromhex(user[2:])))
        deposited, volume = int(account.funds["deposited"]), int(account.funds["volume"])
        self.truth[user][account.now_ms] = (account.value, account.value - deposited, volume)

    def as_replica(self):
        """What the archive looks at, of these sections."""
        arrays = self.world.arrays
        history = SimpleNamespace(_asdict=lambda: arrays)
        state = SimpleNamespace(status=arrays["status"], markets=arrays["markets"], history=history)
        return SimpleNamespace(
            **{name: array for name, array in arrays.items() if name != "status"}, state=state
        )

    def ask(self, user, path):
        """The periods by name."""

        async def asked():
            info = Info()
            info.world, info.older = self.reader, Archive(str(path))
            try:
                return info.answer(json.dumps({"type": "portfolio", "user": user}).encode())
            except Elsewhere as question:
                answered = asyncio.get_running_loop().create_future()
                info.older.ask(question, answered.set_result)
                return await answered
            finally:
                info.older.close()

        return dict(json.loads(asyncio.run(asked())))

    def expected(self, user, until_ms=END_MS, began_ms=None):
        """The times of the points of each period, by hand. until_ms: from then on nothing was archived."""
        known, began_ms = self.truth[user], self.began(user)
        firsts = {}
        for time_ms in sorted(self.truth[ALICE]):
            firsts.setdefault(time_ms // HOUR_MS, time_ms)
        samples = [time_ms for time_ms in firsts.values() if began_ms < time_ms < min(until_ms, END_MS)]
        for period in portfolio.PERIODS:
            since_ms = 0 if period.length_ms is None else END_MS - period.length_ms
            points = {}
            for time_ms in samples:
                if time_ms >= since_ms:
                    points.setdefault(time_ms // period.stretch_ms, time_ms)
            begins = [began_ms] if began_ms >= since_ms else []
            assert set(points.values()) <= known.keys()
            yield period.name, [*begins, *points.values(), END_MS]

    def began(self, user):
        return int(
            accounts.read(self.reader, self.reader.account(bytes.fromhex(user[2:]))).funds["created_ms"]
        )

    def told(self, user, times):
        """A period of these points, by the truth."""
        nothing = {self.began(user): (0, 0, 0)}
        points = [
            (nothing | {END_MS: self.truth[user][END_MS]}).get(each) or self.truth[user][each]
            for each in times
        ]
        return {
            "accountValueHistory": [
                [at, usd(value)] for at, (value, _, _) in zip(times, points, strict=True)
            ],
            "pnlHistory": [
                [at, usd(gained - points[0][1])] for at, (_, gained, _) in zip(times, points, strict=True)
            ],
            "vlm": usd(points[-1][2] - points[0][2]),
        }


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("archive") / archived.FILE


@pytest.fixture(scope="module")
def kept(path):
    return Kept().live(archives.Archive(path))


def is_true(kept, user, periods, until_ms=END_MS):
    return all(
        periods[name] == periods["perp" + name[0].upper() + name[1:]] == kept.told(user, times)
        for name, times in kept.expected(user, until_ms)
    )


@pytest.mark.parametrize("user", USERS)
def test_each_point_is_what_was_there_then(kept, path, user):
    """The last block is the first of an hour: it is sampled, and it is now, and is told once."""
    periods = kept.ask(user, path)
    for name, times in kept.expected(user):
        assert periods[name] == kept.told(user, times)
    assert is_true(kept, user, periods)


def test_there_is_something_to_be_told(kept, path):
    """Or the test above would hold whatever the archive says."""
    periods = kept.ask(ALICE, path)

    values = dict(map(tuple, periods["month"]["accountValueHistory"]))
    assert len(set(values.values())) == len(values) > 50, "each is another one"
    still = kept.ask(BOB, path)["month"]["accountValueHistory"]
    assert {value for _, value in still[1:]} == {"5000.0"} and len(still) > 50


def test_an_archive_that_is_behind_leaves_out_what_it_does_not_know(tmp_path):
    until_ms, path = END_MS - 6 * HOUR_MS, tmp_path / archived.FILE
    kept = Kept().live(archives.Archive(path), until_ms)
    for user in USERS:
        assert is_true(kept, user, kept.ask(user, path), until_ms)
    assert not is_true(kept, ALICE, kept.ask(ALICE, path))


MUTANTS = {
    "now is told twice": (
        "SELECT min(time_ms) AS time_ms FROM samples WHERE time_ms BETWEEN ? AND ?",
        "SELECT min(time_ms) AS time_ms FROM samples WHERE time_ms BETWEEN ? AND 1 + ?",
    ),
    "a stretch is told by its last sample": ("SELECT min(time_ms) AS", "SELECT max(time_ms) AS"),
    "who has not changed has nothing": ("time_ms <= sample.time_ms", "time_ms = sample.time_ms"),
    "what an account had is that of later": (
        "(SELECT max(time_ms) FROM equity WHERE account = ? AND time_ms <=",
        "(SELECT min(time_ms) FROM equity WHERE account = ? AND time_ms >=",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_seam_is_seen(kept, path, mutant, monkeypatch):
    right, (sound, broken) = readers.sampled, MUTANTS[mutant]

    def wrong(wanted):
        rows, values = right(wanted)
        assert sound in rows
        return rows.replace(sound, broken), values

    monkeypatch.setattr(readers, "sampled", wrong)
    assert not all(is_true(kept, user, kept.ask(user, path)) for user in USERS)


def test_without_an_archive_there_is_now(kept, path):
    periods = kept.ask(ALICE, path.with_name("nowhere"))
    value = usd(kept.truth[ALICE][END_MS][0])
    assert periods["day"] == {"accountValueHistory": [[END_MS, value]], "pnlHistory": [], "vlm": "0.0"}
    assert periods["allTime"] == kept.told(ALICE, [START_MS, END_MS])


def test_who_was_never_seen_has_nothing(kept, path):
    for period in kept.ask(NOBODY, path).values():
        assert period == {"accountValueHistory": [], "pnlHistory": [], "vlm": "0.0"}


def test_a_long_life_is_told_in_a_bounded_number_of_points(kept):
    account = accounts.read(kept.reader, kept.reader.account(bytes.fromhex(ALICE[2:])))
    for years in (1, 7, 30):
        old = account._replace(now_ms=START_MS + years * 365 * DAY_MS)
        (ever,) = [period for period in portfolio.PERIODS if period.length_ms is None]
        wanted = portfolio._samples(old, 0, ever)
        assert (wanted.until - wanted.since) // wanted.stretch < portfolio.POINTS_MAX
        assert wanted.stretch % DAY_MS == 0
