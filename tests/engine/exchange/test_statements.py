"""What readers see of orders in slices over time: what runs, how each began and ended, and their fills."""

import random

import pytest

from engine import verify
from engine.exchange import world
from engine.exchange.records import Kind
from engine.exchange.state import TINY
from shm import codes
from shm.codes import NAMES, Ask, EventKind, Flag, Side, Status, Twap
from shm.codes import Command as Kinds
from tests.engine import made
from tests.engine.exchange.running import KEPT, Running, chain, same
from tests.engine.exchange.test_project import block, opened, outcome, show, start
from tests.exchange.commands import START_NS, TIGHT
from tests.exchange.terms import Command as Asked

FACTS = {"account": 1, "market": 0, "side": Side.SELL, "quantity": 900, "placed_ms": 55, "trade": 30}


def empty(**more):
    return world.allocate(world.capacity_for(TINY, KEPT, names=128, events=64, **more))


def twap(order, sequence=1, state=Twap.ACTIVATED, executed=0, notional=0, **more):
    told = {"order": order, "done": state, "original": executed, "amount": notional}
    return outcome(Kind.TWAP, sequence, **FACTS | told | more)


def runs(shown, account):
    """The ids of an account's TWAPs that run, newest first."""
    rows = shown.running_twaps
    return [int(rows[row]["order"]) for row in chain(rows, shown.funds[account]["first_twap"], "next")]


def entries(shown, account):
    """An account's beginnings and ends, newest first."""
    position, found = int(shown.funds[account]["last_twap"]), []
    while position > 0:
        found.append(shown.twaps[position - 1])
        position = int(found[-1]["account_prior"])
    return found


def facts(row):
    names = ("order", "state", "quantity", "executed", "notional", "began_ms", "minutes", "side", "account")
    return [int(row[name]) for name in names]


def test_one_that_runs_is_listed_as_it_was_told_last():
    shown = empty()
    show(shown, *start(), block(1))
    flags = {"flags": int(Flag.REDUCE_ONLY), "code": 1}
    show(shown, twap(7, **flags))
    assert shown.state.accounts[1]["sequence"] % 2 == 1
    show(shown, twap(7, 40, executed=15, notional=1_500, **flags), block(2))
    assert shown.state.accounts[1]["sequence"] % 2 == 0
    (row,) = chain(shown.running_twaps, shown.funds[1]["first_twap"], "next")
    row = shown.running_twaps[row]
    assert facts(row) == [7, Twap.ACTIVATED, 900, 15, 1_500, 55, 30, Side.SELL, 1]
    assert (row["flags"], row["is_randomized"], row["market"]) == (Flag.REDUCE_ONLY, 1, 0)
    assert (row["height"], row["time_ms"]) == (2, 40_000)
    assert bytes(row["address"]) == bytes(shown.state.accounts[1]["address"])
    assert runs(shown, 0) == [] and shown.twap_ring[0]["tail"] == 1, "it has begun once"
    verify.verify(shown.state)


def test_beginnings_and_ends_are_kept_and_told():
    shown = empty()
    show(shown, *start(), block(1))
    read = int(shown.state.work.event_ring[0]["tail"])
    show(shown, twap(7, 2), twap(8, 3, account=0), block(2))
    show(shown, twap(7, 4, executed=300, notional=3), block(3))
    show(shown, twap(7, 5, Twap.FINISHED, executed=900, notional=9), block(4))
    assert [facts(entry)[:4] for entry in entries(shown, 1)] == [
        [7, Twap.FINISHED, 900, 900],
        [7, Twap.ACTIVATED, 900, 0],
    ]
    assert [(int(entry["time_ms"]), int(entry["height"])) for entry in entries(shown, 1)] == [
        (5_000, 4),
        (2_000, 2),
    ]
    assert [facts(entry)[:2] for entry in entries(shown, 0)] == [[8, Twap.ACTIVATED]]
    assert (runs(shown, 0), runs(shown, 1)) == ([8], [])
    told = made.told(shown.state, read)
    assert made.kinds(told) == ["TWAP", "TWAP", "BLOCK", "BLOCK", "TWAP", "BLOCK"]
    told = told[told["kind"] == EventKind.TWAP]
    assert told[["order", "account"]].tolist() == [(0, 1), (1, 0), (2, 1)]
    assert (told["address"] == shown.state.accounts["address"][told["account"]]).all()


