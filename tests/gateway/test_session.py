"""Conversations: what one message gets for an answer, whatever it is."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import errors
from gateway.fanout import Client
from gateway.feed import Feed
from gateway.info import Info
from gateway.session import MINUTE_NS, Session, SessionLimits
from gateway.world import World as Mapped
from shm import codes
from tests.gateway.wire import Wire
from tests.world import ALICE, BOB, World

BOOK = {"type": "l2Book", "coin": "BTC"}
ECHO = BOOK | {"nSigFigs": None, "mantissa": None}


class Talk:
    """A session over a world with one market."""

    def __init__(self, mapped=True, **limits):
        self.world = World()
        with self.world.block() as block:
            block.open("BTC", ALICE, "B", "100", "1", 1)
        self.feed, self.info, self.wire = Feed(), Info(), Wire()
        if mapped:
            self.adopt()
        self.session = Session(
            Client(self.wire, self.feed.fanout), self.feed, self.info, SessionLimits(**limits)
        )

    def adopt(self):
        self.info.world = Mapped(self.world.reader())
        self.feed.adopt(self.info.world, 0)

    def say(self, message, now_ns=0):
        """Say one message, bytes or JSON; return what came back."""
        if not isinstance(message, bytes):
            message = json.dumps(message).encode()
        self.session.receive(message, now_ns)
        return self.wire.take()

    def subscribe(self, **subscription):
        return self.say({"method": "subscribe", "subscription": subscription})

    def unsubscribe(self, **subscription):
        return self.say({"method": "unsubscribe", "subscription": subscription})


@pytest.fixture
def talk():
    return Talk()


def acknowledged(method, subscription):
    return {"channel": "subscriptionResponse", "data": {"method": method, "subscription": subscription}}


def error(text):
    return {"channel": "error", "data": text}


def test_ping_is_pong_without_data(talk):
    assert talk.say({"method": "ping"}) == [{"channel": "pong"}]


def test_the_answer_to_subscribe_comes_before_the_first_message(talk):
    answer, first = talk.subscribe(**BOOK)
    assert answer == acknowledged("subscribe", ECHO)
    assert first["channel"] == "l2Book"
    assert first["data"]["levels"] == [[{"px": "100.0", "sz": "1.0", "n": 1}], []]


def test_twice_is_told_and_so_is_what_was_not_held(talk):
    talk.subscribe(**BOOK)
    text = json.dumps(BOOK)[:-1] + ',"nSigFigs":null,"mantissa":null}'
    assert talk.subscribe(**BOOK) == [error(f"Already subscribed: {text}")]
    assert talk.unsubscribe(**BOOK) == [acknowledged("unsubscribe", ECHO)]
    assert talk.unsubscribe(**BOOK) == [error(f"Already unsubscribed: {text}")]
    assert talk.feed.fanout.streams == {}


def test_an_unknown_coin_is_an_invalid_subscription(talk):
    (refused,) = talk.subscribe(type="trades", coin="NOPE")
    assert refused == error('Invalid subscription: {"type": "trades", "coin": "NOPE"}')
    (refused,) = talk.subscribe(**BOOK, nSigFigs=9)
    assert refused["data"].startswith("Invalid subscription: {")


def test_what_cannot_be_known_yet_is_neither_granted_nor_refused():
    """A world without a height may still come to know the coin; one with a snapshot and no line does not."""
    early = Talk(mapped=False)
    early.world.status["state"], early.world.status["height"] = codes.Feed.WAITING, 0
    early.adopt()
    assert early.subscribe(type="trades", coin="NOPE") == []
    founded = Talk()
    founded.world.status["state"] = codes.Feed.WAITING
    (refused,) = founded.subscribe(type="trades", coin="NOPE")
    assert refused["data"].startswith("Invalid subscription: {")


def test_users_and_subscriptions_are_bounded():
    talk = Talk(users_max=2, subscriptions_max=4)
    users = [f"0x{i:040x}" for i in range(5)]
    for user in users[:2]:
        assert len(talk.subscribe(type="orderUpdates", user=user)) == 1
    assert talk.subscribe(type="userEvents", user=users[0].upper().replace("X", "x"))[0]["channel"] != "error"
    assert talk.subscribe(type="userEvents", user=users[2]) == [
        error("Cannot track more than 2 total users.")
    ]
    assert talk.subscribe(**BOOK)[0]["channel"] == "subscriptionResponse"
    assert talk.subscribe(type="allMids") == [error(errors.TOO_MANY_SUBSCRIPTIONS.format(4))]
    talk.unsubscribe(type="orderUpdates", user=users[1])
    assert talk.subscribe(type="userEvents", user=users[2])[0]["channel"] == "subscriptionResponse"


def test_more_messages_than_a_minute_may_have_end_it():
    talk = Talk(messages_per_minute_max=3)
    for _ in range(3):
        assert talk.say({"method": "ping"}, MINUTE_NS) == [{"channel": "pong"}]
    assert talk.say({"method": "ping"}, 2 * MINUTE_NS) == [{"channel": "pong"}]
    for _ in range(2):
        talk.say({"method": "ping"}, 2 * MINUTE_NS)
    (refused,) = talk.say({"method": "ping"}, 2 * MINUTE_NS + 1)
    assert refused["channel"] == "error"
    assert talk.wire.closed_with[0] == errors.CLOSE_POLICY


def test_post_answers_with_the_body_of_info(talk):
    post = {"method": "post", "id": 256, "request": {"type": "info", "payload": {"type": "allMids"}}}
    payload = {"type": "allMids", "data": {}}
    assert talk.say(post) == [
        {"channel": "post", "data": {"id": 256, "response": {"type": "info", "payload": payload}}}
    ]


def test_post_of_what_is_not_a_request_and_of_an_action(talk):
    post = {"method": "post", "id": 1, "request": {"type": "info", "payload": {"type": "nope"}}}
    (answer,) = talk.say(post)
    assert answer["data"]["response"] == {
        "type": "error",
        "payload": "422 Unprocessable Entity: Failed to deserialize the JSON body into the target type",
    }
    post["request"] = {"type": "action", "payload": {"action": {"type": "order"}}}
    (answer,) = talk.say(post)
    assert answer["data"]["response"]["type"] == "action"
    assert answer["data"]["response"]["payload"] == {"status": "err", "response": errors.NO_EXCHANGE}


def test_subscriptions_wait_for_a_world():
    talk = Talk(mapped=False)
    assert talk.subscribe(**BOOK) == []
    assert talk.subscribe(type="trades", coin="NOPE") == []
    assert talk.subscribe(**BOOK)[0]["data"].startswith("Already subscribed: ")
    assert talk.subscribe(**BOOK, nLevels=0)[0]["data"].startswith("Invalid subscription: ")
    assert talk.session.waiting
    talk.adopt()
    talk.session.retry(0)
    answer, first, refused = talk.wire.take()
    assert answer == acknowledged("subscribe", ECHO)
    assert first["channel"] == "l2Book"
    assert refused["data"].startswith("Invalid subscription: ")
    assert not talk.session.waiting


def test_a_waiting_subscription_can_be_taken_back():
    talk = Talk(mapped=False)
    talk.subscribe(type="userFills", user=ALICE)
    (answer,) = talk.unsubscribe(type="userFills", user=ALICE)
    assert answer["channel"] == "subscriptionResponse"
    talk.adopt()
    talk.session.retry(0)
    assert talk.wire.take() == []


def test_who_leaves_leaves_nothing(talk):
    for kind in ("orderUpdates", "userFills", "userEvents", "openOrders", "notification"):
        talk.subscribe(type=kind, user=BOB)
    for kind in ("l2Book", "bbo", "trades", "l4Book"):
        talk.subscribe(type=kind, coin="BTC")
    talk.session.closed()
    assert talk.feed.fanout.streams == {}
    assert not talk.feed.pending
    with talk.world.block() as block:
        block.open("BTC", BOB, "A", "101", "1", 2)
    talk.feed.turn(0)
    assert talk.wire.take() == []


WORDS = (
    "subscribe unsubscribe post ping info action l2Book bbo trades l4Book allMids userFills openOrders "
    "orderStatus BTC NOPE"
).split()
VALUES = st.sampled_from([*WORDS, "", ALICE, BOB, None, 0, 5, -1, 2**64, 1.5, True, [], {}])
KEYS = st.sampled_from(
    "method subscription type coin user id request payload nSigFigs mantissa nLevels n_levels fast dex oid "
    "startTime aggregateByTime".split()
)
LIKELY = st.recursive(VALUES, lambda inner: st.dictionaries(KEYS, inner, max_size=5), max_leaves=12)
SUBSCRIPTIONS = st.fixed_dictionaries(
    {"method": st.sampled_from(["subscribe", "unsubscribe"]), "subscription": st.dictionaries(KEYS, VALUES)}
)
POSTS = st.fixed_dictionaries(
    {
        "method": st.just("post"),
        "id": VALUES,
        "request": st.fixed_dictionaries({"type": VALUES, "payload": st.dictionaries(KEYS, VALUES)}),
    }
)
ANSWERS = ("error", "subscriptionResponse", "pong", "post")
MESSAGES = st.binary(max_size=200) | (LIKELY | SUBSCRIPTIONS | POSTS).map(lambda it: json.dumps(it).encode())


@settings(max_examples=300, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=8))
def test_any_bytes_get_an_answer_and_the_session_lives_on(said):
    talk = Talk()
    for message in said:
        answers = [
            it
            for it in talk.say(message)
            if it["channel"] in ("error", "subscriptionResponse", "pong", "post")
        ]
        assert len(answers) == 1
    assert talk.say({"method": "ping"}) == [{"channel": "pong"}]
    assert not talk.wire.closed
