"""What is taken as an action, and what is said of everything else."""

import json

import msgspec
import pytest

from gateway import actions, errors
from gateway.errors import Refusal
from shm.constants import BATCH_MAX
from tests.gateway import signed
from tests.gateway.signed import ACTIONS, AGENT, CLOID, NONCE, ORDER, VAULT

SIGNATURE = {"r": "0x1", "s": "0x" + "f" * 64, "v": 27}


def dumps(action, **more):
    return json.dumps({"action": action, "nonce": NONCE, "signature": SIGNATURE, **more}).encode()


def refusal(body, **more):
    with pytest.raises(Refusal) as caught:
        actions.decode(body, **more)
    return str(caught.value)


def order(**changed):
    return {"type": "order", "orders": [{**ORDER, **changed}], "grouping": "na"}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_every_action_is_taken_as_it_was_sent(action):
    sent = signed.envelope(action)["action"]
    assert json.loads(msgspec.json.encode(actions.decode(dumps(sent)).action)) == sent


def test_every_type_has_a_sample():
    tags = {kind.__struct_config__.tag for kind in actions.Action.__args__}
    assert tags == {action["type"] for action in ACTIONS.values()}
    assert not tags & actions.NOT_SERVED


@pytest.mark.parametrize("name", sorted(actions.NOT_SERVED))
def test_what_is_not_served_is_named(name):
    assert refusal(dumps({"type": name, "whatever": 1})) == f"{name} is not supported"


@pytest.mark.parametrize(
    "text",
    [
        "1.0",
        "0.10",
        "01",
        "-1",
        "+1",
        "1e3",
        ".5",
        "5.",
        " 1",
        "1\n",
        "1_0",
        "NaN",
        "",
        "\u0661",
        "\uff11",
        "0x1",
    ]
    + ["1" * 16, "0.000000001", "-0", "0.0"],
)
def test_a_number_has_one_spelling(text):
    said = "Invalid action: Expected a decimal without sign, exponent, leading or trailing zeros"
    assert refusal(dumps(order(p=text))) == f"{said} - at `$.orders[0].p`"
    assert refusal(dumps(order(s=text))) == f"{said} - at `$.orders[0].s`"


@pytest.mark.parametrize("text", ["0", "1", "0.1", "10", "0.00000001", "9" * 15 + "." + "9" * 8, "100.05"])
def test_a_number_in_its_one_spelling_is_taken(text):
    decoded = actions.decode(dumps(order(p=text, s=text))).action.orders[0]
    assert (decoded.price, decoded.quantity) == (text, text)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (order(p=1), "Expected `str`, got `int` - at `$.orders[0].p`"),
        (order(a=-1), "Expected `int` >= 0 - at `$.orders[0].a`"),
        (order(a=True), "Expected `int`, got `bool` - at `$.orders[0].a`"),
        (order(a=1.5), "Expected `int`, got `float` - at `$.orders[0].a`"),
        (order(a=2**31), "Expected `int` <= 2147483647 - at `$.orders[0].a`"),
        (order(r=None), "Expected `bool`, got `null` - at `$.orders[0].r`"),
        (order(z=1), "Object contains unknown field `z` - at `$.orders[0]`"),
        (order(t={}), "Expected `limit` or `trigger` - at `$.orders[0].t`"),
        (
            order(t={**ORDER["t"], **signed.STOP["t"]}),
            "Expected `limit` or `trigger` - at `$.orders[0].t`",
        ),
        (order(t={"limit": {"tif": "gtc"}}), "Invalid enum value 'gtc' - at `$.orders[0].t.limit.tif`"),
        (
            order(c="0x" + "AB" * 16),
            "Expected a cloid of 32 hex digits in lower case - at `$.orders[0].c`",
        ),
        ({**order(), "grouping": "none"}, "Invalid enum value 'none' - at `$.grouping`"),
        (
            {**order(), "builder": {"b": AGENT, "f": 1}},
            "Expected an address in lower case - at `$.builder.b`",
        ),
        ({**order(), "orders": []}, "Expected `array` of length >= 1 - at `$.orders`"),
        ({"type": "order", "orders": [ORDER]}, "Object missing required field `grouping`"),
        (
            {"type": "cancel", "cancels": [{"a": 0, "o": 2**63}]},
            "Expected `int` <= 9223372036854775807 - at `$.cancels[0].o`",
        ),
        ({"type": "scheduleCancel", "time": -1}, "Expected `int` >= 0 - at `$.time`"),
        (
            {"type": "createSubAccount", "name": "m" * 17},
            "Expected a name of 1 to 16 ASCII characters - at `$.name`",
        ),
        (
            {"type": "createSubAccount", "name": "\x1b[2J"},
            "Expected a name of 1 to 16 ASCII characters - at `$.name`",
        ),
        (
            {"type": "subAccountTransfer", "subAccountUser": AGENT, "isDeposit": True, "usd": 1},
            "Expected an address in lower case - at `$.subAccountUser`",
        ),
        ({"type": "noop", "nonce": 1}, "Object contains unknown field `nonce`"),
        ({"type": "dummy"}, "Invalid value 'dummy' - at `$.type`"),
        ({"type": 1}, "Expected `str` - at `$.type`"),
        ({}, "Object missing required field `type`"),
        ([], "Expected `object`, got `array`"),
    ],
)
def test_what_is_wrong_with_an_action_is_said(action, said):
    assert refusal(dumps(action)) == f"Invalid action: {said}"


