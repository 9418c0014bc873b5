"""The world shows the exchange as it is after every block, and its rings tell how it came to be so."""

import numpy as np
import pytest

from engine import verify
from engine.exchange import project, world
from engine.exchange.records import OUTCOME, Kind
from engine.exchange.state import TINY
from shm import codes, seqlock
from shm.codes import (
    INTERVALS_MS,
    NAMES,
    Command,
    Condition,
    EventKind,
    Flag,
    Method,
    OrderState,
    Side,
    Status,
    Tif,
)
from shm.constants import BOOK_DEPTH, SIDE_LEVELS_MIN
from tests.engine import made
from tests.engine.exchange.reference_candles import candles_of
from tests.engine.exchange.running import KEPT, Running, chain, queues, same
from tests.exchange.commands import START_NS, TIGHT, Swarm
from tests.exchange.stops import Stops
from tests.exchange.terms import Command as Asked

STOPS = (17, 19, 20, 22, 24, 26)  # seeds of worlds in which everyone has stops
SEEDS = [*range(16), *STOPS]
BY_MARKET = (Kind.OPENED, Kind.FILLED, Kind.ENDED, Kind.MARKET)
COMMANDS, BLOCK_COMMANDS = 1000, 40


def ring(header, slots) -> np.ndarray:
    """All that a ring has ever held: a test's rings are large enough."""
    tail = int(header[0]["tail"])
    assert tail <= len(slots)
    return slots[:tail]


def chance_of(seed: int) -> Swarm:
    return Stops(seed) if seed in STOPS else Swarm(seed)


def blocks(chance: Swarm):
    """Random commands, block by block: the last of each is an END_BLOCK."""
    block = []
    for step in chance.steps(COMMANDS):
        block.append(step.command)
        if len(block) == BLOCK_COMMANDS:
            block.append(step.command._replace(kind=int(Command.END_BLOCK)))
        if block[-1].kind == Command.END_BLOCK:
            yield block
            block = []
    if block:
        yield [*block, block[-1]._replace(kind=int(Command.END_BLOCK))]


def swarm(seed: int) -> Running:
    """An exchange after some random commands."""
    chance = chance_of(seed)
    running = Running(chance.capacity)
    for block in blocks(chance):
        running.take(block)
    return running


@pytest.fixture(scope="module", params=SEEDS)
def running(request):
    return swarm(request.param)


# --- what is shown is what is -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_after_every_block_the_world_is_the_core(seed):
    chance, book, read = chance_of(seed), made.NaiveBook(), 0
    running = Running(chance.capacity)
    shown = running.world.state
    for block in blocks(chance):
        running.take(block)
        same(running.core, running.world)
        verify.verify(shown)
        assert shown.status[0]["sequence"] % 2 == 0 and not (shown.accounts["sequence"] % 2).any()
        told = made.told(shown, read)
        read += len(told)
        book.take(told)
        _same_books(running, book)


def _same_books(running, book):
    """What was published, what the rows hold and what the events tell is one book."""
    shown = running.world.state
    for market in range(int(shown.status[0]["market_count"])):
        published = made.published(shown, market)
        for side in Side:
            rows = queues(shown.rows, market, side)[::-1]
            levels = [(price, quantity, len(orders)) for price, quantity, orders in rows]
            assert book.levels(market, side) == levels
            assert published[side] == levels[:BOOK_DEPTH]


@pytest.mark.parametrize("seed", [*SEEDS[:6], *STOPS])
def test_how_the_stream_is_cut_does_not_matter(seed):
    whole, capacity = swarm(seed), chance_of(seed).capacity
    cut = Running(capacity)
    for at in range(len(whole.outcomes)):
        project.project(cut.world, whole.outcomes[at : at + 1], 1)
        _is_bracketed(cut.world.state, whole.outcomes[at])
    for name, part in world_sections(whole.world).items():
        assert part.tobytes() == world_sections(cut.world)[name].tobytes(), name


def _is_bracketed(shown, told):
    """What an outcome changes is open to no reader until its block is whole."""
    inside = int(told["kind"] != Kind.BLOCK)
    assert shown.status[0]["sequence"] % 2 == inside
    if told["kind"] in (Kind.REFUSED, Kind.SLICE) or (
        told["kind"] == Kind.ENDED and told["flags"] & Flag.CROSSED
    ):
        return
    is_of_market = told["kind"] in BY_MARKET and not _waits(told)
    rows = [shown.markets[told["market"]]] if is_of_market else []
    rows += [shown.accounts[told["account"]]] if told["account"] >= 0 else []
    rows += [shown.accounts[told["other"]]] if told["kind"] == Kind.ACCOUNT and told["other"] >= 0 else []
    assert all(row["sequence"] % 2 == 1 for row in rows)


def _waits(told):
    """Whether an outcome is of a trigger order that is on no book."""
    of_order = told["kind"] in (Kind.OPENED, Kind.ENDED, Kind.REFUSED, Kind.WAITING)
    return of_order and told["flags"] & Flag.IS_TRIGGER != 0


