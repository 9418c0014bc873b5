"""Small scenes with numbers worked by hand, played by the model and the engine alike.

The streams of test_model compare the two with each other; these hold both to the rules.
"""

import pytest

from engine.exchange.records import Kind
from engine.exchange.state import FEE_ADDRESS, Capacity, allocate
from shm.codes import NAMES, Ack, Ask, Condition, Grouping, Refusal, Side, Tif
from shm.codes import Command as Kinds
from tests.exchange.commands import START_NS, address
from tests.exchange.compare import ordered, run
from tests.exchange.invariants import check_all
from tests.exchange.model import DAY_MS, Model
from tests.exchange.terms import ACK_FIELDS, FIELDS, HEAD, NO_TEXT, Command, encode

USD = 10**6
ANN, BOB, CAT = address(1), address(2), address(3)
SMALL = Capacity(markets=2, accounts=16, orders=1100, levels=1 << 12, agents=16, outcomes=4096, commands=16)
CLOSED = {Kind.FUNDS, Kind.POSITION, Kind.MARKET}


class Scene:
    """Three accounts of 1000 USD; market 0 with prices of 4 places and sizes of 2, market 1 with 6 and 0."""

    def __init__(self, check=check_all):
        self.model, self.state, self.check = Model(SMALL), allocate(SMALL), check
        self.now_ms, self.sequence = START_NS // 10**6, 0
        rates = {"quantity": -30, "order": 450}
        self.do(kind=Kinds.ADD_MARKET, text=b"A" + bytes(15), side=2, price=100_0000, amount=50, **rates)
        self.do(kind=Kinds.ADD_MARKET, text=b"B" + bytes(15), side=0, price=5_000_000, amount=10, **rates)
        for who in (ANN, BOB, CAT):
            self.do(kind=Kinds.DEPOSIT, other=who, amount=1000 * USD)

    def do(self, **fields):
        """One command of both; its outcomes (name -> value, with their kind) and its ack."""
        self.sequence += 1
        fields["kind"] = int(fields["kind"])
        command = Command(sequence=self.sequence, time_ns=self.now_ms * 10**6, **fields)
        outcomes, ack, _ = self.model.apply(command)
        result = run(self.state, encode([command]))
        told = [row for row in result.outcomes if row[0] not in CLOSED or row in outcomes]
        assert (ordered(told), result.acks) == (ordered(outcomes), [ack])
        self.check(self.state)
        rows = [
            {"kind": row[0], **dict(zip(FIELDS[row[0]].split(), row[HEAD:], strict=True))} for row in outcomes
        ]
        return rows, dict(zip(ACK_FIELDS.split(), ack, strict=True))

    def ask(self, who, kind, flags=0, **fields):
        return self.do(kind=kind, signer=who, flags=flags | Ask.SESSION, **fields)

    def order(self, who, side, quantity, price, tif=Tif.GTC, market=0, **fields):
        kind = fields.pop("kind", Kinds.ORDER)
        ask = {"side": int(side), "quantity": quantity, "price": price, "tif": int(tif), "market": market}
        return self.ask(who, kind, **ask, **fields)

    def cash(self, who):
        account = self.model.accounts[who]
        assert self.state.accounts[account.row]["cash"] == account.cash
        return account.cash

    def used(self, who):
        return self.model.whole(self.model.accounts[who]).used

    def held(self, who, market=0):
        position = self.model.accounts[who].positions[market]
        return position.size, position.entry


@pytest.fixture
def scene():
    return Scene()


def kinds(rows):
    return [Kind(row["kind"]).name for row in rows]


def refusal(played):
    _, ack = played
    assert ack["outcome"] == Ack.REFUSED
    return Refusal(ack["code"])