def test_any_of_them_may_end_first_and_its_row_is_taken_again():
    for ends in ([7, 8, 9], [9, 8, 7], [8, 7, 9], [8, 9, 7]):
        shown, left = empty(running_twaps=3), [9, 8, 7]
        show(shown, *start(), *(twap(order, 2) for order in (7, 8, 9)), block(1))
        for height, order in enumerate(ends, 2):
            assert runs(shown, 1) == left
            left.remove(order)
            show(shown, twap(order, height, Twap.TERMINATED), block(height))
        assert runs(shown, 1) == [] and not shown.running_twaps["order"].any()
        show(shown, *(twap(order, 9, account=order % 2) for order in (10, 11, 12)), block(9))
        assert (runs(shown, 0), runs(shown, 1)) == ([12, 10], [11])
        assert shown.state.heap[0]["full"] == 0


def test_one_that_finds_no_room_is_counted_and_its_end_is_kept():
    shown = empty(running_twaps=1)
    show(shown, *start(), twap(7), twap(8), block(1))
    assert runs(shown, 1) == [7] and shown.state.heap[0]["full"] == 1
    show(shown, twap(8, 2, Twap.TERMINATED), block(2))
    assert runs(shown, 1) == [7]
    assert [facts(entry)[:2] for entry in entries(shown, 1)] == [
        [8, Twap.TERMINATED], [8, Twap.ACTIVATED], [7, Twap.ACTIVATED],
    ]  # fmt: skip


def test_those_that_run_outlast_a_ring_that_has_gone_round():
    shown = empty(twaps=4)
    show(shown, *start(), twap(7), block(1))
    for height in range(2, 8):
        ends = twap(height + 10, height, Twap.FINISHED)
        show(shown, twap(height + 10, height), ends, block(height))
    assert runs(shown, 1) == [7] and 7 not in shown.twaps["order"].tolist()


# --- as the core has them -----------------------------------------------------------------------------------

ANN, BOB, CAT = (bytes([n]) * 20 for n in (1, 2, 3))
BLOCKS, BLOCK_NS, SEEDS = 60, 20_000_000_000, 4


class Floor:
    """BOB makes a market at 100; ANN and CAT begin TWAPs and cancel some of them, by chance."""

    def __init__(self, seed):
        self.chance, self.running = random.Random(seed), Running(TIGHT)
        self.now_ns, self.sequence = START_NS, 0
        self.block(ask(Kinds.ADD_MARKET, text=b"M" + bytes(15), side=2, price=100_0000, amount=40))
        self.block(*(ask(Kinds.DEPOSIT, other=who, amount=10**11) for who in (ANN, BOB, CAT)))

    def block(self, *asked):
        self.now_ns += BLOCK_NS
        commands = []
        for each in (*asked, ask(Kinds.ORACLE, price=100_0000), ask(Kinds.END_BLOCK)):
            self.sequence += 1
            commands.append(each._replace(sequence=self.sequence, time_ns=self.now_ns))
        self.running.take(commands)
        same(self.running.core, self.running.world)

    def some(self):
        """What is asked in a block."""
        chance, quantity = self.chance, self.chance.choice([0, 40, 4_000])
        yield ask(Kinds.CANCEL_ALL, signer=BOB, flags=Ask.SESSION)
        for side, price in ((Side.BUY, 99_0000), (Side.SELL, 101_0000)):
            if quantity:
                facts = {"side": int(side), "price": price, "quantity": quantity}
                yield ask(Kinds.ORDER, signer=BOB, flags=Ask.SESSION, **facts)
        who = chance.choice([ANN, CAT])
        if chance.random() < 0.5:
            facts = {"side": chance.randrange(2), "quantity": chance.randrange(100, 3_000)}
            flags = Ask.SESSION | chance.choice([0, 0, Ask.REDUCE_ONLY, Ask.RANDOMIZE])
            yield ask(Kinds.TWAP, signer=who, amount=chance.choice([5, 6, 7]), flags=flags, **facts)
        core = self.running.core
        running = core.twaps[: int(core.heap[0]["twap_count"])]
        if len(running) and chance.random() < 0.15:
            one = chance.choice(running)
            whose = bytes(core.accounts[one["account"]]["address"])
            yield ask(Kinds.TWAP_CANCEL, signer=whose, order=int(one["order"]), flags=Ask.SESSION)