def world_sections(shown) -> dict[str, np.ndarray]:
    parts = (shown, shown.state, shown.state.rows, shown.state.history, shown.state.work)
    return {name: getattr(part, name) for part in parts for name in part._fields if _is_array(part, name)}


def _is_array(part, name):
    return isinstance(getattr(part, name), np.ndarray)


# --- the rings ----------------------------------------------------------------------------------------------


def test_fills_and_trades_are_those_of_the_outcomes(running):
    history, shown = running.world.state.history, running.world.state
    filled = running.outcomes[running.outcomes["kind"] == Kind.FILLED]
    fills, trades = ring(history.fill_ring, history.fills), ring(history.trade_ring, history.trades)
    same_names = ("order", "trade", "price", "quantity", "account", "market", "side")
    for name, told in ("start_position", "start"), *zip(same_names, same_names, strict=True):
        assert (fills[name] == filled[told]).all(), name
    assert (fills["closed_pnl"] == 100 * filled["amount"]).all() and (
        fills["fee"] == 100 * filled["fee"]
    ).all()
    assert (fills["cloid"] == filled["text"]).all()
    assert (fills["address"] == shown.accounts["address"][fills["account"]]).all()
    assert (fills["flags"] & Flag.LIQUIDATION != 0).tolist() == (filled["code"] > 0).tolist()
    slices = running.outcomes[running.outcomes["kind"] == Kind.SLICE]
    whose = dict(slices[["order", "trade"]].tolist())
    is_taker = fills["flags"] & Flag.CROSSED != 0
    expected = np.where(is_taker, [whose.get(order, -1) for order in fills["order"].tolist()], -1)
    assert (fills["twap"] == expected).all()
    assert (fills["hash"].any(axis=1) == (expected < 0)).all(), "what a slice has traded has none"
    fills = fills[filled["code"] <= Method.MARKET]  # the others pass between two without a trade
    assert len(fills) == 2 * len(trades)
    makers, takers = fills[::2], fills[1::2]
    assert not (makers["flags"] & Flag.CROSSED).any() and (takers["flags"] & Flag.CROSSED).all()
    for name in ("trade", "price", "quantity", "market", "side", "height", "time_ms", "hash"):
        assert (trades[name] == takers[name]).all(), name
    buyers = np.where((takers["side"] == Side.BUY)[:, None], takers["address"], makers["address"])
    sellers = np.where((takers["side"] == Side.BUY)[:, None], makers["address"], takers["address"])
    assert (trades["buyer"] == buyers).all() and (trades["seller"] == sellers).all()
    for market in range(int(shown.status[0]["market_count"])):
        assert running.world.contracts[market]["trade_count"] == np.count_nonzero(trades["market"] == market)


def test_what_a_fill_is_called_says_what_became_of_the_position(running):
    history = running.world.state.history
    for fill in ring(history.fill_ring, history.fills):
        before, sign = int(fill["start_position"]), 1 if fill["side"] == Side.BUY else -1
        after = before + sign * int(fill["quantity"])
        of = "Long" if (before or after) > 0 else "Short"
        if before * after < 0:
            text = "Long > Short" if before > 0 else "Short > Long"
        else:
            text = ("Open " if abs(after) > abs(before) else "Close ") + of
        if not fill["flags"] & Flag.LIQUIDATION:
            assert NAMES[fill["direction"]] == text
        elif bytes(fill["liquidated"]) == bytes(fill["address"]):
            taken = [f"Liquidated {how} {of}" for how in ("Cross", "Isolated")]
            assert NAMES[fill["direction"]] in [*taken, "Auto-Deleveraging"]
        assert NAMES[fill["fee_token"]] == "USDC"


