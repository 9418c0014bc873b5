"""What a small world and the archive answer together is what a world that has forgotten nothing answers."""

import asyncio
import json
import sqlite3
from dataclasses import replace

import pytest

from engine.replica import archive as archives
from gateway import archive as readers
from gateway import errors
from gateway.application import Application
from gateway.archive import WAITING_MAX, Archive
from gateway.feed import Feed
from gateway.http import HttpAnswer
from gateway.info import Info
from gateway.older import Elsewhere
from gateway.session import SessionLimits
from gateway.world import World as Mapped
from shm import archived, codes
from tests import exchange_world
from tests.exchange_world import INTERVALS, Exchange
from tests.world import ALICE, BOB, CAROL

BLOCKS = 60
PER_TRANSACTION = 9  # items of each ring
NOW_MS = 1_699_999_980_000
SMALL = {"fills": 16, "closed": 8, "rejected": 8, "ledger": 8, "twaps": 8}
LARGE_KEPT, SMALL_KEPT = 128, 16
TIMES = [{}, {"startTime": NOW_MS + 600_000}, {"endTime": NOW_MS + 900_000}]
TIMES += [{"startTime": NOW_MS + 120_000, "endTime": NOW_MS + 1_200_000}]
QUESTIONS = [
    *({"type": "userFillsByTime", "user": ALICE, "startTime": 0} | times for times in TIMES),
    *(
        {"type": "userFillsByTime", "user": ALICE, "startTime": 0, "reversed": True} | times
        for times in TIMES
    ),
    {"type": "userFillsByTime", "user": BOB, "startTime": 0},
    {"type": "historicalOrders", "user": ALICE},
    {"type": "historicalOrders", "user": BOB},
    *({"type": "userNonFundingLedgerUpdates", "user": ALICE, "startTime": 0} | times for times in TIMES),
    {"type": "twapHistory", "user": ALICE},
    {"type": "userTwapSliceFills", "user": ALICE},
    *({"type": "userTwapSliceFillsByTime", "user": ALICE} | times for times in TIMES),
    *(
        {"type": "candleSnapshot", "req": {"coin": "BTC", "interval": interval, "startTime": 0} | times}
        for interval in ("1m", "5m", "1h")
        for times in TIMES
    ),
    *({"type": "fundingHistory", "coin": "BTC", "startTime": 0} | times for times in TIMES),
]