def ask(kind, **fields):
    return Asked(kind=int(kind), **fields)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_after_every_block_the_same_ones_run_in_the_world_and_in_the_core(seed):
    floor = Floor(seed)
    for _ in range(BLOCKS):
        floor.block(*floor.some())
    shown, ended = floor.running.world, {}
    kept = shown.twaps[: int(shown.twap_ring[0]["tail"])]
    begun = kept[kept["state"] == Twap.ACTIVATED]["order"].tolist()
    assert begun == list(range(1, len(begun) + 1)) and len(begun) > 5, "each has begun once"
    for entry in kept[kept["state"] != Twap.ACTIVATED]:
        assert ended.setdefault(int(entry["order"]), entry) is entry, "each has ended once at most"
    assert {int(entry["state"]) for entry in ended.values()} == {Twap.FINISHED, Twap.TERMINATED}
    accounts = int(shown.state.status[0]["account_count"])
    running = sum((runs(shown, account) for account in range(accounts)), [])
    assert sorted([*ended, *running]) == begun
    _fills_are_those_of_slices(shown, ended)


def _fills_are_those_of_slices(shown, ended):
    """What a TWAP has executed is what its slices were filled."""
    fills = shown.state.history.fills[: int(shown.state.history.fill_ring[0]["tail"])]
    for id, entry in ended.items():
        mine = fills[fills["twap"] == id]
        assert mine["quantity"].sum() == entry["executed"]
        assert (mine["quantity"] * mine["price"]).sum() == entry["notional"]
        assert (mine["account"] == entry["account"]).all() and not mine["hash"].any()
    closed = shown.state.history.closed[: int(shown.state.history.closed_ring[0]["tail"])]
    slices = closed[closed["order_type"] == NAMES.index("Twap Slice")]
    assert {*fills["order"][fills["twap"] >= 0].tolist()} <= {*slices["order"].tolist()}
    others = fills[fills["twap"] < 0]
    assert len(others) * 2 == len(fills) and not {*others["order"].tolist()} & {*slices["order"].tolist()}


# --- its slices ---------------------------------------------------------------------------------------------

TRADE = {"market": 0, "price": 10_000, "quantity": 3, "trade": 77}
TAKEN = {"account": 1, "side": Side.SELL, "flags": Flag.CROSSED}
OF_ORDER = TAKEN | {"market": 0, "price": 9_900, "original": 3, "tif": codes.Tif.IOC}


def placed(order, id):
    return outcome(Kind.SLICE, 5, order=order, trade=id, account=1, market=0, side=Side.SELL)


def executed(order):
    """Both sides of a trade of the order with the one that rests."""
    maker = outcome(Kind.FILLED, 5, order=1, account=0, original=2, **TRADE)
    taker = outcome(Kind.FILLED, 5, order=order, done=1, **TRADE | TAKEN)
    return maker, taker, outcome(Kind.ENDED, 5, order=order, status=Status.FILLED, **OF_ORDER)


def test_a_fill_of_a_slice_says_whose_it_is_and_has_no_hash():
    shown = empty()
    show(shown, *start(), opened(1), block(1))
    show(shown, placed(30, 7), *executed(30), block(2))
    maker, taker = shown.state.history.fills[:2]
    assert (maker["twap"], taker["twap"], taker["order"]) == (-1, 7, 30)
    assert not taker["hash"].any() and maker["hash"].any()
    assert not shown.state.history.trades[0]["hash"].any()
    closed = shown.state.history.closed[0]
    assert (NAMES[closed["order_type"]], NAMES[closed["tif"]], closed["order"]) == ("Twap Slice", "", 30)
    assert closed["status"] == Status.FILLED


def test_the_next_order_is_one_of_its_own_again():
    shown = empty()
    show(shown, *start(), opened(1), block(1))
    show(shown, placed(30, 7), *executed(30), *executed(31), block(2))
    fills = shown.state.history.fills[:4]
    assert fills["twap"].tolist() == [-1, 7, -1, -1] and fills["hash"].any(axis=1).tolist() == [1, 0, 1, 1]
    types = shown.state.history.closed["order_type"][:2]
    assert [NAMES[row] for row in types] == ["Twap Slice", "Limit"]


def test_a_slice_that_is_refused_is_called_one():
    shown = empty()
    told = OF_ORDER | {"flags": 0, "quantity": 3, "code": codes.Refusal.MARGIN}
    refused = outcome(Kind.REFUSED, 5, order=30, status=NAMES.index("perpMarginRejected"), **told)
    show(shown, *start(), placed(30, 7), refused, block(1))
    (word,) = shown.state.history.rejected[:1]
    assert (NAMES[word["order_type"]], NAMES[word["tif"]], word["order"]) == ("Twap Slice", "", 30)