def test_an_order_has_one_last_word(running):
    shown, outcomes = running.world.state, running.outcomes
    closed = ring(shown.history.closed_ring, shown.history.closed)
    rejected = ring(shown.history.rejected_ring, shown.history.rejected)
    known = shown.orders["order"][shown.orders["state"] != OrderState.FREE]
    taken = np.concatenate([closed["order"], rejected["order"], known])
    passed = outcomes[(outcomes["kind"] == Kind.FILLED) & (outcomes["code"] > Method.MARKET)]
    oids = {*taken.tolist()} | {*passed["order"].tolist()}  # these have an oid, and no order
    assert sorted(oids) == list(range(1, int(running.core.heap[0]["orders"]) + 1))
    assert len(taken) + len({*passed["order"].tolist()}) == len(oids)
    refused = outcomes[outcomes["kind"] == Kind.REFUSED]
    assert rejected["order"].tolist() == refused["order"].tolist()
    assert rejected["status"].tolist() == refused["status"].tolist()
    late = outcomes["order"][np.isin(outcomes["kind"], (Kind.TRIGGERED, Kind.SLICE))]  # judged when they come
    assert shown.refusals[rejected["status"]].all()
    assert np.isin(closed["order"][shown.refusals[closed["status"]] != 0], late).all()
    told = {}  # what each order was, from whoever told of it before it ended, or when
    for row in outcomes:
        order, is_new = int(row["order"]), row["kind"] in (Kind.OPENED, Kind.REFUSED, Kind.WAITING)
        if is_new or (row["kind"] == Kind.ENDED and row["flags"] & Flag.CROSSED):
            told[order] = row
    slices = {*outcomes["order"][outcomes["kind"] == Kind.SLICE].tolist()}
    for word in (*closed, *rejected):
        row, name = told[int(word["order"])], NAMES[word["order_type"]]
        assert _facts(word) == _facts(row)
        if int(word["order"]) in slices:
            assert (name, word["tif"], word["timestamp_ms"]) == ("Twap Slice", 0, row["placed_ms"])
            continue
        assert _shown(word) == _expected(row)
        assert name.endswith("Limit") == (row["tif"] < Tif.MARKET)
        assert name.startswith(_purpose(row))
    filled = closed[closed["status"] == Status.FILLED]
    assert not filled["quantity"].any()
    empty = closed[(closed["status"] != Status.FILLED) & (closed["quantity"] == 0)]
    assert (empty["flags"] & Flag.POSITION_TPSL != 0).all(), "all of a position, however large"


def _facts(row):
    names = ("price", "original", "account", "market", "side")
    flags = int(row["flags"]) & (Flag.REDUCE_ONLY | Flag.HAS_CLOID | Flag.POSITION_TPSL)
    text = row["cloid"] if "cloid" in row.dtype.names else row["text"]
    return (bytes(text), flags, *(int(row[name]) for name in names))


def _shown(word):
    is_trigger = int(word["flags"]) & Flag.IS_TRIGGER
    names = ("timestamp_ms", "tif", "condition", "trigger_price")
    return (is_trigger, *(int(word[name]) for name in names))


def _expected(row):
    """What must be shown of an outcome's order, whether it is a trigger order or not."""
    if row["done"] == Condition.NONE:
        return 0, int(row["placed_ms"]), codes.TIF_GTC + int(row["tif"]), Condition.NONE, 0
    if row["flags"] & Flag.IS_TRIGGER:
        return Flag.IS_TRIGGER, int(row["placed_ms"]), 0, int(row["done"]), int(row["start"])
    return 0, int(row["time_ns"]) // 1_000_000, codes.TIF_GTC, Condition.TRIGGERED, 0


def _purpose(row):
    if row["done"] == Condition.NONE:
        return ("Market", "Limit")
    return "Stop" if (row["side"] == Side.BUY) == (row["done"] == Condition.ABOVE) else "Take Profit"


def test_statuses_alone_tell_what_is_open(running):
    open_orders = {}
    for event in made.told(running.world.state, 0):
        if event["kind"] == EventKind.STATUS:
            if event["status"] == Status.OPEN:
                assert int(event["order"]) not in open_orders
                open_orders[int(event["order"])] = int(event["account"])
            else:
                open_orders.pop(int(event["order"]), None)
    orders = running.world.state.orders
    known = orders[orders["state"] != OrderState.FREE]
    assert open_orders == dict(known[["order", "account"]].tolist())


def test_each_account_finds_its_own_history(running):
    shown, told = running.world, running.world.state
    history = told.history
    for slots, head, rows in (
        (history.fills, "last_fill", told.accounts),
        (history.closed, "last_closed", told.accounts),
        (history.rejected, "last_rejected", told.accounts),
        (shown.ledger, "last_ledger", shown.funds),
    ):
        written = slots[slots["sequence"] > 0]
        for account in range(int(told.status[0]["account_count"])):
            links, position = [], int(rows[account][head])
            while position > 0:
                links.append(position)
                position = int(slots[position - 1]["account_prior"])
            assert links == written["sequence"][written["account"] == account].tolist()[::-1], head


def test_the_ledger_adds_up_to_what_was_deposited(running):
    shown, outcomes = running.world, running.outcomes
    ledger, moved = ring(shown.ledger_ring, shown.ledger), outcomes[outcomes["kind"] == Kind.MONEY]
    ledger = ledger[ledger["kind"] <= codes.Ledger.LIQUIDATION]
    sums = np.zeros(len(shown.funds), np.int64)
    np.add.at(sums, ledger["account"], ledger["amount"])
    assert (sums == shown.funds["deposited"]).all()
    for name, told in {"amount": "amount", "nonce": "order", "account": "account", "kind": "code"}.items():
        assert (ledger[name] == moved[told]).all(), name
    assert (ledger["address"] == shown.state.accounts["address"][ledger["account"]]).all()
    between = moved["other"] >= 0
    assert (ledger["other"][between] == shown.state.accounts["address"][moved["other"][between]]).all()
    assert not ledger["other"][~between].any()