@pytest.mark.parametrize("amount", ["1e-05", "-1", "0.0000001", "1" * 13, "1.", "01"])
def test_an_amount_is_text_that_fits_money(amount):
    sent = {**ACTIONS["usdSend"], "signatureChainId": "0x1", "hyperliquidChain": "Testnet", "amount": amount}
    said = "Expected an amount without sign or exponent, of 6 decimals at most - at `$.amount`"
    assert refusal(dumps(sent)) == f"Invalid action: {said}"


def test_a_refusal_repeats_little_of_what_was_sent():
    said = refusal(dumps({"type": "noop", "{\n" + "x" * 5000: 1}))
    assert len(said) < 2 * actions.ERROR_CHARACTERS_MAX
    assert not set("{}") & set(said)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b'\xef\xbb\xbf{"action":{"type":"noop"}}',
        b'{"action":{"type":"noop"}}',
        dumps({"type": "noop"})[:-1],
        dumps({"type": "noop"}) + b"x",
        dumps({"type": "noop"}, nonce=None),
        dumps({"type": "noop"}, nonce="1"),
        dumps({"type": "noop"}, nonce=-1),
        dumps({"type": "noop"}, nonce=2**63),
        dumps({"type": "noop"}, nonce=1.5),
        dumps({"type": "noop"}, signature=None),
        dumps({"type": "noop"}, signature={"r": "0x1", "s": "0x1"}),
        *(dumps({"type": "noop"}, signature={**SIGNATURE, "v": v}) for v in (-1, 2, 3, 26, 29, 37)),
        dumps({"type": "noop"}, signature={**SIGNATURE, "v": True}),
        dumps({"type": "noop"}, signature={**SIGNATURE, "r": "0x"}),
        dumps({"type": "noop"}, signature={**SIGNATURE, "r": "1"}),
        dumps({"type": "noop"}, signature={**SIGNATURE, "s": "0x" + "0" * 65}),
        dumps({"type": "noop"}, vaultAddress=""),
        dumps({"type": "noop"}, vaultAddress=VAULT[:-1]),
        dumps({"type": "noop"}, expiresAfter=0),
        dumps({"type": "noop"}, expiresAfter="1"),
        dumps({"type": "noop"}, more=0).replace(b'"more": 0', b'"more":' + b"[" * 30_000 + b"]" * 30_000),
        dumps({"type": "noop"}, more=0).replace(
            b'"more": 0', b'"more":' + b'{"a":' * 5_000 + b"0" + b"}" * 5_000
        ),
    ],
)
def test_what_is_no_envelope(body):
    assert refusal(body) == errors.BAD_BODY.message


@pytest.mark.parametrize(
    ("once", "twice"),
    [
        ('"nonce": ', '"nonce": 1, "nonce": '),
        ('"nonce": ', '"n\\u006fnce": 1, "nonce": '),
        ('"nonce": ', '"more": 1, "more": 2, "nonce": '),
        ('"v": 27', '"v": 28, "v": 27'),
        ('"grouping": ', '"grouping": "na", "grouping": '),
        ('"p": "100"', '"p": "99", "p": "100"'),
        ('"p": "100"', '"\\u0070": "99", "p": "100"'),
        ('"tif": ', '"tif": "Ioc", "tif": '),
        ('"c": ', '"c": null, "c": '),
    ],
)
def test_a_key_that_is_named_twice_is_refused(once, twice):
    body = dumps(order(c=CLOID)).decode()
    assert once in body
    assert actions.decode(body.encode())
    assert refusal(body.replace(once, twice).encode()) == "Invalid request: a key is named twice"


def test_a_key_that_is_named_twice_does_not_hide_behind_a_spelling():
    body = dumps({"type": "createSubAccount", "name": "a: b"}).replace(b"a: b", b"a\\u003a b")
    assert actions.decode(body).action.name == "a: b"
    assert refusal(body.replace(b'"name"', b'"name": "c", "name"')) == "Invalid request: a key is named twice"


def test_two_types_are_refused():
    body = dumps({"type": "noop"}).replace(b'"type": ', b'"type": "noop", "type": ')
    assert refusal(body) == "Invalid request: a key is named twice"
    body = dumps({"type": "noop"}).replace(b'"type": ', b'"type": "cancel", "type": ')
    assert refusal(body).startswith("Invalid action: ")


def test_a_key_that_is_null_is_absent():
    plain = actions.decode(dumps(order()))
    assert actions.decode(dumps({**order(c=None), "builder": None})) == plain
    assert actions.decode(dumps(order(), vaultAddress=None, expiresAfter=None)) == plain
    assert actions.decode(dumps(order(t={"trigger": None, **ORDER["t"]}))) == plain


