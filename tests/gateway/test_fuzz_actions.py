"""Whatever comes in: an envelope or a refusal, never another exception; and the hash is the client's own."""

import json
import re
from decimal import Decimal

import msgspec
from hyperliquid.utils import signing as sdk
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway import actions, signing
from gateway.errors import Refusal
from shm import units
from shm.constants import USD_PLACES
from tests.gateway import signed
from tests.gateway.signed import ACTIONS
from tests.gateway.test_codec import JSON

BODIES = [
    signed.body(action, vault=signed.VAULT, expires_ms=signed.EXPIRES_MS) for action in ACTIONS.values()
]
SENT = [json.loads(body) for body in BODIES]
PIECES = [
    *(b'{}[]:,"\\0-.eE'[at : at + 1] for at in range(14)),
    *(
        b"null",
        b"true",
        b"1e999",
        b"1.0",
        b"-0",
        b"\\u0000",
        b"\\ud800",
        b"\xff",
        b"\x00",
        b"\xc3",
        b" ",
        b"9" * 30,
    ),
    *(b'"type":', b'"action":', b'"nonce":1,', b'"a":0,', b'{"a":', b"[" * 2000),
]

MANY = settings(max_examples=300)


def judge(body):
    """Decode and recover as the gateway does; what comes of it is one of two things."""
    for is_signed in (True, False):
        try:
            envelope = actions.decode(body, is_signed)
            assert isinstance(envelope, actions.Envelope)
            assert len(signing.recover(envelope)) == 20
        except Refusal as refusal:
            assert 0 < len(str(refusal)) < 2 * actions.ERROR_CHARACTERS_MAX


@MANY
@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_bytes(body):
    judge(body)


@MANY
@given(JSON, st.sampled_from(SENT))
def test_any_json_in_any_place_of_an_envelope(value, sent):
    judge(msgspec.json.encode(value))
    for key in sent:
        judge(json.dumps({**sent, key: value}).encode())


@MANY
@given(st.sampled_from(BODIES), st.data())
def test_cut_doubled_and_pieced_bodies(body, data):
    place = st.integers(0, len(body))
    for _ in range(data.draw(st.integers(1, 3))):
        start, end = sorted((data.draw(place), data.draw(place)))
        with_what = data.draw(st.sampled_from(PIECES) | st.just(b"") | st.just(body[start:end] * 2))
        body = body[:start] + with_what + body[end:]
    judge(body)


def leaves(value, path=()):
    """Where the values of a JSON text stand that are no object and no list."""
    if isinstance(value, dict | list):
        keyed = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in keyed:
            yield from leaves(inner, (*path, key))
    else:
        yield path


@MANY
@given(st.sampled_from(SENT), JSON, st.data())
def test_any_json_in_the_place_of_any_value(sent, value, data):
    *path, last = data.draw(st.sampled_from(list(leaves(sent))))
    changed = place = json.loads(json.dumps(sent))
    for key in path:
        place = place[key]
    place[last] = value
    judge(json.dumps(changed).encode())


def ordered(fields, optional=None):
    """Objects whose keys stand in the order given, as the official client writes them."""
    keys = [*fields, *(optional or {})]
    return st.fixed_dictionaries(fields, optional=optional).map(
        lambda sent: {key: sent[key] for key in keys if key in sent}
    )


NUMBER = st.from_regex(re.compile(actions.DECIMAL_PATTERN, re.ASCII))
MARKET = st.integers(0, 2**31 - 1)
COUNT = st.integers(0, 2**63 - 1)
CLOID = st.from_regex(re.compile(actions.CLOID_PATTERN, re.ASCII))
ADDRESS = st.from_regex(re.compile(actions.ADDRESS_PATTERN, re.ASCII))
KIND = ordered(
    {"limit": ordered({"tif": st.sampled_from(["Gtc", "Ioc", "Alo", "FrontendMarket"])})}
) | ordered(
    {
        "trigger": ordered(
            {"isMarket": st.booleans(), "triggerPx": NUMBER, "tpsl": st.sampled_from(["tp", "sl"])}
        )
    }
)
ORDER = ordered(
    {"a": MARKET, "b": st.booleans(), "p": NUMBER, "s": NUMBER, "r": st.booleans(), "t": KIND},
    optional={"c": CLOID},
)
OID = COUNT | CLOID


def action(kind, fields, optional=None):
    return ordered({"type": st.just(kind), **fields}, optional)


def batch(fields):
    return st.lists(ordered(fields), min_size=1, max_size=20)