def test_a_touched_account_is_told_of_once_a_block(running):
    events, outcomes = made.told(running.world.state, 0), running.outcomes
    funds = events[events["kind"] == EventKind.FUNDS]
    assert funds["account"].tolist() == outcomes["account"][outcomes["kind"] == Kind.FUNDS].tolist()
    assert len(np.unique(funds[["height", "account"]])) == len(funds) and (funds["market"] == -1).all()
    entries = events[events["kind"] == EventKind.LEDGER]
    assert entries["order"].tolist() == list(range(int(running.world.ledger_ring[0]["tail"])))
    told = np.isin(outcomes["kind"], (Kind.MONEY, Kind.FUNDING, Kind.LIQUIDATED))
    assert entries["market"].tolist() == outcomes["market"][told].tolist()
    named = events[events["account"] >= 0]
    assert (named["address"] == running.world.state.accounts["address"][named["account"]]).all()
    blocks = events[events["kind"] == EventKind.BLOCK]
    assert blocks["height"].tolist() == list(range(1, int(running.core.heap[0]["height"]) + 1))
    assert (np.diff(events["height"]) >= 0).all() and events["kind"][-1] == EventKind.BLOCK


def test_candles_are_those_of_the_trades(running):
    shown, history = running.world, running.world.state.history
    trades = ring(history.trade_ring, history.trades)
    for market in range(int(shown.state.status[0]["market_count"])):
        mine = trades[trades["market"] == market][["time_ms", "price", "quantity"]].tolist()
        for place, interval in enumerate(INTERVALS_MS):
            expected, at = candles_of(mine, interval), market * len(INTERVALS_MS) + place
            assert shown.candle_heads[at]["count"] == len(expected)
            for number in range(max(0, len(expected) - KEPT), len(expected)):
                assert shown.candles[at * KEPT + number % KEPT].item() == expected[number], interval


# --- by hand ------------------------------------------------------------------------------------------------


def outcome(kind, sequence=1, *, address=None, text=b"", **fields) -> np.ndarray:
    row = np.zeros(1, OUTCOME)
    row["kind"], row["sequence"], row["time_ns"] = kind, sequence, sequence * 1_000_000_000
    row["account"], row["market"], row["other"] = -1, -1, -1
    row["text"][0, : len(text)] = np.frombuffer(text, np.uint8)
    if address is not None:
        row["address"] = address
    for name, value in fields.items():
        row[name] = value
    return row


def start(markets=1, accounts=2) -> list[np.ndarray]:
    """The outcomes that make markets of two size decimals, and accounts."""
    made_accounts = [outcome(Kind.ACCOUNT, account=row, address=row + 1) for row in range(accounts)]
    facts = {"order": 2, "price": 10_000, "original": 150, "placed_ms": 450, "trade": 40}
    made_markets = [outcome(Kind.MARKET, market=row, text=b"M%d" % row, **facts) for row in range(markets)]
    return [*made_accounts, *made_markets]


def opened(order, **fields):
    facts = {"account": 0, "market": 0, "price": 10_000, "quantity": 5, "original": 5}
    return outcome(Kind.OPENED, order=order, **{**facts, **fields})


def block(height, sequence=9):
    return outcome(Kind.BLOCK, sequence, order=height, price=sequence)


def show(shown, *outcomes):
    rows = np.concatenate(outcomes)
    project.project(shown, rows, len(rows))


def test_nothing_is_seen_before_its_block():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128))
    reader = np.zeros(1, np.int64)
    show(shown, *start(), opened(7))
    state = shown.state
    assert state.status[0]["sequence"] % 2 == state.markets[0]["sequence"] % 2 == 1
    assert state.status[0]["height"] == 0 and state.work.event_ring[0]["tail"] == 0
    assert seqlock.read(state.work.book_heads[0], state.work.books[:4], state.work.books[:1].copy(), 1) == 0
    show(shown, block(1, 12))
    assert state.status[0]["sequence"] == state.markets[0]["sequence"] == 2
    assert (state.status[0]["height"], state.status[0]["command_sequence"]) == (1, 12)
    assert made.kinds(made.told(state, int(reader[0]))) == ["STATUS", "NEW", "BLOCK"]
    assert made.published(state, 0) == ([(10_000, 5, 1)], [])


def test_a_market_is_as_it_was_told():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128))
    show(shown, *start(), block(1))
    show(
        shown,
        outcome(Kind.MARKET, market=0, text=b"M0", order=2, price=9_999, quantity=31, trade=40),
        block(2),
    )
    row, contract = shown.state.markets[0], shown.contracts[0]
    assert (row["kind"], row["size_decimals"], row["price_places"], row["quantity_places"]) == (0, 2, 4, 2)
    assert (contract["reference_price"], contract["open_interest"], contract["max_leverage"]) == (
        9_999,
        31,
        40,
    )
    assert shown.state.status[0]["market_count"] == 1