def made(kept, **counts):
    """A minute a block: trades of three accounts, orders that end, money that moves."""
    exchange_world.KEPT = kept
    world = Exchange(candles=8 * len(INTERVALS) * kept, rates=8 * kept, **counts)
    world.market("BTC", 5, max_leverage=40, price="60000")
    for n in range(BLOCKS):
        with world.block(time_ms=NOW_MS + 60_000 * n) as block:
            buyer, seller = ((ALICE, BOB), (BOB, CAROL), (CAROL, ALICE))[n % 3]
            block.trade("BTC", buyer, seller, "B", str(60000 + n), "0.5", tid=n, twap=n // 2 if n % 5 else -1)
            state = codes.Twap.FINISHED if n % 2 else codes.Twap.ACTIVATED
            block.twap(ALICE, 1 + n // 2, "BTC", state, sz="1")
            block.status("BTC", ALICE, "B", "1", "1", 2 * n, "canceled" if n % 2 else "badAloPxRejected")
            if n % 7 == 0:
                block.status("BTC", BOB, "B", "1", "1", 2 * n + 1, "filled")
            block.funds(ALICE, cash=n)
            block.rate("BTC", rate=125_000 + n, premium=n)
            block.money(ALICE, codes.Ledger.DEPOSIT, 1_000_000 + n)
    return world


def archive_of(world, path, kept, behind=0):
    """What a replica would have written of all that ever stood in these rings, but for the last rows."""
    archive, arrays = archives.Archive(path), world.arrays
    for at in range(0, 2 * BLOCKS, PER_TRANSACTION):  # a trade has two fills
        for table in archived.RINGS:
            tail = max(int(arrays[table.ring]["tail"][0]) - behind, 0)
            records = arrays[table.name][:tail][at : at + PER_TRANSACTION]
            archive._news[table.name] += [archived.packed(table, records, at)]
        archive.settle(at + 1)
        archive.commit()
    for series, count in enumerate(arrays["candle_heads"]["count"].tolist()):
        rows = archived.to_rows(
            archived.CANDLES, arrays["candles"][series * kept :][: max(count - behind, 0)]
        )
        archive._connection.executemany(archives._insert(archived.CANDLES), [(series, *row) for row in rows])
    for market, count in enumerate(arrays["contracts"]["rate_count"].tolist()):
        rows = archived.to_rows(archived.RATES, arrays["rates"][market * kept :][: max(count - behind, 0)])
        archive._connection.executemany(archives._insert(archived.RATES), [(market, *row) for row in rows])
    archive.close()
    return path


@pytest.fixture(scope="module")
def worlds():
    before = exchange_world.KEPT
    large = made(LARGE_KEPT)
    small = made(SMALL_KEPT, **SMALL)
    exchange_world.KEPT = before
    return large, small


@pytest.fixture(scope="module")
def path(worlds, tmp_path_factory):
    return archive_of(worlds[0], tmp_path_factory.mktemp("archive") / archived.FILE, LARGE_KEPT)


def ask(world, question, path=None):
    """The answer by HTTP, and over WebSocket, which are the same."""

    async def answered():
        info = Info()
        info.world = Mapped(world.reader())
        info.older = archive = None if path is None else Archive(str(path))
        body = json.dumps(question).encode()
        behind = Application(Feed(), info, SessionLimits(), lambda: 0, lambda: 0)
        answer = behind.answer("/info", body, None)
        answer = answer if isinstance(answer, HttpAnswer) else await answer
        posted = asyncio.get_running_loop().create_future()
        info.post(body, lambda kind, payload: posted.set_result((kind, payload)))
        kind, payload = await posted
        if archive is not None:
            archive.close()
        assert (answer.status, kind) == (200, "info")
        assert json.loads(payload)["data"] == json.loads(answer.body)
        return json.loads(answer.body)

    return asyncio.run(answered())


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_together_they_answer_as_if_nothing_had_been_forgotten(worlds, path, question):
    large, small = worlds
    whole = ask(large, question)
    assert ask(small, question, path) == whole
    assert ask(small, question, path.with_name("nowhere")) == ask(small, question)


def test_without_it_the_small_world_has_forgotten(worlds, path):
    """Or the tests above would hold whatever the archive says."""
    large, small = worlds
    forgotten = [question for question in QUESTIONS if ask(small, question) != ask(large, question)]
    assert len(forgotten) > 12


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_an_archive_that_is_behind_makes_no_gap(worlds, tmp_path, question):
    """It lacks the very items with which the rings break off."""
    large, small = worlds
    late = archive_of(large, tmp_path / archived.FILE, LARGE_KEPT, behind=40)
    assert ask(small, question, late) == ask(small, question)


def including(cut):
    """What goes on with the joint itself, and so tells it twice."""
    return lambda wanted, run: cut(replace(wanted, joint=wanted.joint + 1), run)


def test_a_seam_that_tells_an_item_twice_is_seen(worlds, path, monkeypatch):
    large, small = worlds
    right = readers.statement
    monkeypatch.setattr(readers, "_has_joint", lambda connection, wanted: True)
    monkeypatch.setattr(readers, "statement", lambda wanted: right(replace(wanted, joint=wanted.joint + 1)))
    monkeypatch.setattr(readers, "cut", including(readers.cut))
    seen = [question for question in QUESTIONS if ask(small, question, path) != ask(large, question)]
    kinds = {"userFillsByTime", "historicalOrders", "twapHistory", "candleSnapshot", "fundingHistory"}
    assert {question["type"] for question in seen} >= kinds


def test_a_seam_that_nobody_looks_for_is_seen(worlds, tmp_path, monkeypatch):
    """The archive is behind: it lacks the items with which the rings break off, and some before them."""
    large, small = worlds
    late = archive_of(large, tmp_path / archived.FILE, LARGE_KEPT, behind=40)
    monkeypatch.setattr(readers, "_has_joint", lambda connection, wanted: True)
    seen = [
        question
        for question in QUESTIONS
        if ask(small, question, late) not in (ask(small, question), ask(large, question))
    ]
    assert {question["type"] for question in seen} >= {"userFillsByTime", "candleSnapshot", "fundingHistory"}


def test_a_damaged_archive_is_as_none(worlds, path, tmp_path):
    _, small = worlds
    broken = tmp_path / archived.FILE
    broken.write_bytes(b"no database at all" * 1000)
    for question in QUESTIONS[:1]:
        assert ask(small, question, broken) == ask(small, question)


def test_an_archive_that_is_made_again_is_found(worlds, path, tmp_path):
    large, small = worlds
    moved, question = tmp_path / archived.FILE, QUESTIONS[0]

    async def twice():
        info = Info()
        info.world = Mapped(small.reader())
        info.older = archive = Archive(str(moved))
        lengths = []
        for _ in range(2):
            with pytest.raises(Elsewhere) as asked:
                info.answer(json.dumps(question).encode())
            answered = asyncio.get_running_loop().create_future()
            archive.ask(asked.value, answered.set_result)
            lengths.append(len(json.loads(await answered)))
            moved.unlink(missing_ok=True)
            archive_of(large, moved, LARGE_KEPT)
        archive.close()
        return lengths

    archives.Archive(moved).close()
    few, all_of_them = asyncio.run(twice())
    assert few < all_of_them == len(ask(large, question))


def test_too_many_at_a_time_are_to_ask_again(worlds, path):
    _, small = worlds

    async def crowd():
        info = Info()
        info.world = Mapped(small.reader())
        info.older = archive = Archive(str(path))
        behind = Application(Feed(), info, SessionLimits(), lambda: 0, lambda: 0)
        body = json.dumps(QUESTIONS[0]).encode()
        answers = [behind.answer("/info", body, None) for _ in range(WAITING_MAX + 3)]
        found = [each if isinstance(each, HttpAnswer) else await each for each in answers]
        archive.close()
        return [answer.status for answer in found]

    assert asyncio.run(crowd()) == [200] * WAITING_MAX + [errors.BUSY.status] * 3


def test_it_is_only_read(path):
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM fills")
