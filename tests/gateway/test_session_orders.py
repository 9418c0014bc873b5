"""Orders over a WebSocket: posts in flight, logins, and what is left when the connection ends."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import errors
from gateway.exchange import Login
from gateway.fanout import Client
from gateway.feed import Feed
from gateway.info import Info
from gateway.session import Session, SessionLimits
from shm.codes import Ack as Outcome
from shm.codes import Ask, Command
from shm.codes import Refusal as Code
from tests.gateway import signed
from tests.gateway.test_exchange import BODIES, NOOP, NOW_MS, OTHER, Desk, err, login_body
from tests.gateway.wire import Wire


def message(id, payload):
    """A post of an action, as it is sent."""
    request = {"type": "action", "payload": payload}
    return json.dumps({"method": "post", "id": id, "request": request}).encode()


class Talk:
    """A session with an exchange behind it."""

    def __init__(self, **limits):
        self.desk, self.feed, self.wire = Desk(), Feed(), Wire()
        client = Client(self.wire, self.feed.fanout)
        limits = SessionLimits(**limits)
        self.session = Session(client, self.feed, Info(), limits, self.desk.exchange, "127.0.0.1")

    def say(self, said):
        self.session.receive(said if isinstance(said, bytes) else json.dumps(said).encode(), 0)
        return self.wire.take()

    def post(self, body, id=1):
        """Post an action; what was answered at once."""
        payload = json.loads(body) if isinstance(body, bytes) else body
        return self.say(message(id, payload))

    def log_in(self, id=1, **login):
        return self.say({"method": "login", "id": id, "request": json.loads(login_body(**login))})

    def logged_in(self, **login):
        self.log_in(**login)
        self.turn()
        return self.wire.take()

    def turn(self, *args, **facts):
        """The engine does what it was given."""
        commands = self.desk.engine.answer_all(*args, **facts)
        self.desk.turn()
        return commands


@pytest.fixture
def talk():
    return Talk()


def posted(id, payload, kind="action"):
    return {"channel": "post", "data": {"id": id, "response": {"type": kind, "payload": payload}}}


OK = {"status": "ok", "response": {"type": "default"}}


def test_posts_are_answered_by_their_id(talk):
    assert talk.post(signed.body(NOOP), id=7) == [] and talk.post(signed.body(NOOP), id=5) == []
    talk.turn()
    assert talk.wire.take() == [posted(7, OK), posted(5, OK)]
    assert talk.post(signed.body(signed.ACTIONS["twapOrder with details"]), id=6) == [
        posted(6, err("twapOrder with details is not supported"))
    ]
    assert talk.post({}, id=8) == [posted(8, "422 Unprocessable Entity: " + errors.BAD_BODY.message, "error")]


def test_what_is_unknown_is_an_error_and_no_refusal(talk):
    talk.post(signed.body(NOOP), id=3)
    talk.desk.exchange.lost_engine()
    assert talk.wire.take() == [posted(3, "504 Gateway Timeout: " + errors.UNKNOWN.message, "error")]
    assert talk.post(signed.body(NOOP), id=4) == [posted(4, err(errors.NO_ENGINE))]


def test_so_many_posts_in_flight_and_no_more():
    talk = Talk(posts_max=2)
    talk.post(signed.body(NOOP), id=1), talk.log_in(id=2)
    too_many = [{"channel": "error", "data": "too many pending post requests id=3"}]
    assert talk.post(signed.body(NOOP), id=3) == too_many == talk.log_in(id=3)
    info = {"method": "post", "id": 4, "request": {"type": "info", "payload": {"type": "perpDexs"}}}
    assert talk.say(info)[0]["data"]["response"]["type"] in ("info", "error"), "it waits for nobody"
    assert len(talk.turn()) == 2
    talk.wire.take()
    assert talk.post(signed.body(NOOP), id=5) == []


def test_actions_that_reach_the_engine_are_not_counted_among_the_messages():
    talk = Talk(messages_per_minute_max=2, posts_max=1000)
    for id in range(100):
        assert talk.post(signed.body(NOOP), id=id) == []
    for id in range(2):
        talk.post({}, id=id)
    assert talk.post({}, id=2)[0]["channel"] == "error" and talk.wire.closed


def test_a_login_lets_posts_go_unsigned_on_this_connection_only(talk):
    unsigned = {"action": NOOP}
    (refused,) = talk.post(unsigned)
    assert refused["data"]["response"]["type"] == "error", "not an envelope, without a login"
    assert talk.log_in(id=9) == []
    talk.turn()
    data = {"id": 9, "status": "ok", "user": "0x" + signed.SIGNER.hex(), "validUntil": NOW_MS + 1000}
    assert talk.wire.take() == [{"channel": "login", "data": data}]
    assert talk.post(unsigned) == []
    (command,) = talk.turn()
    assert (command["flags"], command["signer"].tobytes()) == (Ask.SESSION, signed.SIGNER)
    assert talk.wire.take() == [posted(1, OK)]
    talk.desk.now_ms += 1000
    assert talk.post(unsigned) == [posted(1, err(errors.LOGIN_OVER))]
    stranger = Session(
        Client(Wire(), talk.feed.fanout), talk.feed, Info(), SessionLimits(), talk.desk.exchange
    )
    stranger.receive(message(1, unsigned), 0)
    assert len(talk.desk.engine.pop()) == 0


def test_a_refused_login_begins_nothing(talk):
    talk.log_in(id=2)
    talk.turn(Outcome.REFUSED, Code.NONCE_DUPLICATE)
    refused = {"id": 2, **err("Invalid nonce: duplicate nonce")}
    assert talk.wire.take() == [{"channel": "login", "data": refused}]
    assert talk.post({"action": NOOP})[0]["data"]["response"]["type"] == "error"
    talk.log_in(id=3)
    talk.desk.exchange.lost_engine()
    text = "504 Gateway Timeout: " + errors.UNKNOWN.message
    assert talk.wire.take() == [{"channel": "login", "data": {"id": 3, **err(text)}}]


def test_the_end_of_the_connection_cancels_if_the_login_says_so(talk):
    talk.logged_in()
    talk.post({"action": signed.ACTIONS["cancel"]})
    talk.session.closed()
    assert talk.desk.engine.pop()["kind"].tolist() == [Command.CANCEL] * 2 + [Command.CANCEL_ALL]
    quiet = Talk()
    quiet.logged_in(cancels=False)
    quiet.session.closed()
    assert len(quiet.desk.engine.pop()) == 0


def test_answers_that_come_after_the_end_are_dropped(talk):
    talk.post(signed.body(NOOP)), talk.log_in()
    talk.session.closed()
    talk.turn()
    assert talk.wire.take() == []
    assert len(talk.desk.engine.pop()) == 0, "a login that never began leaves nothing"


def test_a_second_login_of_the_same_signer_renews_and_of_another_takes_over(talk):
    talk.logged_in()
    talk.session._login.vaults.add(b"\1" * 20)
    talk.logged_in(valid_until_ms=NOW_MS + 5000)
    assert talk.session._login.valid_until_ms == NOW_MS + 5000
    assert talk.session._login.vaults == {b"\1" * 20}
    assert len(talk.desk.engine.pop()) == 0
    talk.logged_in(wallet=OTHER, cancels=False)
    kinds = talk.desk.engine.pop()
    assert kinds["kind"].tolist() == [Command.CANCEL_ALL] * 2 and set(kinds["flags"] & Ask.SESSION) == {64}
    assert isinstance(talk.session._login, Login) and not talk.session._login.cancels


def test_a_login_that_is_answered_after_the_end_changes_nothing(talk):
    talk.logged_in()
    talk.log_in(wallet=OTHER)
    talk.session.closed()
    assert talk.turn()["kind"].tolist() == [Command.NOOP, Command.CANCEL_ALL]
    assert len(talk.desk.engine.pop()) == 0


def test_a_follower_takes_neither_orders_nor_logins():
    feed, wire = Feed(), Wire()
    session = Session(Client(wire, feed.fanout), feed, Info(), SessionLimits())
    session.receive(b'{"method":"login","id":4,"request":{}}', 0)
    assert wire.take() == [{"channel": "login", "data": {"id": 4, **err(errors.NO_EXCHANGE)}}]
    session.receive(message(4, {}), 0)
    assert wire.take() == [posted(4, err(errors.NO_EXCHANGE))]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["post", "login"]), BODIES), min_size=1, max_size=6))
def test_any_post_gets_one_answer_and_the_session_lives_on(said):
    talk = Talk()
    for method, body in said:
        head = b'{"method":"%b","id":1,"request":' % method.encode()
        inner = body if method == "login" else b'{"type":"action","payload":%b}' % body
        answers = talk.say(head + inner + b"}")
        talk.turn(Outcome.RESTING)
        answers += talk.wire.take()
        assert [answer["channel"] for answer in answers] in (["post"], ["login"], ["error"])
    assert talk.say({"method": "ping"}) == [{"channel": "pong"}]