def test_a_markets_prices_tiers_and_bounds_are_shown():
    running, now_ns = Running(TIGHT), START_NS
    told = [
        {"kind": codes.Command.ADD_MARKET, "text": b"M" + bytes(15), "side": 2, "price": 10**6, "amount": 40},
        {"kind": codes.Command.ORACLE, "price": 10**6 + 1, "trigger_price": 10**6 + 9},
        {"kind": codes.Command.LIMITS, "amount": 10**12, "quantity": 700, "price": 5, "order": 20_000},
        {"kind": codes.Command.TIER, "quantity": 10**12, "amount": 20},
        {"kind": codes.Command.TIER, "quantity": 10**13, "amount": 5},
        {"kind": codes.Command.END_BLOCK},
        {"kind": codes.Command.MODE, "amount": codes.Trading.HALTED},
        {"kind": codes.Command.END_BLOCK},
    ]
    for number, fields in enumerate(told):
        now_ns += 20_000_000_000 * (number == 7)
        kind = {"kind": int(fields.pop("kind"))}
        running.take([Asked(sequence=number + 1, time_ns=now_ns, **kind, **fields)])
    same(running.core, running.world)
    contract = running.world.contracts[0]
    assert (contract["oracle"], contract["samples"], contract["funding_rate"]) == (10**6 + 1, 1, 125_000)
    assert (contract["mode"], contract["oracle_state"]) == (codes.Trading.HALTED, codes.Oracle.OLD)
    assert contract["tier_leverage"].tolist() == [40, 20, 5, 0]


def test_a_trade_is_told_from_both_sides():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128, events=64))
    show(shown, *start(), opened(1, text=b"mine", flags=Flag.HAS_CLOID), block(1))
    facts = {"market": 0, "price": 10_000, "quantity": 3, "trade": 77}
    maker = outcome(Kind.FILLED, 5, order=1, account=0, original=2, start=-1, amount=40, fee=-2, **facts)
    facts = {**facts, "flags": Flag.CROSSED, "done": 1, "side": 1}
    taker = outcome(Kind.FILLED, 5, order=2, account=1, start=1, amount=-7, fee=9, **facts)
    last = outcome(
        Kind.ENDED, 5, order=2, account=1, market=0, side=1, price=9_000, original=3, tif=codes.Tif.MARKET,
        status=Status.FILLED, flags=Flag.CROSSED,
    )  # fmt: skip
    before = int(shown.state.work.event_ring[0]["tail"])
    show(shown, maker, taker, last, block(2))
    told = made.told(shown.state, before)
    assert made.kinds(told) == ["FILL", "UPDATE", "FILL", "TRADE", "STATUS", "BLOCK"]
    assert (told[1]["original"], told[1]["quantity"], told[1]["order"]) == (5, 2, 1)
    status = told[4]
    assert (status["order"], status["price"], status["quantity"], status["original"]) == (2, 9_000, 0, 3)
    assert (NAMES[status["tif"]], NAMES[status["order_type"]]) == ("FrontendMarket", "Market")
    one, other = shown.state.history.fills[:2]
    assert [NAMES[fill["direction"]] for fill in (one, other)] == ["Short > Long", "Long > Short"]
    assert (one["closed_pnl"], one["fee"], other["closed_pnl"], other["fee"]) == (4000, -200, -700, 900)
    assert (one["hash"] == other["hash"]).all() and one["twap"] == -1
    assert bytes(one["hash"])[8:] == (2).to_bytes(8, "big") + (5).to_bytes(8, "big") + bytes(8)
    assert made.published(shown.state, 0) == ([(10_000, 2, 1)], [])


STOP = {  # Bob sells when the mark is at 9,500 or lower
    "account": 1, "market": 0, "side": Side.SELL, "price": 9_000, "quantity": 5, "original": 5,
    "start": 9_500, "done": Condition.BELOW, "placed_ms": 77, "tif": Tif.GTC, "text": b"mine",
    "flags": Flag.REDUCE_ONLY | Flag.HAS_CLOID | Flag.IS_TRIGGER,
}  # fmt: skip
FIRED = STOP | {"flags": Flag.REDUCE_ONLY | Flag.HAS_CLOID}


def orders_of(shown, account):
    rows = shown.state.rows
    return [
        rows.orders[slot]
        for slot in chain(rows.orders, rows.accounts[account]["first_order"], "account_next")
    ]


def trigger_facts(row):
    """What a trigger order shows of itself that others do not."""
    type_and_tif = NAMES[row["order_type"]], NAMES[row["tif"]]
    numbers = (int(row[name]) for name in ("condition", "trigger_price", "timestamp_ms"))
    return *type_and_tif, bool(row["flags"] & Flag.IS_TRIGGER), *numbers