def test_a_trade_is_at_the_makers_price_and_pays_both_fees(scene):
    scene.order(ANN, Side.SELL, 500, 100_0000, Tif.ALO)
    rows, ack = scene.order(BOB, Side.BUY, 200, 101_0000, Tif.IOC)
    assert kinds(rows) == ["FILLED", "FILLED", "ENDED"]
    assert (ack["outcome"], ack["quantity"], ack["notional"]) == (Ack.FILLED, 200, 200 * USD)
    assert [row["fee"] for row in rows[:2]] == [-6000, 90_000]  # 200 USD x -0.003 %, x 0.045 %
    assert (scene.cash(ANN), scene.cash(BOB)) == (1000 * USD + 6000, 1000 * USD - 90_000)
    assert scene.cash(FEE_ADDRESS) == 84_000
    assert (scene.held(ANN), scene.held(BOB)) == ((-200, -200 * USD), (200, 200 * USD))
    # Ann: short 200 USD and 300 USD offered, Bob: long 200 USD; at twenty times
    assert [scene.used(who) for who in (ANN, BOB)] == [25 * USD, 10 * USD]


def test_a_closed_part_takes_its_share_of_the_entry_rounded_toward_zero(scene):
    for quantity, price in ((2, 5_000_100), (5, 5_000_300)):
        scene.order(ANN, Side.SELL, quantity, price, market=1)
        scene.order(BOB, Side.BUY, quantity, price, market=1)
    assert scene.held(BOB, 1) == (7, 35_001_700)
    scene.order(CAT, Side.BUY, 3, 6_000_000, market=1)
    rows, _ = scene.order(BOB, Side.SELL, 3, 6_000_000, market=1)
    assert rows[1]["amount"] == 18_000_000 - 15_000_728  # 35.001700 x 3 / 7 = 15.000728 571...
    assert scene.held(BOB, 1) == (4, 20_000_972)
    scene.order(CAT, Side.BUY, 10, 5_000_000, market=1)
    rows, _ = scene.order(BOB, Side.SELL, 10, 5_000_000, market=1)
    assert (rows[1]["start"], rows[1]["amount"]) == (4, 20_000_000 - 20_000_972)
    assert scene.held(BOB, 1) == (-6, -30_000_000)


def test_orders_at_a_price_are_taken_in_the_order_they_came(scene):
    oids = [scene.order(who, Side.SELL, 20, 100_0000)[1]["order"] for who in (ANN, CAT, ANN)]
    better = scene.order(CAT, Side.SELL, 20, 99_0000)[1]["order"]
    rows, _ = scene.order(BOB, Side.BUY, 50, 100_0000)
    assert [row["order"] for row in rows if row["order"] <= better] == [better, *oids[:2]]


def test_an_order_is_worth_ten_dollars_at_least(scene):
    assert refusal(scene.order(ANN, Side.BUY, 10, 99_9900)) == Refusal.VALUE_MIN
    assert scene.order(ANN, Side.BUY, 10, 100_0000)[1]["outcome"] == Ack.RESTING


def test_an_account_does_not_trade_with_itself(scene):
    scene.order(ANN, Side.SELL, 20, 100_0000)
    rows, ack = scene.order(ANN, Side.BUY, 20, 100_0000, Tif.IOC)
    assert kinds(rows) == ["ENDED", "REFUSED"] and ack["code"] == Refusal.IOC
    assert NAMES[rows[0]["status"]] == "selfTradeCanceled"


def test_reduce_only_orders_end_with_the_position(scene):
    scene.order(ANN, Side.SELL, 50, 100_0000)
    scene.order(BOB, Side.BUY, 50, 100_0000)
    assert refusal(scene.order(BOB, Side.BUY, 50, 100_0000, flags=Ask.REDUCE_ONLY)) == Refusal.REDUCE_ONLY
    first = scene.order(BOB, Side.SELL, 900, 101_0000, flags=Ask.REDUCE_ONLY)[1]["order"]
    second = scene.order(BOB, Side.SELL, 30, 102_0000, flags=Ask.REDUCE_ONLY)[1]["order"]
    rows, _ = scene.order(CAT, Side.BUY, 80, 101_0000)
    assert kinds(rows) == ["FILLED", "FILLED", "ENDED", "OPENED"]  # 900 was cut to the 50 that he held
    assert (rows[0]["order"], rows[0]["quantity"], rows[0]["done"]) == (first, 50, 1)
    assert (rows[2]["order"], NAMES[rows[2]["status"]]) == (second, "reduceOnlyCanceled")