ACTION = st.one_of(
    action(
        "order",
        {
            "orders": st.lists(ORDER, min_size=1, max_size=20),
            "grouping": st.sampled_from(["na", "normalTpsl", "positionTpsl"]) | ordered({"p": COUNT}),
        },
        {"builder": ordered({"b": ADDRESS, "f": COUNT})},
    ),
    action("cancel", {"cancels": batch({"a": MARKET, "o": COUNT})}, {"f": st.booleans()}),
    action("cancelByCloid", {"cancels": batch({"asset": MARKET, "cloid": CLOID})}, {"f": st.booleans()}),
    action("modify", {"oid": OID, "order": ORDER}, {"a": st.booleans()}),
    action("batchModify", {"modifies": batch({"oid": OID, "order": ORDER})}, {"a": st.booleans()}),
    action("scheduleCancel", {}, {"time": COUNT}),
    action("updateLeverage", {"asset": MARKET, "isCross": st.booleans(), "leverage": COUNT}),
    action(
        "updateIsolatedMargin",
        {"asset": MARKET, "isBuy": st.booleans(), "ntli": st.integers(-(2**63) + 1, 2**63 - 1)},
    ),
    action("createSubAccount", {"name": st.from_regex(re.compile(actions.NAME_PATTERN, re.ASCII))}),
    action("subAccountTransfer", {"subAccountUser": ADDRESS, "isDeposit": st.booleans(), "usd": COUNT}),
    action(
        "twapOrder",
        {
            "twap": ordered(
                {
                    "a": MARKET,
                    "b": st.booleans(),
                    "s": NUMBER,
                    "r": st.booleans(),
                    "m": COUNT,
                    "t": st.booleans(),
                }
            )
        },
        {
            "details": ordered(
                {"t": st.none() | ordered({"p": NUMBER, "a": st.booleans()}), "s": st.none() | NUMBER}
            )
        },
    ),
    action("twapCancel", {"a": MARKET, "t": COUNT}),
    action("login", {"validUntil": COUNT, "cancelOnDisconnect": st.booleans()}),
)


@MANY
@given(ACTION, COUNT, st.none() | ADDRESS, st.none() | st.integers(1, 2**63 - 1), st.randoms())
def test_the_hash_is_the_official_clients(sent, nonce, vault, expires_ms, dice):
    body = {"nonce": nonce, "vaultAddress": vault, "expiresAfter": expires_ms, "action": shuffled(sent, dice)}
    decoded = actions.decode(json.dumps(body).encode(), signed=False)
    signs_a_vault = not isinstance(decoded.action, actions.NO_VAULT)
    hashed = signing.l1_hash(decoded.action, decoded.nonce, decoded.vault, decoded.expires_ms)
    assert hashed == sdk.action_hash(sent, vault if signs_a_vault else None, nonce, expires_ms)


def shuffled(value, dice):
    """The same JSON with its keys in another order."""
    if isinstance(value, list):
        return [shuffled(inner, dice) for inner in value]
    if not isinstance(value, dict):
        return value
    keys = list(value)
    dice.shuffle(keys)
    return {key: shuffled(value[key], dice) for key in keys}


@MANY
@given(NUMBER | st.text("0123456789.-+eE_ ", max_size=26) | st.decimals().map(str) | st.text(max_size=4))
@example("100.0")
@example("1" * 15 + ".00000001")
def test_a_number_is_taken_if_it_is_in_its_one_form(text):
    order = {**signed.ORDER, "p": text}
    body = {"action": {"type": "order", "orders": [order], "grouping": "na"}}
    try:
        actions.decode(json.dumps(body).encode(), signed=False)
    except Refusal:
        assert not is_canonical(text)
    else:
        assert is_canonical(text)


def is_canonical(text):
    """Whether it is what the official client would write of a number of up to 15 and 8 digits."""
    if not re.fullmatch("[0-9.]+", text, re.ASCII) or text.count(".") > 1 or not text.strip("."):
        return False
    number = Decimal(text)
    fits = number < 10**15 and number == number.quantize(Decimal("1e-8"))
    return fits and text == sdk_text(number)


def sdk_text(number):
    return f"{number.normalize():f}"


@given(st.from_regex(re.compile(actions.AMOUNT_PATTERN, re.ASCII)))
def test_every_amount_is_money(text):
    assert units.parse_decimal(text.encode(), USD_PLACES) == Decimal(text) * 10**USD_PLACES