def test_a_trigger_order_waits_beside_the_book():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128, events=64))
    show(shown, *start(), block(1))
    read = int(shown.state.work.event_ring[0]["tail"])
    publications = int(shown.state.work.book_heads[0]["latest"])
    show(shown, outcome(Kind.WAITING, order=7, amount=4, code=1, **STOP))
    assert shown.state.accounts[1]["sequence"] % 2 == 1 and shown.state.markets[0]["sequence"] % 2 == 0
    show(shown, block(2))
    (order,) = orders_of(shown, 1)
    waits = ("Stop Limit", "", True, Condition.BELOW, 9_500, 77)
    assert trigger_facts(order) == waits
    assert (order["state"], order["order"], order["group"]) == (OrderState.UNTRIGGERED, 7, 4)
    assert (order["price"], order["quantity"], order["original"]) == (9_000, 5, 5)
    assert bytes(order["cloid"]).startswith(b"mine") and order["flags"] & Flag.REDUCE_ONLY
    told = made.told(shown.state, read)
    assert made.kinds(told) == ["STATUS", "BLOCK"] and told[0]["status"] == Status.OPEN
    assert trigger_facts(told[0]) == waits
    assert made.published(shown.state, 0) == ([], [])
    assert shown.state.work.book_heads[0]["latest"] == publications, "nothing of the book has changed"
    verify.verify(shown.state)


@pytest.mark.parametrize(
    ("side", "condition", "tif", "text"),
    [
        (Side.BUY, Condition.ABOVE, Tif.MARKET, "Stop Market"),
        (Side.SELL, Condition.BELOW, Tif.MARKET, "Stop Market"),
        (Side.SELL, Condition.BELOW, Tif.GTC, "Stop Limit"),
        (Side.BUY, Condition.BELOW, Tif.MARKET, "Take Profit Market"),
        (Side.SELL, Condition.ABOVE, Tif.MARKET, "Take Profit Market"),
        (Side.SELL, Condition.ABOVE, Tif.GTC, "Take Profit Limit"),
        (Side.BUY, Condition.NONE, Tif.MARKET, "Market"),
        (Side.BUY, Condition.NONE, Tif.ALO, "Limit"),
    ],
)
def test_what_an_order_is_called(side, condition, tif, text):
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128))
    named = STOP | {"side": side, "done": condition, "tif": tif}
    show(shown, *start(), outcome(Kind.REFUSED, order=7, status=Status.REJECTED, **named), block(1))
    assert NAMES[shown.state.history.rejected[0]["order_type"]] == text


def test_a_trigger_order_that_ends_before_it_fires_was_never_on_a_book():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128, events=64))
    show(shown, *start(), outcome(Kind.WAITING, order=7, **STOP), block(1))
    read = int(shown.state.work.event_ring[0]["tail"])
    sibling = NAMES.index("siblingFilledCanceled")
    show(shown, outcome(Kind.ENDED, order=7, status=sibling, **STOP), block(2))
    told, closed = made.told(shown.state, read), shown.state.history.closed[0]
    assert made.kinds(told) == ["STATUS", "BLOCK"]
    for word in told[0], closed:
        assert (word["order"], word["status"], word["quantity"]) == (7, sibling, 5)
        assert trigger_facts(word) == ("Stop Limit", "", True, Condition.BELOW, 9_500, 77)
    assert orders_of(shown, 1) == [] and shown.state.status[0]["order_count"] == 0
    assert shown.state.heap[0]["unknown"] == 0 and shown.state.history.closed_ring[0]["tail"] == 1
    verify.verify(shown.state)


def test_a_trigger_order_that_fires_rests_as_a_new_one():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128, events=64))
    show(shown, *start(), outcome(Kind.WAITING, order=7, **STOP), block(1))
    read = int(shown.state.work.event_ring[0]["tail"])
    show(shown, *(outcome(kind, order=7, **FIRED) for kind in (Kind.TRIGGERED, Kind.OPENED)), block(2))
    told = made.told(shown.state, read)
    assert made.kinds(told) == ["STATUS", "STATUS", "NEW", "BLOCK"]
    assert [int(event["status"]) for event in told[:2]] == [Status.TRIGGERED, Status.OPEN]
    (order,) = orders_of(shown, 1)
    for word in (*told[:3], order):
        assert trigger_facts(word) == ("Stop Limit", "Gtc", False, Condition.TRIGGERED, 0, 1_000)
    assert order["state"] == OrderState.RESTING and made.published(shown.state, 0) == ([], [(9_000, 5, 1)])
    assert shown.state.history.closed_ring[0]["tail"] == 0, "it has not ended"
    verify.verify(shown.state)
    read = int(shown.state.work.event_ring[0]["tail"])
    show(shown, outcome(Kind.ENDED, order=7, status=Status.CANCELED, **FIRED), block(3))
    assert made.kinds(made.told(shown.state, read)) == ["STATUS", "REMOVE", "BLOCK"]
    assert trigger_facts(shown.state.history.closed[0]) == trigger_facts(told[0])
    assert made.published(shown.state, 0) == ([], [])