def test_a_reduce_only_maker_gives_no_more_than_its_position(scene):
    scene.order(ANN, Side.SELL, 50, 100_0000)
    scene.order(BOB, Side.BUY, 50, 100_0000)
    scene.order(BOB, Side.SELL, 50, 101_0000, flags=Ask.REDUCE_ONLY)
    scene.order(ANN, Side.BUY, 30, 100_0000)
    scene.order(BOB, Side.SELL, 30, 100_0000, Tif.IOC)
    assert scene.held(BOB) == (20, 20 * USD)
    rows, ack = scene.order(CAT, Side.BUY, 50, 101_0000, Tif.IOC)
    assert kinds(rows) == ["FILLED", "FILLED", "ENDED", "ENDED"] and ack["quantity"] == 20
    assert NAMES[rows[2]["status"]] == "reduceOnlyCanceled"


def test_a_taker_that_closes_its_position_loses_its_reduce_only_orders(scene):
    scene.order(ANN, Side.SELL, 50, 100_0000)
    scene.order(BOB, Side.BUY, 50, 100_0000)
    resting = scene.order(BOB, Side.SELL, 50, 101_0000, flags=Ask.REDUCE_ONLY)[1]["order"]
    scene.order(ANN, Side.BUY, 50, 100_0000)
    rows, _ = scene.order(BOB, Side.SELL, 50, 100_0000, Tif.IOC)
    assert kinds(rows) == ["FILLED", "FILLED", "ENDED", "ENDED"]
    assert (rows[2]["order"], NAMES[rows[2]["status"]]) == (resting, "reduceOnlyCanceled")


def test_margin_is_for_the_larger_side_and_an_order_that_adds_none_is_free(scene):
    scene.order(ANN, Side.BUY, 20_000, 99_0000)  # 19,800 USD: 990 USD and 8.91 USD in fees
    assert refusal(scene.order(ANN, Side.BUY, 1000, 99_0000)) == Refusal.MARGIN
    assert scene.order(ANN, Side.SELL, 19_000, 101_0000)[1]["outcome"] == Ack.RESTING
    assert refusal(scene.ask(ANN, Kinds.UPDATE_LEVERAGE, amount=19)) == Refusal.LEVERAGE_MARGIN
    assert scene.ask(ANN, Kinds.UPDATE_LEVERAGE, amount=50)[1]["outcome"] == Ack.DONE
    assert scene.used(ANN) == 396 * USD


def test_a_modify_is_judged_without_the_order_it_replaces(scene):
    scene.order(CAT, Side.SELL, 20, 110_0000)
    old = scene.order(ANN, Side.SELL, 20, 100_0000)[1]["order"]
    new = {"kind": Kinds.MODIFY, "order": old}
    rows, ack = scene.order(ANN, Side.BUY, 20, 101_0000, Tif.IOC, **new)
    assert kinds(rows) == ["REFUSED"] and ack["code"] == Refusal.IOC  # it would meet none but the old one
    assert old in scene.model.open
    rows, _ = scene.order(ANN, Side.BUY, 20, 101_0000, Tif.ALO, **new)
    assert kinds(rows) == ["ENDED", "OPENED"]
    assert refusal(scene.order(ANN, Side.BUY, 20, 101_0000, Tif.ALO, **new)) == Refusal.MODIFY_GONE


def test_a_modify_into_another_market_brings_its_margin_along(scene):
    old = scene.order(ANN, Side.BUY, 20_000, 99_0000)[1]["order"]  # 990 USD of 1000
    assert refusal(scene.order(ANN, Side.BUY, 1000, 5_000_000, market=1)) == Refusal.MARGIN
    rows, _ = scene.order(ANN, Side.BUY, 1000, 5_000_000, market=1, kind=Kinds.MODIFY, order=old)
    assert kinds(rows) == ["ENDED", "OPENED"]
    assert scene.used(ANN) == 500 * USD


