"""What is read of accounts, agents, ledgers and candles, against what was written; and amid the writing."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba import njit

from shm import account_rows, codes, layout, rows, seqlock
from shm.atomics import load_acquire_at, pause
from shm.layout import NO_SLOT
from tests.exchange_world import INTERVALS, KEPT, Exchange, begins
from tests.world import ALICE, BOB, CAROL, NOBODY, raw

TRIES = 3
COINS = ("BTC", "ETH", "SOL")
MINUTE_MS = 60_000
NOON_MS = 1_699_963_200_000  # Tuesday, 14 November 2023


def tables(world, *names):
    arrays = world.reader().arrays
    return tuple(arrays[name] for name in names)


def account_of(world, user, size=8):
    """The funds and positions as they are read; or what the reader said instead."""
    funds, out = np.zeros(1, layout.FUNDS), np.zeros(size, layout.POSITION)
    mapped = tables(world, "accounts", "funds", "positions")
    count = account_rows.read_account(*mapped, world.account(user), funds, out, TRIES)
    return (funds[0], out[:count]) if count >= 0 else count


@pytest.fixture
def world():
    world = Exchange()
    with world.block() as block:
        for user in (ALICE, BOB):
            for coin in COINS:
                block.position(user, coin, "1.5", entry=150_000_000, used=7_500_000)
            block.funds(user, cash=1_000_000_000, used=22_500_000, volume=5)
        block.open("BTC", ALICE, "B", "90", "2", 1)
        block.open("BTC", ALICE, "A", "110", "1", 2)
        block.open("ETH", ALICE, "B", "80", "1", 3)
        block.open("BTC", ALICE, "B", "70", "1", 4, flags=codes.Flag.REDUCE_ONLY)
        block.open("BTC", BOB, "B", "60", "1", 5)
    return world


def test_an_account_is_its_funds_and_its_positions_newest_first(world):
    funds, positions = account_of(world, ALICE)
    assert (funds["cash"], funds["used"], funds["volume"]) == (1_000_000_000, 22_500_000, 5)
    assert positions["market"].tolist() == [world.markets[coin] for coin in reversed(COINS)]
    assert set(positions["account"].tolist()) == {world.account(ALICE)}
    assert account_of(world, ALICE, size=2) == rows.TOO_SMALL
    assert len(account_of(world, CAROL)[1]) == 0


def agents_of(world, user, size=8):
    out = np.zeros(size, layout.AGENT)
    mapped = tables(world, "accounts", "funds", "agents")
    count = account_rows.read_agents(*mapped, world.account(user), out, TRIES)
    return [bytes(name).rstrip(b"\0").decode() for name in out["name"][:count]] if count >= 0 else count


def test_agents_are_found_by_account_and_by_address(world):
    with world.block() as block:
        block.agent(ALICE, CAROL, "first")
        block.agent(BOB, "0x" + "0b" * 20, "other")
        block.agent(ALICE, "0x" + "0c" * 20, "second", valid_until_ms=5)
    assert agents_of(world, ALICE) == ["second", "first"]
    assert agents_of(world, ALICE, size=1) == rows.TOO_SMALL
    assert agents_of(world, CAROL) == []
    mapped, out = tables(world, "status", "accounts", "agents"), np.zeros(1, layout.AGENT)
    assert account_rows.read_agent(*mapped, raw(CAROL), out, TRIES) == 1
    assert out["account"][0] == world.account(ALICE)
    assert account_rows.read_agent(*mapped, raw(NOBODY), out, TRIES) == rows.MISSING


def test_sub_accounts_are_newest_first(world):
    names = ["0x" + digits * 20 for digits in ("51", "52", "53")]
    for name in names:
        with world.block() as block:
            block.sub(ALICE, name, "sub")
    out, mapped = np.zeros(8, layout.WORD), tables(world, "accounts", "funds")
    assert account_rows.read_subs(*mapped, world.account(ALICE), out, TRIES) == 3
    assert out[:3].tolist() == [world.account(name) for name in reversed(names)]
    assert account_rows.read_subs(*mapped, world.account(ALICE), out[:2], TRIES) == rows.TOO_SMALL
    assert account_rows.read_subs(*mapped, world.account(BOB), out, TRIES) == 0


def ledger_of(world, user, size=100):
    out = np.zeros(size, layout.LEDGER)
    mapped = tables(world, "funds", "ledger_ring", "ledger")
    count = account_rows.read_ledger(*mapped, world.account(user), out)
    return out["amount"][:count].tolist()


def test_a_ledger_ends_where_the_ring_has_forgotten(world):
    for amount in range(100):  # of which the ring keeps the last 64: 32 of each
        with world.block() as block:
            block.money(ALICE if amount % 2 else BOB, codes.Ledger.DEPOSIT, amount)
    assert ledger_of(world, ALICE) == list(range(99, 35, -2))
    assert ledger_of(world, BOB) == list(range(98, 35, -2))
    assert ledger_of(world, ALICE, size=3) == [99, 97, 95]
    assert ledger_of(world, CAROL) == []
    with world.block() as block:
        for amount in range(64):
            block.money(CAROL, codes.Ledger.DEPOSIT, amount)
    assert ledger_of(world, ALICE) == [], "all of it was overwritten"


def twaps_of(world, user, size=100):
    """The ids of those that run; or what the reader said instead."""
    out = np.zeros(size, layout.TWAP)
    mapped = tables(world, "accounts", "funds", "running_twaps")
    count = account_rows.read_running_twaps(*mapped, world.account(user), out, TRIES)
    return out["order"][:count].tolist() if count >= 0 else count


def began_and_ended(world, user, size=100):
    out = np.zeros(size, layout.TWAP)
    mapped = tables(world, "funds", "twap_ring", "twaps")
    count = account_rows.read_twaps(*mapped, world.account(user), out)
    return out["order"][:count].tolist()


def test_twaps_that_run_are_newest_first_and_all_there(world):
    for id in range(1, 91):  # 90 beginnings and 60 ends, of which the ring keeps the last 64
        with world.block() as block:
            block.twap(ALICE if id % 2 else BOB, id, "BTC", sz="1")
        if id > 30:
            with world.block() as block:
                block.twap(ALICE if id % 2 else BOB, id, "BTC", codes.Twap.FINISHED, sz="1")
    assert twaps_of(world, ALICE) == list(range(29, 0, -2))
    assert twaps_of(world, BOB) == list(range(30, 0, -2))
    assert twaps_of(world, ALICE, size=14) == rows.TOO_SMALL
    assert twaps_of(world, CAROL) == began_and_ended(world, CAROL) == []
    assert began_and_ended(world, ALICE) == [id for id in range(89, 58, -2) for _ in range(2)]
    assert began_and_ended(world, BOB, size=3) == [90, 90, 88]


# --- markets -----------------------------------------------------------------------------------------------


def traded(seed, count=60):
    """A world, and the trades of two markets that made its candles: (coin, time, price, quantity)."""
    chance, world, trades, time_ms = random.Random(seed), Exchange(), [], NOON_MS
    for tid in range(count):
        time_ms += chance.choice([0, 20_000, 61_000, 900_000, 86_400_000])
        coin, price, size = chance.choice(["BTC", "ETH"]), chance.randrange(90, 110), chance.randrange(1, 9)
        with world.block(time_ms=time_ms) as block:
            block.trade(coin, ALICE, BOB, "B", price, size, tid)
        m = world.market(coin)
        trades.append((coin, time_ms, world.price(coin, price), world.size(coin, size)))
        assert world.arrays["contracts"]["reference_price"][m] == trades[-1][2]
    return world, trades


def expected_candles(trades, coin, interval):
    """Every candle: (start, open, high, low, close, volume, notional, trades), oldest first."""
    groups = {}
    for name, time_ms, price, size in trades:
        if name == coin:
            groups.setdefault(begins(time_ms, interval), []).append((price, size))
    return [
        (
            start, group[0][0], max(p for p, _ in group), min(p for p, _ in group), group[-1][0],
            sum(q for _, q in group), sum(p * q for p, q in group), len(group),
        )
        for start, group in sorted(groups.items())
    ]  # fmt: skip


def candles_of(world, coin, interval, start_ms=0, end_ms=2**62, size=KEPT):
    out = np.zeros(size, layout.CANDLE)
    market = world.markets[coin]
    series = market * len(INTERVALS) + INTERVALS.index(interval)
    mapped = tables(world, "markets", "candle_heads", "candles")
    count = account_rows.read_candles(*mapped, market, series, start_ms, end_ms, out, TRIES)
    return out[:count][::-1].tolist()


@pytest.mark.parametrize("seed", range(3))
def test_candles_are_a_function_of_the_trades(seed):
    world, trades = traded(seed)
    for coin in ("BTC", "ETH"):
        for interval in INTERVALS:
            whole = expected_candles(trades, coin, interval)
            assert candles_of(world, coin, interval) == whole[-KEPT:]
            assert candles_of(world, coin, interval, size=2) == whole[-KEPT:][-2:]
            first, last = whole[-KEPT:][len(whole[-KEPT:]) // 2][0], whole[-1][0] - 1
            within = [candle for candle in whole[-KEPT:] if first <= candle[0] <= last]
            assert candles_of(world, coin, interval, first, last) == within


def day_of(world, coin, since_ms):
    out, market = np.zeros(1, layout.CANDLE), world.markets[coin]
    mapped = tables(world, "markets", "candle_heads", "candles")
    series = market * len(INTERVALS) + INTERVALS.index("1m")
    assert account_rows.read_day(*mapped, market, series, since_ms, out, TRIES) >= 0
    return out[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_day_is_the_sum_of_its_trades(seed):
    world, trades = traded(seed, count=16)
    for coin in ("BTC", "ETH"):
        mine = [trade for trade in trades if trade[0] == coin]
        for since_ms in {
            begins(time_ms, "1m") + 60_000 * ahead for _, time_ms, *_ in mine for ahead in (0, 1)
        }:
            day = day_of(world, coin, since_ms)
            before = [price for _, time_ms, price, _ in mine if time_ms < since_ms]
            within = [(price, size) for _, time_ms, price, size in mine if time_ms >= since_ms]
            assert day["volume"] == sum(size for _, size in within)
            assert day["notional"] == sum(price * size for price, size in within)
            assert day["count"] == len(within)
            assert day["open"] == (before[-1] if before else within[0][0])


def test_a_market_without_a_trade_has_no_candle():
    world = Exchange()
    world.market("BTC")
    assert candles_of(world, "BTC", "1m") == []
    assert day_of(world, "BTC", 0)["open"] == 0


# --- amid the writing --------------------------------------------------------------------------------------


def test_a_writer_at_work_is_met_and_told(world):
    out, words = np.zeros(8, layout.AGENT), np.zeros(8, layout.WORD)
    candle, contract = np.zeros(1, layout.CANDLE), np.zeros(1, layout.CONTRACT)
    a = world.account(ALICE)
    with world.block() as block:
        block.agent(ALICE, CAROL, "first")
    of_agents, of_subs = tables(world, "accounts", "funds", "agents"), tables(world, "accounts", "funds")
    of_candles = tables(world, "markets", "candle_heads", "candles")
    one, running = tables(world, "status", "accounts", "agents"), np.zeros(1, layout.TWAP)
    of_twaps = tables(world, "accounts", "funds", "running_twaps")
    readers = (
        lambda: account_rows.read_running_twaps(*of_twaps, a, running, TRIES),
        lambda: account_rows.read_agents(*of_agents, a, out, TRIES),
        lambda: account_rows.read_agent(*one, raw(CAROL), out, TRIES),
        lambda: account_rows.read_subs(*of_subs, a, words, TRIES),
        lambda: account_rows.read_contract(*tables(world, "markets", "contracts"), 0, contract, TRIES),
        lambda: account_rows.read_candles(*of_candles, 0, 0, 0, 9, candle, TRIES),
        lambda: account_rows.read_day(*of_candles, 0, 0, 0, candle, TRIES),
    )
    assert all(reader() >= 0 for reader in readers)
    rows_open = (world.arrays["markets"][0], world.arrays["accounts"][a])
    for row in rows_open:
        seqlock.open_row(row)
    assert [reader() for reader in readers] == [rows.TORN] * len(readers)
    assert account_of(world, ALICE) == rows.TORN
    for row in rows_open:
        seqlock.close_row(row)
    assert all(reader() >= 0 for reader in readers)


def test_nonsense_in_the_links_leads_nowhere(world):
    """Between two looks anything may stand in a link: it must not lead out of the tables, or in circles."""
    chance, a = random.Random(6), world.account(ALICE)
    with world.block() as block:
        block.agent(ALICE, CAROL)
        block.sub(ALICE, NOBODY, "sub")
        block.twap(ALICE, 7, "BTC")
    out, agents, words = (np.zeros(8, dtype) for dtype in (layout.POSITION, layout.AGENT, layout.WORD))
    funds, running = np.zeros(1, layout.FUNDS), np.zeros(8, layout.TWAP)
    of_twaps = tables(world, "accounts", "funds", "running_twaps")
    of_account = tables(world, "accounts", "funds", "positions")
    of_agents = tables(world, "accounts", "funds", "agents")
    for _ in range(300):
        for table, field in (
            ("funds", "first_position"), ("positions", "next"), ("funds", "first_agent"), ("agents", "next"),
            ("funds", "first_sub"), ("funds", "next_sub"), ("funds", "first_twap"), ("running_twaps", "next"),
        ):  # fmt: skip
            if chance.random() < 0.5:
                column = world.arrays[table][field]
                column[chance.randrange(8)] = chance.choice([-(2**31), -2, NO_SLOT, 0, 1, 5, 2**31 - 1])
        results = (
            account_rows.read_account(*of_account, a, funds, out, TRIES),
            account_rows.read_agents(*of_agents, a, agents, TRIES),
            account_rows.read_subs(*of_account[:2], a, words, TRIES),
            account_rows.read_running_twaps(*of_twaps, a, running, TRIES),
        )
        assert all(rows.TOO_SMALL <= result <= 8 for result in results)


HELD = 64  # positions: enough for the writer to come in between
RACE_READS, RACE_TORN, RACE_READS_MAX = 100_000, 100, 20_000_000  # at least; and tries until there were


@njit(nogil=True)
def move_money(accounts, funds, positions, account, held, stop):
    """Move money between an account's rows, under its bracket, until told to stop."""
    turn = 0
    while load_acquire_at(stop, 0) == 0:
        turn += 1
        seqlock.open_row(accounts[account])
        for i in range(held):
            positions[(turn + i) % held].isolated += i
            funds[account].cash -= i
        seqlock.close_row(accounts[account])
        for _ in range(turn % 64):
            pause()