def test_a_trigger_order_that_fires_is_filled_at_once():
    """As large as the position is then, and told as triggered, whatever its flags say."""
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128, events=64))
    market = STOP | {
        "tif": Tif.MARKET,
        "flags": STOP["flags"] | Flag.POSITION_TPSL,
        "quantity": 0,
        "original": 0,
    }
    show(shown, *start(), opened(1), outcome(Kind.WAITING, order=7, **market), block(1))
    read = int(shown.state.work.event_ring[0]["tail"])
    (order,) = orders_of(shown, 1)
    assert order["flags"] & Flag.POSITION_TPSL and order["quantity"] == 0
    market |= {"original": 5, "quantity": 5}
    fired = outcome(Kind.TRIGGERED, order=7, **market)
    fill = {"market": 0, "price": 10_000, "quantity": 5, "trade": 77}
    maker = outcome(Kind.FILLED, order=1, account=0, done=1, start=0, **fill)
    taker = outcome(
        Kind.FILLED, order=7, account=1, done=1, start=5, side=Side.SELL, flags=Flag.CROSSED, **fill
    )
    flags = (market["flags"] & ~Flag.IS_TRIGGER) | Flag.CROSSED
    last = outcome(Kind.ENDED, order=7, status=Status.FILLED, **market | {"quantity": 0, "flags": flags})
    show(shown, fired, maker, taker, last, block(2))
    told = made.told(shown.state, read)
    assert made.kinds(told) == ["STATUS", "FILL", "STATUS", "REMOVE", "FILL", "TRADE", "STATUS", "BLOCK"]
    assert [int(event["status"]) for event in (told[0], told[6])] == [Status.TRIGGERED, Status.FILLED]
    closed = shown.state.history.closed[1]
    for word in told[0], told[6], closed:
        assert trigger_facts(word) == ("Stop Market", "Gtc", False, Condition.TRIGGERED, 0, 1_000)
        assert word["flags"] & Flag.POSITION_TPSL and word["original"] == 5
    assert (told[0]["quantity"], closed["quantity"], closed["order"]) == (5, 0, 7)
    assert not shown.state.history.fills[1]["flags"] & (Flag.IS_TRIGGER | Flag.POSITION_TPSL)
    assert shown.state.status[0]["order_count"] == 0
    verify.verify(shown.state)


def test_a_parent_and_its_children_share_a_group():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128))
    child = STOP | {"account": 0, "amount": 3, "code": 1}
    children = [outcome(Kind.WAITING, order=oid, **child) for oid in (4, 5)]
    show(shown, *start(), opened(2), opened(3, amount=3), *children, block(1))
    assert [(order["order"], order["group"]) for order in orders_of(shown, 0)] == [
        (2, 0),
        (3, 3),
        (4, 3),
        (5, 3),
    ]
    replaced = outcome(Kind.ENDED, order=3, account=0, market=0, amount=3, status=Status.CANCELED)
    show(shown, replaced, opened(9, amount=3, price=10_001), block(2))
    assert [(order["order"], order["group"]) for order in orders_of(shown, 0)] == [
        (2, 0),
        (4, 3),
        (5, 3),
        (9, 3),
    ]
    show(
        shown, outcome(Kind.ENDED, order=9, account=0, market=0, status=Status.CANCELED), opened(10), block(3)
    )
    assert orders_of(shown, 0)[-1]["group"] == 0, "of the one before in its slot, nothing is left"


def test_a_trigger_order_without_room_leaves_no_book_in_doubt():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128, orders=1))
    waiting = [outcome(Kind.WAITING, order=oid, **STOP) for oid in (7, 8)]
    show(shown, *start(), *waiting, outcome(Kind.TRIGGERED, order=8, **FIRED), block(1))
    heap = shown.state.heap[0]
    assert (heap["full"], heap["unknown"], shown.state.markets[0]["stale"]) == (1, 1, codes.Stale.FRESH)
    assert [order["order"] for order in orders_of(shown, 1)] == [7]
    verify.verify(shown.state)


def test_agents_are_listed_while_they_are_live():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128))

    def agent(row, done=0, until=0):
        return outcome(
            Kind.AGENT, order=row, account=1, address=row, text=b"A%d" % row, done=done, placed_ms=until
        )

    def listed():
        return [
            int(shown.agents[row]["address"][0])
            for row in chain(shown.agents, shown.funds[1]["first_agent"], "next")
        ]

    show(shown, *start(), agent(4), agent(5), agent(6), block(1))
    assert listed() == [6, 5, 4]
    show(shown, agent(5, done=1), agent(4, until=99), block(2))
    assert listed() == [6, 4] and shown.agents["valid_until_ms"].max() == 99
    show(shown, agent(6, done=1), agent(4, done=1), block(3))
    assert listed() == [] and not shown.agents["is_live"].any()