def test_a_lone_order_moves_onto_the_level_of_another_and_off_again(scene):
    for side, far, near in ((Side.BUY, 98_0000, 99_0000), (Side.SELL, 102_0000, 101_0000)):
        oid = scene.order(ANN, side, 100, far)[1]["order"]
        scene.order(BOB, side, 100, near)
        for price in (near, far, near, far, near):
            rows, ack = scene.order(ANN, side, 100, price, kind=Kinds.MODIFY, order=oid)
            assert kinds(rows) == ["ENDED", "OPENED"] and rows[0]["order"] == oid
            oid = ack["order"]
        rows, ack = scene.order(CAT, 1 - side, 200, far)
        assert ack["outcome"] == Ack.FILLED
        makers = [row for row in rows if row["kind"] == Kind.FILLED and row["price"] == near][::2]
        assert [row["order"] for row in makers][-1] == oid, "Bob was there first"


def test_a_parent_that_only_reduces_from_now_on_has_no_children_any_more(scene):
    scene.order(BOB, Side.BUY, 100, 100_0000)
    scene.order(ANN, Side.SELL, 100, 100_0000)
    group = {"count": 2, "grouping": int(Grouping.NORMAL)}
    parent = scene.order(ANN, Side.BUY, 50, 90_0000, place=0, **group)[1]["order"]
    child = {"flags": Ask.IS_TRIGGER | Ask.REDUCE_ONLY, "trigger_price": 120_0000}
    child |= {"condition": int(Condition.ABOVE)}
    rows, ack = scene.order(ANN, Side.SELL, 50, 120_0000, place=1, **group, **child)
    assert kinds(rows) == ["WAITING"]
    again = {"kind": Kinds.MODIFY, "order": parent, "flags": Ask.REDUCE_ONLY}
    rows, _ = scene.order(ANN, Side.BUY, 50, 91_0000, **again)
    assert kinds(rows) == ["ENDED", "ENDED", "OPENED"] and rows[1]["order"] == ack["order"]


def test_a_cancel_names_the_order_and_its_market(scene):
    oid = scene.order(ANN, Side.BUY, 20, 90_0000, flags=Ask.HAS_CLOID, text=b"c" * 16)[1]["order"]
    assert refusal(scene.ask(BOB, Kinds.CANCEL, order=oid)) == Refusal.GONE
    assert refusal(scene.ask(ANN, Kinds.CANCEL, order=oid, market=1)) == Refusal.GONE
    assert refusal(scene.ask(ANN, Kinds.CANCEL, order=oid, market=2)) == Refusal.ORDER_MARKET
    assert (
        refusal(scene.order(ANN, Side.BUY, 20, 90_0000, flags=Ask.HAS_CLOID, text=b"c" * 16)) == Refusal.CLOID
    )
    rows, ack = scene.ask(ANN, Kinds.CANCEL_CLOID, of=b"c" * 16)
    assert kinds(rows) == ["ENDED"] and ack["order"] == oid
    assert refusal(scene.ask(ANN, Kinds.CANCEL_CLOID, of=b"c" * 16)) == Refusal.GONE


def test_money_set_aside_comes_back_with_the_position(scene):
    scene.ask(BOB, Kinds.UPDATE_LEVERAGE, amount=5)
    scene.order(ANN, Side.SELL, 50, 100_0000)
    scene.order(BOB, Side.BUY, 50, 100_0000)
    scene.ask(BOB, Kinds.ISOLATED_MARGIN, amount=7 * USD)
    assert scene.cash(BOB) == 983 * USD - 22_500  # 10 came with the fill: a fifth of its value
    assert refusal(scene.ask(BOB, Kinds.ISOLATED_MARGIN, amount=-7 * USD - 1)) == Refusal.BALANCE
    assert refusal(scene.ask(BOB, Kinds.UPDATE_LEVERAGE, Ask.IS_CROSS, amount=5)) == Refusal.LEVERAGE_SWITCH
    scene.order(CAT, Side.BUY, 50, 100_0000)
    scene.order(BOB, Side.SELL, 50, 100_0000)
    assert scene.cash(BOB) == 1000 * USD - 2 * 22_500