@njit(nogil=True)
def add_up(accounts, funds, positions, account, funds_out, out, total, counts):
    """Read the account and add it up. counts i8[3], written: reads whole, torn, not of one moment."""
    for _ in range(RACE_READS_MAX):
        if counts[0] >= RACE_READS and counts[1] >= RACE_TORN:
            break
        count = account_rows.read_account(accounts, funds, positions, account, funds_out, out, 1)
        if count < 0:
            counts[1] += 1
            continue
        counts[0] += 1
        found = funds_out[0].cash
        for i in range(count):
            found += out[i].isolated
        counts[2] += found != total


def test_what_is_read_during_a_race_is_of_one_moment():
    """A writer moves money between an account's rows; whoever believes what he read finds all of it."""
    world = Exchange(markets=HELD, sides=2 * HELD, contracts=HELD, book_heads=HELD, books=4 * HELD)
    with world.block() as block:
        for m in range(HELD):
            block.position(ALICE, f"C{m}", "1", entry=0)
        block.funds(ALICE, cash=10**9)
    a, names = world.account(ALICE), ("accounts", "funds", "positions")
    mine, mapped = tuple(world.arrays[name] for name in names), tables(world, *names)
    funds, out = np.zeros(1, layout.FUNDS), np.zeros(HELD, layout.POSITION)
    counts, stop = np.zeros(3, np.int64), np.zeros(1, np.int64)
    stop[0] = 1
    move_money(*mine, a, HELD, stop)  # both are compiled before they race
    add_up(*mapped, a, funds, out, 10**9, np.full(3, RACE_READS))
    stop[0] = 0
    with ThreadPoolExecutor(2) as pool:
        writer = pool.submit(move_money, *mine, a, HELD, stop)
        pool.submit(add_up, *mapped, a, funds, out, 10**9, counts).result()
        stop[0] = 1
        writer.result()
    whole, torn, mixed = counts.tolist()
    assert mixed == 0
    assert whole >= RACE_READS and torn >= RACE_TORN, "the two have met"