def test_a_position_is_listed_once_and_is_as_it_was_told_last():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128))
    show(shown, *start(), block(1))
    held = {"account": 1, "market": 0, "quantity": 500, "original": 25, "amount": 20, "fee": 1}
    held |= {"order": 70, "start": 30}
    show(shown, outcome(Kind.POSITION, price=5, **held))
    assert shown.state.accounts[1]["sequence"] % 2 == 1
    show(shown, block(2), outcome(Kind.POSITION, price=-7, **held), block(3))
    assert shown.state.accounts[1]["sequence"] % 2 == 0 and shown.state.status[0]["position_count"] == 1
    row = shown.positions[shown.funds[1]["first_position"]]
    assert (row["size"], row["entry"], row["used"], row["leverage"], row["is_cross"]) == (-7, 500, 25, 20, 1)
    assert (row["buys"], row["sells"]) == (70, 30)


def entries_of(shown, account):
    """The account's ledger, newest first."""
    position, found = int(shown.funds[account]["last_ledger"]), []
    while position > 0:
        found.append(shown.ledger[position - 1])
        position = int(found[-1]["account_prior"])
    return found


def test_funding_is_in_the_ledger_and_adds_up_by_position():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128))
    paid = {"account": 1, "market": 0, "quantity": 5, "price": 9_999, "trade": -125, "order": 720}
    held = {"account": 1, "market": 0, "amount": 20, "fee": 1}
    show(shown, *start(), outcome(Kind.FUNDING, amount=-70, **paid))
    show(shown, outcome(Kind.POSITION, price=5, **held), block(1), outcome(Kind.FUNDING, amount=30, **paid))
    show(shown, outcome(Kind.POSITION, price=5, **held), block(2))
    row = shown.positions[shown.funds[1]["first_position"]]
    sums = ("funding", "funding_open", "funding_change")
    assert [int(row[name]) for name in sums] == [40, -30, -30], "a position is open once it was told of"
    newest, oldest = entries_of(shown, 1)
    assert (oldest["amount"], newest["amount"]) == (-70, 30)
    assert [int(newest[name]) for name in ("kind", "price", "size", "rate", "samples", "market")] == [
        codes.Ledger.FUNDING, 9_999, 5, -125, 720, 0,
    ]  # fmt: skip
    show(shown, outcome(Kind.POSITION, price=7, **held), block(3))
    assert [int(row[name]) for name in sums] == [40, -30, 0], "its size has changed"
    show(shown, outcome(Kind.POSITION, price=-7, **held), block(4))
    assert [int(row[name]) for name in sums] == [40, 0, 0], "it is another one"


def test_a_liquidation_is_in_the_ledger_and_moves_nothing():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128))
    taken = outcome(Kind.LIQUIDATED, account=0, market=-1, price=-12, amount=50, quantity=900, code=2)
    show(shown, *start(), taken, block(1))
    (entry,) = entries_of(shown, 0)
    assert [int(entry[name]) for name in ("kind", "amount", "price", "size", "market")] == [
        codes.Ledger.TAKEN, 0, -12, 900, -1,
    ]  # fmt: skip
    assert bytes(entry["other"]) == bytes(shown.state.accounts[1]["address"]), "the insurance account's"


def test_hours_of_funding_go_round_each_market_by_itself():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128, rates=2 * 3))
    for hour in range(5):
        told = {"trade": hour, "amount": 10 * hour, "price": 100 + hour, "order": 720}
        show(shown, *(start(2) if hour == 0 else ()), outcome(Kind.RATE, market=1, **told), block(hour + 1))
    assert shown.contracts["rate_count"].tolist() == [0, 5]
    assert shown.rates["rate"].tolist() == [0, 0, 0, 3, 4, 2]
    assert shown.rates[4].tolist() == (1000, 4, 40, 104, 720)


def test_a_side_without_room_for_a_level_is_doubted():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128, levels=SIDE_LEVELS_MIN))
    show(shown, *start(), opened(1), opened(2, side=Side.SELL, price=10_001), block(1))
    assert shown.state.heap[0]["full"] == 1
    assert shown.state.markets[0]["stale"] == codes.Stale.CAPACITY
    verify.verify(shown.state)


def test_sub_accounts_are_listed_newest_first():
    shown = world.allocate(world.capacity_for(TINY, KEPT, names=128))
    subs = [outcome(Kind.ACCOUNT, account=row, address=row + 1, other=1) for row in (2, 3)]
    show(shown, *start(), *subs, block(1))
    assert list(chain(shown.funds, shown.funds[1]["first_sub"], "next_sub")) == [3, 2]
    assert shown.funds["master"].tolist() == [-1, -1, 1, 1]


def test_what_finds_no_room_is_counted_and_doubted():
    capacity = world.capacity_for(TINY, KEPT, names=128, orders=1, positions=1, agents=1)
    shown = world.allocate(capacity)
    positions = [outcome(Kind.POSITION, account=row, market=0, price=1) for row in range(2)]
    agents = [outcome(Kind.AGENT, order=row, account=0, address=row) for row in (3, 4)]
    show(shown, *start(), opened(1), opened(2, price=10_001), *positions, *agents, block(1))
    assert shown.state.heap[0]["full"] == 3
    assert shown.state.markets[0]["stale"] == codes.Stale.CAPACITY
    verify.verify(shown.state)