def test_who_holds_a_thousand_orders_may_open_no_more(scene):
    scene.do(kind=Kinds.DEPOSIT, other=ANN, amount=10**6 * USD)
    for _ in range(1000):
        assert scene.order(ANN, Side.BUY, 20, 90_0000)[1]["outcome"] == Ack.RESTING
    assert refusal(scene.order(ANN, Side.BUY, 20, 90_0000)) == Refusal.OPEN_ORDERS
    assert refusal(scene.order(ANN, Side.BUY, 20, 90_0000, Tif.IOC)) == Refusal.IOC  # it would not rest
    newest = scene.model.oids - 2
    assert (
        scene.order(ANN, Side.BUY, 20, 90_0000, kind=Kinds.MODIFY, order=newest)[1]["outcome"] == Ack.RESTING
    )
    assert scene.ask(ANN, Kinds.CANCEL_ALL)[1]["quantity"] == 1000


def test_ten_scheduled_cancels_a_day(scene):
    def schedule():
        return scene.ask(ANN, Kinds.SCHEDULE_CANCEL, amount=scene.now_ms + 5000)

    assert refusal(scene.ask(ANN, Kinds.SCHEDULE_CANCEL, amount=scene.now_ms + 4999)) == Refusal.SCHEDULE_SOON
    for _ in range(10):
        scene.order(ANN, Side.BUY, 20, 90_0000)
        assert schedule()[1]["outcome"] == Ack.DONE
        scene.now_ms += 4999
        assert "ENDED" not in kinds(scene.do(kind=Kinds.END_BLOCK)[0])
        scene.now_ms += 1
        rows, _ = scene.do(kind=Kinds.END_BLOCK)
        assert NAMES[rows[0]["status"]] == "scheduledCancel"
    assert refusal(schedule()) == Refusal.SCHEDULE_OFTEN
    scene.now_ms += DAY_MS
    assert schedule()[1]["outcome"] == Ack.DONE


def test_a_nonce_is_used_once_and_within_its_window(scene):
    def use(nonce):
        return scene.do(kind=Kinds.NOOP, signer=ANN, nonce=nonce)

    now = scene.now_ms
    assert use(now)[1]["outcome"] == Ack.DONE
    assert refusal(use(now)) == Refusal.NONCE_DUPLICATE
    assert refusal(use(now - 2 * DAY_MS)) == Refusal.NONCE_WINDOW
    assert refusal(use(now + DAY_MS)) == Refusal.NONCE_WINDOW
    for nonce in range(now + 1, now + 101):
        use(nonce)
    assert refusal(use(now)) == Refusal.NONCE_TOO_LOW  # a hundred are kept, and all are higher
    assert scene.model.accounts[ANN].actions == 101


def test_an_agent_trades_and_does_nothing_else_until_it_is_replaced(scene):
    agents = [address(100 + number) for number in range(5)]
    approve = {"kind": Kinds.APPROVE_AGENT, "text": b"bot" + bytes(13)}
    scene.ask(ANN, other=agents[0], **approve)
    assert scene.order(agents[0], Side.BUY, 20, 90_0000)[1]["outcome"] == Ack.RESTING
    assert refusal(scene.ask(agents[0], Kinds.USD_SEND, other=BOB, amount=1)) == Refusal.NOT_ALLOWED
    assert refusal(scene.ask(BOB, other=agents[0], **approve)) == Refusal.AGENT_USED
    rows, _ = scene.ask(ANN, other=agents[1], **approve)
    assert [row["done"] for row in rows] == [1, 0]  # the old one is revoked
    assert refusal(scene.ask(agents[0], Kinds.NOOP)) == Refusal.UNKNOWN_SIGNER
    for agent, name in zip(agents[2:4], (b"x", b"y"), strict=True):
        scene.ask(ANN, Kinds.APPROVE_AGENT, other=agent, text=name + bytes(15))
    last = {"kind": Kinds.APPROVE_AGENT, "other": agents[4]}
    assert refusal(scene.ask(ANN, text=b"z" + bytes(15), **last)) == Refusal.AGENTS_MANY
    until = scene.now_ms + 1
    assert scene.ask(ANN, text=NO_TEXT, amount=until, **last)[1]["outcome"] == Ack.DONE  # the unnamed one
    scene.now_ms = until
    assert refusal(scene.ask(agents[4], Kinds.NOOP)) == Refusal.UNKNOWN_SIGNER