def test_other_keys_around_an_action_are_ignored():
    for more in ({"a": ["nonce: 5"]}, [[[{}]]], 10**4000, 1e300, "\u00e9\\"):
        assert actions.decode(dumps(order(), more=more)) == actions.decode(dumps(order()))
    body = dumps(order(), more=0).replace(b'"more": 0', b'"more": ' + b"9" * 5000)
    assert actions.decode(body) == actions.decode(dumps(order()))


def test_neither_the_order_of_keys_nor_a_texts_spelling_matters():
    body = dumps(ACTIONS["createSubAccount"])
    assert actions.decode(body.replace(b"desk: 2", b"d\\u0065sk: 2")) == actions.decode(body)
    turned = {key: order()[key] for key in ("grouping", "orders", "type")}
    turned["orders"] = [dict(reversed(ORDER.items()))]
    assert actions.decode(dumps(turned)) == actions.decode(dumps(order()))


def test_the_envelope_is_what_may_be_executed():
    decoded = actions.decode(dumps(order(), vaultAddress=AGENT, expiresAfter=7))
    assert decoded.nonce == NONCE
    assert decoded.vault == bytes.fromhex(AGENT[2:])
    assert decoded.expires_ms == 7
    assert decoded.signature == actions.Signature(**SIGNATURE)


@pytest.mark.parametrize("name", ["createSubAccount", "subAccountTransfer", "usdSend", "approveAgent"])
def test_what_is_not_under_the_signature_is_dropped(name):
    sent = signed.envelope(ACTIONS[name])["action"]
    decoded = actions.decode(dumps(sent, vaultAddress=VAULT, expiresAfter=7))
    assert decoded.vault is None
    assert decoded.expires_ms == (None if name in signed.SIGNED_BY_FIELDS else 7)


def test_only_where_none_is_asked_for_may_a_signature_be_absent():
    body = json.dumps({"action": order()}).encode()
    assert refusal(body) == errors.BAD_BODY.message
    decoded = actions.decode(body, signed=False)
    assert (decoded.nonce, decoded.signature) == (0, None)
    assert decoded.action == actions.decode(dumps(order())).action
    body = dumps(order(), signature=None)
    assert actions.decode(body, signed=False) == actions.Envelope(decoded.action, NONCE, None, None, None)
    assert actions.decode(dumps(order()), signed=False) == actions.decode(dumps(order()))


LONGEST = {**signed.STOP, "a": 2**31 - 1, "p": "9" * 15 + ".12345678", "s": "0.12345678", "c": CLOID}


@pytest.mark.parametrize(
    ("action", "key"),
    [
        ({"type": "order", "orders": [LONGEST], "grouping": "na", "builder": {"b": VAULT, "f": 1}}, "orders"),
        (ACTIONS["cancelByCloid"], "cancels"),
        ({"type": "cancel", "cancels": [{"a": 0, "o": 2**63 - 1}]}, "cancels"),
        ({"type": "batchModify", "modifies": [{"oid": CLOID, "order": ORDER}], "a": True}, "modifies"),
    ],
)
def test_a_batch_has_a_bound_and_fits_a_body(action, key):
    assert actions.decode(dumps({**action, key: action[key] * BATCH_MAX}))
    said = refusal(dumps({**action, key: action[key] * (BATCH_MAX + 1)}))
    assert said == f"Invalid action: Expected `array` of length <= {BATCH_MAX} - at `$.{key}`"


def test_a_body_has_a_bound():
    body = dumps(order()).ljust(actions.BODY_BYTES_MAX)
    assert actions.decode(body) == actions.decode(dumps(order()))
    assert refusal(body + b" ") == errors.BAD_BODY.message


@pytest.mark.parametrize(
    ("text", "name", "valid_until_ms"),
    [
        (None, "", 0),
        ("", "", 0),
        ("bot", "bot", 0),
        ("a bot", "a bot", 0),
        ("0123456789abcdef", "0123456789abcdef", 0),
        ("bot valid_until 1700000000000", "bot", 1_700_000_000_000),
        ("0123456789abcdef valid_until 5", "0123456789abcdef", 5),
        (" valid_until 1700000000000", "", 1_700_000_000_000),
        ("b valid_until 5", "b", 5),
        ("b valid_until 05", "b valid_until 05", 0),
    ],
)
def test_the_name_of_an_agent_may_tell_its_end(text, name, valid_until_ms):
    sent = signed.envelope(ACTIONS["approveAgent"])["action"]
    decoded = actions.decode(dumps({**sent, "agentName": text})).action
    assert (decoded.name, decoded.valid_until_ms) == (name, valid_until_ms)


@pytest.mark.parametrize("text", ["0123456789abcdefg", "bot valid_until soon", "bot\x00", "b\u00f6t"])
def test_an_agent_is_not_named_so(text):
    sent = {**signed.envelope(ACTIONS["approveAgent"])["action"], "agentName": text}
    said = "Expected a name of up to 16 ASCII characters - at `$.agentName`"
    assert refusal(dumps(sent)) == f"Invalid action: {said}"
