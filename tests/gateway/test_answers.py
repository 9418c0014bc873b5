"""What clients read: the answer to every kind of action, byte for byte, and the words of every refusal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import actions, answers, errors
from gateway.answers import Asked
from gateway.door import Ack
from shm.codes import Ack as Outcome
from shm.codes import Refusal as Code
from tests.gateway import signed

SIGNER, VAULT, CREATED = b"\x11" * 20, b"\x22" * 20, b"\x33" * 20
DECIMALS = [5, 4]
CLOID = "0x" + "ab" * 16
ORDER = {"a": 1, "b": True, "p": "1234.5", "s": "0.25", "r": False, "t": {"limit": {"tif": "Gtc"}}}


def ack(outcome=Outcome.DONE, code=Code.NONE, order=0, quantity=0, notional=0, market=1):
    return Ack(1, 1, order, quantity, notional, 0, 0, 1, code, outcome, market, 0)


def refused(code, **facts):
    return ack(Outcome.REFUSED, code, **facts)


def answer(action, *acks, refused=None, raw=False):
    decoded = actions.decode(json.dumps({"action": action}).encode(), signed=False).action
    written = answers.write(Asked(decoded, SIGNER, VAULT, refused or {}, DECIMALS, CREATED), acks)
    return written if raw else json.loads(written)


def orders(*them):
    return {"type": "order", "orders": list(them), "grouping": "na"}


def err(text):
    return {"status": "err", "response": text}


def statuses(kind, *them):
    return {"status": "ok", "response": {"type": kind, "data": {"statuses": list(them)}}}


def test_a_resting_and_a_filled_order():
    resting = ack(Outcome.RESTING, order=77738308, quantity=1000, notional=1)
    filled = ack(Outcome.FILLED, order=77747314, quantity=200, notional=37_828_000)
    assert answer(orders(ORDER, ORDER), resting, filled, raw=True) == (
        b'{"status":"ok","response":{"type":"order","data":{"statuses":[{"resting":{"oid":77738308}},'
        b'{"filled":{"totalSz":"0.02","avgPx":"1891.4","oid":77747314}}]}}}'
    )


def test_a_cloid_comes_back_in_every_form():
    named = ORDER | {"c": CLOID}
    filled = ack(Outcome.FILLED, order=6, quantity=10_000, notional=100 * 10**6)
    assert answer(orders(named, named), ack(Outcome.RESTING, order=5), filled) == statuses(
        "order",
        {"resting": {"oid": 5, "cloid": CLOID}},
        {"filled": {"totalSz": "1.0", "avgPx": "100.0", "oid": 6, "cloid": CLOID}},
    )


def test_orders_that_wait_for_a_trigger():
    stop = ORDER | {"r": True, "t": {"trigger": {"isMarket": True, "triggerPx": "1300", "tpsl": "sl"}}}
    named = stop | {"c": CLOID}
    alone, of_order, of_position = (
        ack(outcome, order=oid)
        for oid, outcome in enumerate((Outcome.RESTING, Outcome.WAITS_FOR_FILL, Outcome.WAITS_FOR_TRIGGER), 5)
    )
    assert answer(
        orders(stop, named, named, stop), alone, of_order, of_position, refused(Code.TRIGGER), raw=True
    ) == (
        b'{"status":"ok","response":{"type":"order","data":{"statuses":[{"resting":{"oid":5}},"waitingForFill",'
        b'"waitingForTrigger",{"error":"Invalid TP/SL price. asset=1"}]}}}'
    )


@pytest.mark.parametrize(
    ("notional", "quantity", "decimals", "text"),
    [
        (37_828_000, 200, 4, "1891.4"),
        (100_000_000, 10_000, 4, "100.0"),
        (1, 3, 0, "0.00000033"),
        (2, 3, 0, "0.00000067"),
        (100_000_000, 3, 0, "33.33333333"),
        (10**18, 10**15, 5, "100.0"),
    ],
)
def test_the_average_price(notional, quantity, decimals, text):
    assert answers.average_price(notional, quantity, decimals) == text


@given(st.integers(1, 10**15), st.integers(1, 10**9), st.integers(0, 5))
def test_the_average_of_one_price_is_that_price(price, quantity, decimals):
    text = answers.average_price(price * quantity, quantity, decimals)
    whole, _, fraction = text.partition(".")
    places = 6 - decimals
    assert int(whole + fraction.ljust(places, "0")) == price * (10 ** max(0, len(fraction) - places))


def test_what_was_refused_in_its_place_stands_there():
    answered = answer(
        orders(ORDER, ORDER, ORDER),
        ack(Outcome.RESTING, order=8),
        refused={0: Code.SIZE, 2: Code.PRICE},
    )
    assert answered == statuses(
        "order",
        {"error": "Order has invalid size. asset=1"},
        {"resting": {"oid": 8}},
        {"error": "Price must be divisible by tick size. asset=1"},
    )
    everything = answer(orders(ORDER), ack(), refused={0: Code.SIZE})
    assert everything == statuses("order", {"error": "Order has invalid size. asset=1"})


WORDS = {
    Code.PRICE: "Price must be divisible by tick size. asset=1",
    Code.SIZE: "Order has invalid size. asset=1",
    Code.VALUE_MIN: "Order must have minimum value of $10. asset=1",
    Code.VALUE_MAX: "Order value is too large. asset=1",
    Code.MARGIN: "Insufficient margin to place order. asset=1",
    Code.REDUCE_ONLY: "Reduce only order would increase position. asset=1",
    Code.POST_ONLY: "Post only order would have immediately matched, bbo was 12.34@0.0. asset=1",
    Code.IOC: "Order could not immediately match against any resting orders. asset=1",
    Code.LIQUIDITY: "No liquidity available for market order. asset=1",
    Code.PRICE_FAR: "Order price cannot be more than 80% away from the reference price asset=1",
    Code.OPEN_ORDERS: "Too many open orders. asset=1",
    Code.CLOID: "An open order has this cloid. asset=1",
    Code.GONE: "Order was never placed, already canceled, or filled. asset=1",
    Code.MODIFY_GONE: "Cannot modify canceled or filled order",
    Code.TRIGGER: "Invalid TP/SL price. asset=1",
    Code.GROUPING: "TP/SL order must be a reduce only trigger order against its main order. asset=1",
    Code.PARENT: "Main order was not placed, or has ended before it was filled. asset=1",
    Code.ORDERS_FULL: "No room for another order. asset=1",
    Code.ORDER_MARKET: "Unknown asset 1",
    Code.KILLED: "Trading is switched off for this account. asset=1",
    Code.CLOSED: "Trading is halted: only cancels are taken. asset=1",
    Code.INTEREST_FAST: "Order would increase open interest too quickly. asset=1",
    Code.INTEREST_FLIP: "Order would increase open interest while open interest is capped. asset=1",
    Code.INTEREST_CAP: "Order would increase open interest while open interest is capped. asset=1",
    Code.TIER: "Order would cause position to exceed margin tier limit at current leverage. asset=1",
    Code.TWAP_MINUTES: "Invalid TWAP duration: 0 min(s)",
    Code.TWAP_VALUE: "TWAP order value too small. Min is $0, which is $10 per minute.",
    Code.TWAP_GONE: "TWAP was never placed, already canceled, or filled.",
}
OF_ACTIONS = {
    Code.UNKNOWN_SIGNER: f"User or API Wallet 0x{'11' * 20} does not exist.",
    Code.UNKNOWN_VAULT: f"Vault not registered: 0x{'22' * 20}",
    Code.NONCE_DUPLICATE: "Invalid nonce: duplicate nonce",
    Code.NONCE_TOO_LOW: "Invalid nonce: lower than all that are kept of this signer",
    Code.NONCE_WINDOW: "Invalid nonce: more than two days old, or a day ahead, in milliseconds",
    Code.EXPIRED: "Action expired: expiresAfter has passed",
    Code.NOT_ALLOWED: "Only the account itself may do this, not an agent, and not for a sub-account",
    Code.UNKNOWN_MARKET: "Unknown asset 1",
    Code.LEVERAGE_VALUE: "Invalid leverage value",
    Code.LEVERAGE_SWITCH: "Cannot switch leverage type with open position.",
    Code.LEVERAGE_MARGIN: "Insufficient margin for this leverage.",
    Code.NOT_ISOLATED: "There is no isolated position. asset=1",
    Code.BALANCE: "Insufficient balance for token transfer",
    Code.SCHEDULE_SOON: "Scheduled cancel time must be at least 5 seconds ahead",
    Code.SCHEDULE_OFTEN: "Too many scheduled cancels today",
    Code.AGENT_USED: "Extra agent already used.",
    Code.AGENTS_MANY: "Too many extra agents.",
    Code.SUBS_MANY: "Too many sub-accounts.",
    Code.SUB_UNKNOWN: f"Sub-account {signed.VAULT} is not registered to 0x{'11' * 20}",
    Code.AMOUNT: "Invalid amount, address or time",
    Code.TABLE_FULL: "The exchange is full: nothing was changed",
    Code.NOT_A_COMMAND: "Unknown action",
}


def test_every_refusal_is_either_of_an_action_or_of_an_order():
    assert WORDS.keys() | OF_ACTIONS.keys() == set(Code) - {Code.NONE}
    assert all(errors.is_of_action(code) for code in OF_ACTIONS)
    assert not any(errors.is_of_action(code) for code in (*WORDS, Code.NONE))


@pytest.mark.parametrize("code", WORDS)
def test_a_refused_order_is_one_status_among_the_others(code):
    acks = refused(code, quantity=1234), ack(Outcome.RESTING, order=1)
    assert answer(orders(ORDER, ORDER), *acks) == statuses(
        "order", {"error": WORDS[code]}, {"resting": {"oid": 1}}
    )
    batch = {"type": "batchModify", "modifies": [{"oid": 1, "order": ORDER}]}
    assert answer(batch, refused(code, quantity=1234)) == statuses("order", {"error": WORDS[code]})
    modify = {"type": "modify", "oid": 1, "order": ORDER}
    assert answer(modify, refused(code, quantity=1234)) == err(WORDS[code])


@pytest.mark.parametrize("code", OF_ACTIONS)
def test_a_refused_action_has_one_text(code):
    assert answer(signed.ACTIONS["subAccountTransfer"], refused(code)) == err(OF_ACTIONS[code])


def test_a_batch_whose_envelope_was_refused_has_no_statuses():
    acks = [refused(Code.NONCE_DUPLICATE)] * 2
    assert answer(orders(ORDER, ORDER), *acks) == err(OF_ACTIONS[Code.NONCE_DUPLICATE])
    cancel = {"type": "cancel", "cancels": [{"a": 0, "o": 1}, {"a": 0, "o": 2}]}
    assert answer(cancel, *acks) == err(OF_ACTIONS[Code.NONCE_DUPLICATE])
    only_noop = answer(orders(ORDER), refused(Code.UNKNOWN_SIGNER), refused={0: Code.SIZE})
    assert only_noop == err(OF_ACTIONS[Code.UNKNOWN_SIGNER])


def test_cancels():
    cancel = {"type": "cancel", "cancels": [{"a": 1, "o": 1}, {"a": 1, "o": 2}]}
    assert answer(cancel, ack(), refused(Code.GONE)) == statuses(
        "cancel", "success", {"error": "Order was never placed, already canceled, or filled. asset=1"}
    )
    by_cloid = {"type": "cancelByCloid", "cancels": [{"asset": 1, "cloid": CLOID}]}
    assert answer(by_cloid, ack()) == statuses("cancel", "success")


def twap(minutes=5, market=1):
    sent = {"a": market, "b": True, "s": "1", "r": False, "m": minutes, "t": False}
    return {"type": "twapOrder", "twap": sent}


TWAP_CANCEL = {"type": "twapCancel", "a": 1, "t": 77738308}


def of_twap(kind, status):
    return {"status": "ok", "response": {"type": kind, "data": {"status": status}}}


def test_a_twap_is_told_its_id():
    assert answer(twap(), ack(order=77738308), raw=True) == (
        b'{"status":"ok","response":{"type":"twapOrder","data":{"status":{"running":{"twapId":77738308}}}}}'
    )
    assert answer(TWAP_CANCEL, ack(order=77738308), raw=True) == (
        b'{"status":"ok","response":{"type":"twapCancel","data":{"status":"success"}}}'
    )


TWAP_WORDS = {
    Code.TWAP_MINUTES: "Invalid TWAP duration: 120 min(s)",
    Code.TWAP_VALUE: "TWAP order value too small. Min is $1200, which is $10 per minute.",
}


@pytest.mark.parametrize("code", WORDS)
def test_a_twap_that_is_refused_has_one_status(code):
    error = {"error": (WORDS | TWAP_WORDS)[code]}
    assert answer(twap(120), refused(code, quantity=1234)) == of_twap("twapOrder", error)
    assert answer(TWAP_CANCEL, refused(code, quantity=1234)) == of_twap("twapCancel", {"error": WORDS[code]})


def test_a_twap_whose_action_is_refused_has_none():
    for action in twap(), TWAP_CANCEL:
        assert answer(action, refused(Code.UNKNOWN_SIGNER)) == err(OF_ACTIONS[Code.UNKNOWN_SIGNER])


def test_a_twap_that_was_refused_in_its_place():
    for code, text in (Code.SIZE, "Order has invalid size. asset=9"), (Code.ORDER_MARKET, "Unknown asset 9"):
        assert answer(twap(market=9), ack(), refused={0: code}) == of_twap("twapOrder", {"error": text})


@pytest.mark.parametrize(
    "name",
    ["modify", "scheduleCancel", "updateLeverage", "updateIsolatedMargin", "noop", "subAccountTransfer"],
)
def test_what_has_nothing_to_tell_answers_default(name):
    assert answer(signed.ACTIONS[name], ack()) == {"status": "ok", "response": {"type": "default"}}


def test_a_new_sub_account_is_told_its_address():
    answered = answer(signed.ACTIONS["createSubAccount"], ack())
    assert answered["response"] == {"type": "createSubAccount", "data": "0x" + "33" * 20}


def test_a_login_is_told_who_signed_it():
    login = signed.ACTIONS["login"]
    assert answer(login, ack()) == {
        "status": "ok", "user": "0x" + "11" * 20, "validUntil": login["validUntil"],
    }  # fmt: skip
    assert answer(login, refused(Code.NONCE_TOO_LOW)) == err(OF_ACTIONS[Code.NONCE_TOO_LOW])