def test_agents_whose_time_is_over_make_room_and_are_told_as_revoked(scene):
    until = scene.now_ms + 1
    for number, name in enumerate((b"x", b"y", b"z")):
        fields = {"other": address(100 + number), "text": name + bytes(15), "amount": until if number else 0}
        scene.ask(ANN, Kinds.APPROVE_AGENT, **fields)
    scene.now_ms = until
    rows, ack = scene.ask(ANN, Kinds.APPROVE_AGENT, other=address(110), text=b"w" + bytes(15))
    assert ack["outcome"] == Ack.DONE and [row["done"] for row in rows] == [1, 1, 0]
    assert scene.state.accounts[2]["first_agent"] == rows[-1]["order"]
    assert scene.state.signers[rows[-1]["order"]]["next"] == rows[0]["order"] - 2, "x is all that is left"


def test_an_action_is_of_one_kind(scene):
    """What an agent may do was judged by the first command: what follows cannot be another thing."""
    agent = address(100)
    scene.ask(ANN, Kinds.APPROVE_AGENT, other=agent, text=NO_TEXT)
    scene.ask(agent, Kinds.NOOP, count=2)
    assert refusal(scene.ask(agent, Kinds.USD_SEND, other=BOB, amount=1, place=1, count=2)) == (
        Refusal.NOT_A_COMMAND
    )


def test_a_sub_account_is_led_by_its_master(scene):
    sub = address(50)
    scene.ask(ANN, Kinds.CREATE_SUB, other=sub, text=b"sub" + bytes(13))
    move = {"kind": Kinds.SUB_TRANSFER, "other": sub, "amount": 300 * USD}
    rows, _ = scene.ask(ANN, flags=Ask.IS_DEPOSIT, **move)
    assert [(row["account"], row["amount"]) for row in rows] == [(2, -300 * USD), (5, 300 * USD)]
    assert refusal(scene.ask(BOB, flags=Ask.IS_DEPOSIT, **move)) == Refusal.SUB_UNKNOWN
    scene.order(ANN, Side.BUY, 20, 90_0000, flags=Ask.HAS_VAULT, vault=sub)
    assert [order.account.address for order in scene.model.open.values()] == [sub]
    assert refusal(scene.ask(BOB, Kinds.NOOP, Ask.HAS_VAULT, vault=sub)) == Refusal.UNKNOWN_VAULT
    assert refusal(scene.ask(ANN, **move)) == Refusal.BALANCE  # 18 USD / 20 are in use


def test_the_end_of_a_block_that_knows_of_another_past_is_noticed_once(scene):
    heap = scene.state.heap[0]
    scene.do(kind=Kinds.END_BLOCK)
    told = int(heap["digest"])
    assert told == heap["block_digest"]
    scene.order(ANN, Side.BUY, 1000, 100_0000)
    scene.do(kind=Kinds.END_BLOCK, amount=told)
    scene.do(kind=Kinds.END_BLOCK)
    assert heap["diverged"] == 0 and heap["block_digest"] != told
    known = int(heap["block_digest"])
    scene.do(kind=Kinds.END_BLOCK, amount=told)
    assert (heap["diverged"], heap["diverged_digest"]) == (scene.sequence, known)
    scene.do(kind=Kinds.END_BLOCK, amount=told)
    assert heap["diverged"] == scene.sequence - 1
