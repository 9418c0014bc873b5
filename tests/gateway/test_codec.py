"""What is echoed, and what is refused, word for word."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import codec, errors, schema
from gateway.errors import Refusal
from tests.world import ALICE

TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def echoed(sent):
    raw = json.dumps(sent).encode()
    return json.loads(codec.echo(codec.decode_subscription(b"", raw), raw))


@pytest.mark.parametrize(
    ("sent", "more"),
    [
        ({"type": "l2Book", "coin": "BTC"}, {"nSigFigs": None, "mantissa": None}),
        ({"type": "l2Book", "coin": "BTC", "nSigFigs": 5, "mantissa": 2}, {}),
        ({"type": "l2Book", "coin": "BTC", "nSigFigs": None}, {"mantissa": None}),
        ({"type": "l2Book", "coin": "BTC", "fast": True}, {"nSigFigs": None, "mantissa": None}),
        ({"type": "l2Book", "coin": "BTC", "nLevels": 100}, {"nSigFigs": None, "mantissa": None}),
        ({"type": "l2Book", "coin": "BTC", "n_levels": 7}, {"nSigFigs": None, "mantissa": None}),
        ({"type": "trades", "coin": "SOL"}, {}),
        ({"type": "bbo", "coin": "SOL"}, {}),
        ({"type": "l4Book", "coin": "SOL"}, {}),
        ({"type": "allMids"}, {}),
        ({"type": "allMids", "dex": ""}, {}),
        ({"type": "userFills", "user": ALICE}, {"aggregateByTime": False}),
        ({"type": "userFills", "user": ALICE.upper().replace("X", "x"), "aggregateByTime": True}, {}),
        ({"type": "orderUpdates", "user": ALICE}, {}),
        ({"type": "userEvents", "user": ALICE}, {}),
        ({"type": "openOrders", "user": ALICE, "dex": ""}, {}),
        ({"type": "notification", "user": ALICE}, {}),
        ({"type": "trades", "coin": "SOL", "unknown": {"a": [1, 2.5, None, 2**80]}}, {}),
    ],
)
def test_an_echo_is_what_was_sent_and_the_normal_keys(sent, more):
    assert echoed(sent) == {**sent, **more}
    assert list(echoed(sent))[0] == "type"


@given(st.dictionaries(TEXT.filter(lambda key: key not in ("type", "coin", "nSigFigs", "mantissa")), JSON))
def test_no_key_that_a_client_sends_is_lost(extra):
    extra = {k: v for k, v in extra.items() if k not in ("nLevels", "n_levels", "fast")}
    sent = {"type": "l2Book", "coin": "BTC", **extra}
    assert echoed(sent) == {**sent, "nSigFigs": None, "mantissa": None}


def test_what_delivers_the_same_has_the_same_key():
    def key(**sent):
        return codec.decode_subscription(b"", json.dumps(sent).encode()).key

    book = {"type": "l2Book", "coin": "BTC"}
    assert (
        key(**book) == key(**book, nSigFigs=None, nLevels=20, fast=False, other=1) == key(**book, n_levels=20)
    )
    assert key(**book) != key(**book, nSigFigs=5)
    assert key(**book, fast=True) != key(**book, nLevels=5)
    assert key(**book, nSigFigs=5) == key(**book, nSigFigs=5, mantissa=1)
    mixed = "0x" + "Ab" * 20
    assert key(type="userFills", user=mixed) == key(type="userFills", user=mixed.lower())


def refusal(message):
    """The text with which one message is refused."""
    with pytest.raises(Refusal) as caught:
        request = codec.decode(message)
        codec.decode_subscription(message, bytes(request.subscription))
    return str(caught.value)


def subscribe(**subscription):
    return json.dumps({"method": "subscribe", "subscription": subscription}).encode()


UNREADABLE = "Error parsing JSON into valid websocket request: "


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"", UNREADABLE),
        (b"hello", UNREADABLE + "hello"),
        (b"{", UNREADABLE + "("),
        (b'[{"a":1},{"b":2}]', UNREADABLE + '[("a":1),("b":2)]'),
        (b'{"method":"nope","id":7}', UNREADABLE + '{"method":"nope","id":7}'),
        (b'{"method":"post","id":-1,"request":{}}', UNREADABLE + '{"method":"post","id":-1,"request":{}}'),
        (b'{"method":"subscribe"}', UNREADABLE + '{"method":"subscribe"}'),
        (b"\xff{", UNREADABLE + "\ufffd("),
        (subscribe(type="nope"), UNREADABLE + subscribe(type="nope").decode()),
        (subscribe(type="l2Book"), UNREADABLE + subscribe(type="l2Book").decode()),
        (
            subscribe(type="userFills", user="0x1"),
            UNREADABLE + subscribe(type="userFills", user="0x1").decode(),
        ),
        (subscribe(type="candle", coin="BTC"), 'Invalid subscription: {"type": "candle", "coin": "BTC"}'),
        (
            subscribe(type="webData3", user=ALICE),
            f'Invalid subscription: {{"type": "webData3", "user": "{ALICE}"}}',
        ),
    ],
)
def test_what_is_not_a_request_is_told_in_the_wires_words(message, text):
    assert refusal(message) == text


@given(st.binary(max_size=3000) | JSON.map(lambda value: json.dumps(value).encode()))
def test_an_error_never_holds_half_an_object(message):
    try:
        request = codec.decode(message)
        codec.decode_subscription(message, bytes(request.subscription))
    except Refusal as refusal:
        text = json.loads(codec.error(str(refusal)))["data"]
        if "{" in text or "}" in text:
            assert isinstance(json.loads(text[text.index("{") : text.rindex("}") + 1]), dict)
        assert len(text) <= errors.ECHO_BYTES_MAX + 100
    except AttributeError:
        assert not isinstance(request, schema.Subscribe | schema.Unsubscribe)


def test_a_long_message_is_cut():
    message = b'{"method":"' + b"x" * 5000 + b'"}'
    text = refusal(message)
    assert text.startswith(UNREADABLE + '("method":"xxx')
    assert len(text) == len(UNREADABLE) + errors.ECHO_BYTES_MAX


def test_depth_without_end_is_a_refusal():
    for opening in (b"[", b'{"a":', b'{"method":"subscribe","subscription":{"a":'):
        assert refusal(opening * 20_000).startswith(UNREADABLE)


@pytest.mark.parametrize(
    ("parameters", "valid"),
    [
        ({}, True),
        ({"nSigFigs": 2}, True),
        ({"nSigFigs": 5, "mantissa": 5}, True),
        ({"nSigFigs": 5, "mantissa": 3}, False),
        ({"nSigFigs": 4, "mantissa": 2}, False),
        ({"mantissa": 2}, False),
        ({"nSigFigs": 1}, False),
        ({"nSigFigs": 6}, False),
        ({"nLevels": 1}, True),
        ({"nLevels": 100}, True),
        ({"nLevels": 0}, False),
        ({"nLevels": 101}, False),
        ({"n_levels": 101}, False),
        ({"nLevels": 5, "n_levels": 5}, True),
        ({"nLevels": 5, "n_levels": 6}, False),
    ],
)
def test_which_parameters_of_a_book_are_served(parameters, valid):
    raw = json.dumps({"type": "l2Book", "coin": "BTC", **parameters}).encode()
    assert codec.decode_subscription(b"", raw).valid is valid
