"""What an action asks of the engine: every field of its commands, and what is refused in its place."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import actions, commands
from gateway.actions import Envelope
from gateway.errors import Refusal
from shm import layout
from shm.codes import Ask, Command, Condition, Grouping, Side, Tif
from shm.codes import Refusal as Code
from tests.gateway import signed

SIGNER, VAULT = b"\x11" * 20, b"\x22" * 20
CREATED = b"\x33" * 20
DECIMALS = [5, 4, 0]  # of markets 0, 1, 2
CLOID = "0x" + "ab" * 16
ORDER = {"a": 1, "b": True, "p": "1234.5", "s": "0.25", "r": False, "t": {"limit": {"tif": "Gtc"}}}


def decoded(action):
    return actions.decode(json.dumps({"action": action}).encode(), signed=False).action


def make(action, nonce=7, vault=None, expires_ms=None, in_session=False, decimals=DECIMALS):
    envelope = Envelope(decoded(action), nonce, None, vault, expires_ms)
    return commands.make(envelope, SIGNER, in_session, decimals, CREATED)


def one(action, **more):
    """The only command of an action."""
    made, refused = make(action, **more)
    assert not refused and len(made) == 1
    return made[0]


def orders(*them, **more):
    return {"type": "order", "orders": list(them), "grouping": "na", **more}


def differs(command, **facts):
    """See that these fields are so, and all others as in a command that asks for nothing."""
    usual = {name: 0 for name in layout.COMMAND.names} | {"market": -1, "signer_row": -1, "count": 1}
    for name, value in (usual | {"signer": SIGNER, "nonce": 7} | facts).items():
        found = command[name]
        if layout.COMMAND[name].shape:
            width = layout.COMMAND[name].shape[0]
            assert found.tobytes() == (value or b"").ljust(width, b"\0"), name
        else:
            assert found == value, name


def test_an_order_is_whole_units_of_its_market():
    differs(
        one(orders(ORDER)),
        kind=Command.ORDER,
        market=1,
        price=123450,  # 10**-2
        quantity=2500,  # 10**-4
        side=Side.BUY,
    )


def test_every_flag_and_text_of_an_order():
    order = ORDER | {"b": False, "r": True, "c": CLOID, "t": {"limit": {"tif": "Alo"}}}
    builder = {"b": "0x" + "44" * 20, "f": 10}
    differs(
        one(orders(order, builder=builder), vault=VAULT, expires_ms=99),
        kind=Command.ORDER,
        market=1,
        price=123450,
        quantity=2500,
        side=Side.SELL,
        tif=Tif.ALO,
        flags=Ask.REDUCE_ONLY | Ask.HAS_CLOID | Ask.HAS_VAULT | Ask.HAS_BUILDER,
        text=bytes.fromhex(CLOID[2:]),
        vault=VAULT,
        builder=b"\x44" * 20,
        amount=10,
        expires_ms=99,
    )


@pytest.mark.parametrize(
    ("tif", "code"), [("Gtc", Tif.GTC), ("Ioc", Tif.IOC), ("Alo", Tif.ALO), ("FrontendMarket", Tif.MARKET)]
)
def test_how_long_it_waits(tif, code):
    assert one(orders(ORDER | {"t": {"limit": {"tif": tif}}}))["tif"] == code


def trigger(price="1300.1", tpsl="sl", is_market=True, **changed):
    kind = {"trigger": {"isMarket": is_market, "triggerPx": price, "tpsl": tpsl}}
    return ORDER | {"r": True, "t": kind} | changed


@pytest.mark.parametrize(
    ("is_buy", "tpsl", "condition"),
    [
        (True, "sl", Condition.ABOVE),
        (False, "sl", Condition.BELOW),
        (True, "tp", Condition.BELOW),
        (False, "tp", Condition.ABOVE),
    ],
)
@pytest.mark.parametrize(("is_market", "tif"), [(True, Tif.MARKET), (False, Tif.GTC)])
def test_a_trigger_order_says_which_side_of_its_price_fires_it(is_buy, tpsl, condition, is_market, tif):
    differs(
        one(orders(trigger(tpsl=tpsl, is_market=is_market, b=is_buy))),
        kind=Command.ORDER,
        market=1,
        price=123450,
        quantity=2500,
        trigger_price=130010,
        side=Side.BUY if is_buy else Side.SELL,
        tif=tif,
        flags=Ask.IS_TRIGGER | Ask.REDUCE_ONLY,
        condition=condition,
    )


def test_a_modify_may_set_a_trigger():
    command = one({"type": "modify", "oid": 5, "order": trigger(b=False)})
    assert (command["kind"], command["condition"]) == (Command.MODIFY, Condition.BELOW)
    assert command["flags"] == Ask.IS_TRIGGER | Ask.REDUCE_ONLY and command["grouping"] == Grouping.NONE


@pytest.mark.parametrize(
    ("name", "grouping"), [("normalTpsl", Grouping.NORMAL), ("positionTpsl", Grouping.POSITION)]
)
def test_every_order_of_an_action_has_its_grouping(name, grouping):
    made, refused = make(orders(trigger(), trigger(s="0")) | {"grouping": name})
    assert refused == {} and made["grouping"].tolist() == [grouping] * 2
    assert made["quantity"].tolist() == [2500, 0] and made["place"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "code"),
    [({"p": "1234.567"}, Code.PRICE), ({"s": "0.00001"}, Code.SIZE), ({"a": 3}, Code.ORDER_MARKET)],
)
def test_children_are_not_sent_without_their_parent(change, code):
    children = [trigger(), trigger("1200")]
    made, refused = make(orders(ORDER | change, *children) | {"grouping": "normalTpsl"})
    assert refused == {0: code, 1: Code.PARENT, 2: Code.PARENT}
    differs(made[0], kind=Command.NOOP)
    made, refused = make(orders(ORDER | change, *children) | {"grouping": "positionTpsl"})
    assert refused == {0: code} and len(made) == 2, "nobody's children"


def test_a_child_that_is_refused_leaves_its_place_to_the_other():
    made, refused = make(orders(ORDER, trigger("0.001"), trigger("1200")) | {"grouping": "normalTpsl"})
    assert refused == {1: Code.PRICE}
    assert made["trigger_price"].tolist() == [0, 120000] and made["place"].tolist() == [0, 1]


def test_the_places_of_a_batch():
    made, refused = make(orders(*[ORDER] * 5))
    assert refused == {} and made["place"].tolist() == [0, 1, 2, 3, 4] and set(made["count"]) == {5}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"s": "0.00001"}, Code.SIZE),
        ({"p": "1234.567"}, Code.PRICE),
        ({"p": "999999999999999.5", "s": "999999999999999"}, Code.SIZE),
        ({"p": "999999999999999", "s": "1", "a": 2}, Code.PRICE),
        ({"a": 3}, Code.ORDER_MARKET),
        ({"t": {"trigger": {"isMarket": True, "triggerPx": "0.001", "tpsl": "sl"}}}, Code.PRICE),
    ],
)
def test_what_no_unit_can_say_is_refused_alone(change, code):
    made, refused = make(orders(ORDER, ORDER | change, ORDER | {"a": 0}))
    assert refused == {1: code}
    assert made["market"].tolist() == [1, 0] and made["place"].tolist() == [0, 1]
    assert set(made["count"]) == {2}


def test_when_nothing_is_left_the_engine_still_sees_the_nonce():
    made, refused = make(orders(ORDER | {"s": "0.00001"}, ORDER | {"a": 9}), vault=VAULT)
    assert refused == {0: Code.SIZE, 1: Code.ORDER_MARKET}
    differs(made[0], kind=Command.NOOP, vault=VAULT, flags=Ask.HAS_VAULT)


@given(st.integers(0, 10**9), st.integers(0, 5), st.integers(0, 10**9))
def test_no_digit_is_lost(price, decimals, quantity):
    def text(units, places):
        whole = f"{units // 10**places}.{units % 10**places:0{places}d}" if places else str(units)
        return whole.rstrip("0").rstrip(".") if places else whole

    order = ORDER | {"a": 0, "p": text(price, 6 - decimals), "s": text(quantity, decimals)}
    command = one(orders(order), decimals=[decimals])
    assert (command["price"], command["quantity"]) == (price, quantity)


def test_modifies_name_the_old_order_by_oid_or_cloid():
    made, _ = make(
        {
            "type": "batchModify",
            "modifies": [{"oid": 5, "order": ORDER}, {"oid": CLOID, "order": ORDER}],
            "a": True,
        }
    )
    assert set(made["kind"]) == {Command.MODIFY}
    assert made["order"].tolist() == [5, 0] and made["of"][1].tobytes().hex() == CLOID[2:]
    assert made["flags"].tolist() == [Ask.ALWAYS_PLACE, Ask.ALWAYS_PLACE | Ask.BY_CLOID]
    command = one({"type": "modify", "oid": 5, "order": ORDER})
    assert command["kind"] == Command.MODIFY and command["flags"] == 0 and command["quantity"] == 2500


def test_cancels():
    made, _ = make({"type": "cancel", "cancels": [{"a": 0, "o": 3}, {"a": 77, "o": 4}]})
    assert made["kind"].tolist() == [Command.CANCEL] * 2
    assert made["market"].tolist() == [0, 77] and made["order"].tolist() == [3, 4]
    differs(
        one({"type": "cancelByCloid", "cancels": [{"asset": 1, "cloid": CLOID}]}),
        kind=Command.CANCEL_CLOID,
        market=1,
        of=bytes.fromhex(CLOID[2:]),
    )
    differs(
        commands.cancel_all(SIGNER, VAULT)[0],
        kind=Command.CANCEL_ALL,
        nonce=0,
        vault=VAULT,
        flags=Ask.SESSION | Ask.HAS_VAULT,
    )


ADDRESS = signed.AGENT
RAW = bytes.fromhex(ADDRESS[2:])
TYPED = {"signatureChainId": "0x66eee", "hyperliquidChain": "Testnet"}


@pytest.mark.parametrize(
    ("action", "facts"),
    [
        ({"type": "noop"}, {"kind": Command.NOOP}),
        ({"type": "scheduleCancel", "time": 123}, {"kind": Command.SCHEDULE_CANCEL, "amount": 123}),
        ({"type": "scheduleCancel"}, {"kind": Command.SCHEDULE_CANCEL}),
        (
            {"type": "updateLeverage", "asset": 2, "isCross": True, "leverage": 9},
            {"kind": Command.UPDATE_LEVERAGE, "market": 2, "amount": 9, "flags": Ask.IS_CROSS},
        ),
        (
            {"type": "updateIsolatedMargin", "asset": 2, "isBuy": True, "ntli": -5},
            {"kind": Command.ISOLATED_MARGIN, "market": 2, "amount": -5},
        ),
        (
            {"type": "subAccountTransfer", "subAccountUser": ADDRESS.lower(), "isDeposit": True, "usd": 8},
            {"kind": Command.SUB_TRANSFER, "other": RAW, "amount": 8, "flags": Ask.IS_DEPOSIT},
        ),
        (
            {"type": "createSubAccount", "name": "desk: 2"},
            {"kind": Command.CREATE_SUB, "other": CREATED, "text": b"desk: 2"},
        ),
        (
            {"type": "usdSend", **TYPED, "destination": ADDRESS, "amount": "1.50", "time": 7},
            {"kind": Command.USD_SEND, "other": RAW, "amount": 1_500_000},
        ),
        (
            {
                "type": "approveAgent",
                **TYPED,
                "agentAddress": ADDRESS,
                "agentName": "bot valid_until 17",
                "nonce": 7,
            },
            {"kind": Command.APPROVE_AGENT, "other": RAW, "text": b"bot", "amount": 17},
        ),
        ({"type": "login", "validUntil": 1, "cancelOnDisconnect": True}, {"kind": Command.NOOP}),
    ],
)
def test_the_other_kinds(action, facts):
    differs(one(action), **facts)


TWAP = {"a": 1, "b": False, "s": "0.25", "r": True, "m": 30, "t": True}


def twap(**changed):
    return {"type": "twapOrder", "twap": TWAP | changed}


def test_a_twap_is_whole_units_of_its_market():
    facts = {"kind": Command.TWAP, "market": 1, "quantity": 2500, "amount": 30}
    both = Ask.REDUCE_ONLY | Ask.RANDOMIZE
    differs(one(twap()), **facts, side=Side.SELL, flags=both)
    differs(one(twap(r=False)), **facts, side=Side.SELL, flags=Ask.RANDOMIZE)
    differs(one(twap(t=False, b=True)), **facts, side=Side.BUY, flags=Ask.REDUCE_ONLY)
    differs(
        one(twap(), vault=VAULT, in_session=True),
        **facts,
        side=Side.SELL,
        flags=both | Ask.HAS_VAULT | Ask.SESSION,
        vault=VAULT,
        nonce=0,
    )
    assert one(twap(m=2**63 - 1))["amount"] == 2**63 - 1
    differs(one({"type": "twapCancel", "a": 77, "t": 9}), kind=Command.TWAP_CANCEL, market=77, order=9)


@pytest.mark.parametrize(("change", "code"), [({"s": "0.00001"}, Code.SIZE), ({"a": 3}, Code.ORDER_MARKET)])
def test_a_twap_that_no_unit_can_say_leaves_a_noop(change, code):
    made, refused = make(twap(**change))
    assert refused == {0: code}
    differs(made[0], kind=Command.NOOP)


def test_a_session_has_no_nonce():
    differs(one({"type": "noop"}, in_session=True), kind=Command.NOOP, nonce=0, flags=Ask.SESSION)


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (orders(ORDER) | {"grouping": {"p": 1}}, "grouping priority is not supported"),
        (signed.ACTIONS["twapOrder with details"], "twapOrder with details is not supported"),
    ],
)
def test_what_is_not_served(action, text):
    with pytest.raises(Refusal, match=text):
        make(action)


@pytest.mark.parametrize("name", signed.ACTIONS)
def test_every_action_has_its_size_and_only_some_are_cancels(name):
    action = signed.ACTIONS[name]
    parts = action.get("orders") or action.get("cancels") or action.get("modifies") or [action]
    if name not in ("usdSend", "approveAgent", "approveAgent unnamed"):
        assert commands.size(decoded(action)) == len(parts)
        assert commands.is_cancel(decoded(action)) == ("ancel" in action["type"])
