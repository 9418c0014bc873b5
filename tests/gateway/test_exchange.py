"""Order entry from a client's bytes to its answer: three kinds of answer, each once, and no other."""

import json

import eth_account
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import errors, exchange
from gateway.exchange import DAY_MS, Exchange, ExchangeLimits, Login
from gateway.world import World as Mapped
from shm.codes import Ack as Outcome
from shm.codes import Ask, Command
from shm.codes import Refusal as Code
from shm.constants import COMMANDS_MAX
from tests.gateway import signed
from tests.gateway.engine import Engine
from tests.world import World

NOW_MS = signed.NONCE
HERE = "127.0.0.1"
ORDER = {"a": 0, "b": True, "p": "100", "s": "0.25", "r": False, "t": {"limit": {"tif": "Gtc"}}}
PLACE = {"type": "order", "orders": [ORDER], "grouping": "na"}
CANCEL = {"type": "cancel", "cancels": [{"a": 0, "o": 1}]}
NOOP = {"type": "noop"}
OK = {"status": "ok", "response": {"type": "default"}}
OTHER = eth_account.Account.from_key("0x" + "42" * 32)


class Desk:
    """An exchange over a world of one market, its engine, and a clock that stands still."""

    def __init__(self, sources="b", **limits):
        self.world = World()
        self.world.market("BTC")
        self.now_ns, self.now_ms = 0, NOW_MS
        self.exchange = Exchange(
            sources, ExchangeLimits(**limits), lambda: self.now_ns, lambda: self.now_ms * 1_000_000
        )
        self.restart()

    def restart(self, epoch=1):
        self.engine = Engine(self.world, epoch)
        self.exchange.adopt(Mapped(self.world.reader()), self.engine.door)

    def act(self, body, login=None):
        """Begin; return the list in which the answer will be."""
        told = []
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.exchange.act(body, HERE, login, told.append)
        return told

    def log_in(self, body):
        told, begun = [], []
        self.exchange.log_in(body, HERE, begun.append, told.append)
        return told, begun

    def turn(self):
        self.exchange.take()
        self.exchange.answer()

    def answered(self, body, outcome=Outcome.DONE, code=0, login=None, **facts):
        """One action from its bytes to its answer."""
        told = self.act(body, login)
        if not told:
            self.engine.answer_all(outcome, code, **facts)
            self.turn()
        (given,) = told
        return json.loads(given) if isinstance(given, bytes) else given


@pytest.fixture
def desk():
    return Desk()


def err(text):
    return {"status": "err", "response": text}


def test_an_order_from_its_signature_to_its_answer(desk):
    told = desk.act(signed.body(PLACE))
    commands = desk.engine.pop()
    (command,) = commands
    assert command["signer"].tobytes() == signed.SIGNER and command["nonce"] == signed.NONCE
    assert (command["kind"], command["market"]) == (Command.ORDER, 0)
    desk.engine.ack(commands, Outcome.RESTING, order=9)
    desk.turn()
    assert told == [], "the world does not show it yet"
    desk.engine.show()
    desk.turn()
    assert json.loads(*told)["response"]["data"] == {"statuses": [{"resting": {"oid": 9}}]}


def test_what_signs_is_what_is_asked_for_and_the_engine_decides(desk):
    for code in (Code.UNKNOWN_SIGNER, Code.NONCE_DUPLICATE, Code.NOT_ALLOWED):
        text = errors.refused(code, signer="0x" + signed.SIGNER.hex())
        assert desk.answered(signed.body(PLACE), Outcome.REFUSED, code) == err(text)
    told = desk.act(signed.body(PLACE, vault=signed.VAULT, wallet=OTHER, expires_ms=signed.EXPIRES_MS))
    (command,) = desk.engine.pop()
    assert command["signer"].tobytes() == bytes.fromhex(OTHER.address[2:])
    assert command["vault"].tobytes() == bytes.fromhex(signed.VAULT[2:])
    assert command["expires_ms"] == signed.EXPIRES_MS and command["flags"] == Ask.HAS_VAULT
    assert told == []


NOT_TEXT = signed.body(NOOP)[:-1] + b',"\xff":1}'  # in a key that is ignored


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", b'{"action":{"type":"noop"}}', b"[" * 9999, NOT_TEXT]
)
def test_what_is_no_envelope_is_told_as_such(desk, body):
    assert desk.answered(body) is errors.BAD_BODY
    assert len(desk.engine.pop()) == 0


def test_an_altered_action_is_somebody_elses(desk):
    envelope = signed.envelope(PLACE)
    envelope["action"]["orders"][0]["s"] = "0.26"
    desk.act(envelope)
    (command,) = desk.engine.pop()
    assert command["signer"].tobytes() != signed.SIGNER


def test_a_signature_that_is_nobodys(desk):
    envelope = signed.envelope(PLACE)
    envelope["signature"]["r"] = "0x0"
    assert desk.answered(envelope) == err("Invalid signature")


@pytest.mark.parametrize("off_ms", [2 * DAY_MS, 2 * DAY_MS + 1, -DAY_MS, -DAY_MS - 1])
def test_a_nonce_far_from_now_is_refused_before_the_engine(desk, off_ms):
    desk.now_ms = signed.NONCE + off_ms
    assert desk.answered(signed.body(PLACE)) == err(errors.refused(Code.NONCE_WINDOW))
    assert len(desk.engine.pop()) == 0
    desk.now_ms += 1 if off_ms < 0 else -1
    if abs(off_ms) in (DAY_MS, 2 * DAY_MS):
        assert desk.answered(signed.body(NOOP)) == OK


def test_what_has_expired_is_refused_before_the_engine(desk):
    desk.now_ms = signed.EXPIRES_MS
    assert desk.answered(signed.body(NOOP, expires_ms=signed.EXPIRES_MS)) == OK
    desk.now_ms += 1
    assert desk.answered(signed.body(NOOP, expires_ms=signed.EXPIRES_MS)) == err(errors.refused(Code.EXPIRED))
    assert len(desk.engine.pop()) == 0


def test_a_new_market_is_learned_when_it_is_first_named(desk):
    order = ORDER | {"a": 1, "s": "0.001"}
    action = PLACE | {"orders": [order]}
    (status,) = desk.answered(signed.body(action))["response"]["data"]["statuses"]
    assert status == {"error": "Unknown asset 1"}
    desk.world.market("ETH", size_decimals=3)
    answer = desk.answered(signed.body(action), Outcome.FILLED, order=3, quantity=1, notional=100_000)
    assert answer["response"]["data"]["statuses"] == [
        {"filled": {"totalSz": "0.001", "avgPx": "100.0", "oid": 3}}
    ]


def test_orders_that_are_refused_in_their_place_still_cost_the_nonce(desk):
    told = desk.act(signed.body(PLACE | {"orders": [ORDER | {"a": 77}]}))
    (command,) = desk.engine.answer_all()
    assert (command["kind"], command["nonce"]) == (Command.NOOP, signed.NONCE)
    desk.turn()
    assert json.loads(*told)["response"]["data"]["statuses"] == [{"error": "Unknown asset 77"}]


def test_a_sub_accounts_address_is_its_masters_and_the_nonces(desk):
    told = desk.act(signed.body(signed.ACTIONS["createSubAccount"]))
    (command,) = desk.engine.answer_all()
    desk.turn()
    address = exchange.sub_account(signed.SIGNER, signed.NONCE)
    assert command["other"].tobytes() == address and len(address) == 20
    assert json.loads(*told)["response"]["data"] == "0x" + address.hex()
    assert address != exchange.sub_account(signed.SIGNER, signed.NONCE + 1)


# --- overload and loss -------------------------------------------------------------------------------------


def fill(desk):
    """Let the engine fall behind, until no order is taken any more."""
    login = Login(signed.SIGNER, NOW_MS + 1000, False)
    batch = {"action": PLACE | {"orders": [ORDER] * 64}}
    while not (told := desk.act(batch, login)):
        pass
    return told


def test_overload_is_refused_and_nothing_of_it_is_executed_but_cancels_pass():
    desk = Desk(actions_per_minute_max=10**9)
    assert [json.loads(given) for given in fill(desk)] == [err(errors.OVERLOADED)]
    assert desk.act(signed.body(CANCEL)) == [], "a cancel still goes in"
    commands = desk.engine.pop()
    assert commands["kind"].tolist() == [Command.ORDER] * (COMMANDS_MAX * 7 // 8) + [Command.CANCEL]
    desk.engine.ack(commands, Outcome.RESTING)
    desk.engine.show()
    desk.turn()
    assert desk.answered(signed.body(NOOP)) == OK


def test_an_answer_that_takes_too_long_is_unknown_once(desk):
    told = desk.act(signed.body(PLACE))
    desk.exchange.tick(ExchangeLimits().answer_ns - 1)
    assert told == []
    desk.exchange.tick(ExchangeLimits().answer_ns)
    desk.engine.answer_all(Outcome.RESTING)
    desk.turn()
    assert told == [errors.UNKNOWN]


def test_a_lost_engine_leaves_what_was_sent_unknown_and_takes_nothing_more(desk):
    told = desk.act(signed.body(PLACE))
    desk.exchange.lost_engine()
    assert told == [errors.UNKNOWN] and not desk.exchange.has_news and not desk.exchange.in_flight
    assert desk.answered(signed.body(PLACE)) == err(errors.NO_ENGINE)
    desk.turn(), desk.exchange.tick(0)
    desk.restart(epoch=2)
    assert len(desk.engine.pop()) == 0, "nothing is sent again"
    assert desk.answered(signed.body(NOOP)) == OK


def test_a_new_world_is_a_new_door_also_when_nobody_said_that_the_old_engine_is_lost(desk):
    told = desk.act(signed.body(PLACE))
    desk.restart(epoch=2)
    assert told == [errors.UNKNOWN]


def test_one_that_ends_takes_nothing_more_but_waits_for_what_it_sent(desk):
    told = desk.act(signed.body(NOOP))
    desk.exchange.stop()
    assert desk.exchange.in_flight
    assert json.loads(*desk.act(signed.body(NOOP))) == err(errors.NO_ENGINE)
    desk.engine.answer_all()
    desk.turn()
    assert json.loads(*told) == OK and not desk.exchange.in_flight


def test_a_network_may_ask_so_much_in_a_minute():
    desk = Desk(actions_per_minute_max=4)
    assert desk.answered(signed.body(NOOP)) == OK
    big = PLACE | {"orders": [ORDER] * 80}  # weighs three
    assert desk.act(signed.body(big)) == []
    assert desk.answered(signed.body(NOOP)) is errors.TOO_MANY_ACTIONS
    other = []
    desk.exchange.act(signed.body(NOOP), "10.0.0.1", None, other.append)
    assert other == [], "another network is not concerned"
    desk.now_ns += exchange.MINUTE_NS
    assert desk.act(signed.body(NOOP)) == []


# --- networks of signatures --------------------------------------------------------------------------------


def test_a_signature_for_the_public_exchange_is_not_taken(desk):
    desk.act(signed.body(PLACE, mainnet=True))
    (command,) = desk.engine.pop()
    assert command["signer"].tobytes() != signed.SIGNER, "read as one of ours it is nobody's"
    send = signed.ACTIONS["usdSend"]
    assert desk.answered(signed.body(send, mainnet=True))["response"].startswith("Invalid hyperliquidChain")


def test_where_both_are_taken_the_engine_is_asked_about_one_after_the_other():
    desk = Desk(sources="ba")
    told = desk.act(signed.body(NOOP, mainnet=True))
    (first,) = desk.engine.answer_all(Outcome.REFUSED, Code.UNKNOWN_SIGNER)
    desk.turn()
    (second,) = desk.engine.answer_all()
    assert first["signer"].tobytes() != signed.SIGNER == second["signer"].tobytes()
    desk.turn()
    assert json.loads(*told) == OK
    text = errors.refused(Code.UNKNOWN_SIGNER, signer="0x" + signed.SIGNER.hex())
    told = desk.act(signed.body(NOOP, mainnet=True))
    for _ in range(2):
        desk.engine.answer_all(Outcome.REFUSED, Code.UNKNOWN_SIGNER)
        desk.turn()
    assert json.loads(*told) == err(text)


# --- logins ------------------------------------------------------------------------------------------------


def login_body(valid_until_ms=NOW_MS + 1000, cancels=True, **more):
    action = {"type": "login", "validUntil": valid_until_ms, "cancelOnDisconnect": cancels}
    return signed.body(action, **more)


def test_a_login_is_judged_by_the_engine_like_any_action(desk):
    told, begun = desk.log_in(login_body())
    (command,) = desk.engine.answer_all()
    assert (command["kind"], command["nonce"], command["flags"]) == (Command.NOOP, signed.NONCE, 0)
    assert begun == []
    desk.turn()
    (login,) = begun
    assert (login.signer, login.valid_until_ms, login.cancels) == (signed.SIGNER, NOW_MS + 1000, True)
    assert json.loads(*told) == {
        "status": "ok", "user": "0x" + signed.SIGNER.hex(), "validUntil": NOW_MS + 1000,
    }  # fmt: skip
    told, begun = desk.log_in(login_body())
    desk.engine.answer_all(Outcome.REFUSED, Code.NONCE_DUPLICATE)
    desk.turn()
    assert json.loads(*told) == err("Invalid nonce: duplicate nonce") and begun == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (login_body(NOW_MS), errors.LOGIN_TIME),
        (login_body(NOW_MS + DAY_MS + 1), errors.LOGIN_TIME),
        (signed.body(NOOP), errors.NOT_A_LOGIN),
    ],
)
def test_what_is_no_login(desk, body, text):
    told, begun = desk.log_in(body)
    assert json.loads(*told) == err(text) and begun == [] and len(desk.engine.pop()) == 0


def test_a_login_is_no_action(desk):
    assert desk.answered(login_body()) == err(errors.LOGIN_ELSEWHERE)
    assert desk.log_in(b"{}")[0] == [errors.BAD_BODY]


def test_in_a_session_actions_need_no_signature(desk):
    login = Login(signed.SIGNER, NOW_MS + 1000, False)
    told = desk.act({"action": PLACE, "vaultAddress": signed.VAULT, "expiresAfter": NOW_MS}, login)
    (command,) = desk.engine.answer_all(Outcome.RESTING, order=1)
    desk.turn()
    assert command["signer"].tobytes() == signed.SIGNER and command["nonce"] == 0
    assert command["flags"] == Ask.SESSION | Ask.HAS_VAULT and command["expires_ms"] == NOW_MS
    assert json.loads(*told)["status"] == "ok"
    desk.act({"action": signed.ACTIONS["createSubAccount"]}, login)
    (command,) = desk.engine.pop()
    assert command["other"].tobytes() == exchange.sub_account(signed.SIGNER, NOW_MS)


def test_in_a_session_a_signature_still_counts_for_who_made_it(desk):
    login = Login(signed.SIGNER, NOW_MS + 1000, False)
    desk.act(signed.body(NOOP, wallet=OTHER), login)
    (command,) = desk.engine.pop()
    assert command["signer"].tobytes() == bytes.fromhex(OTHER.address[2:])
    assert command["flags"] == 0 and command["nonce"] == signed.NONCE


@pytest.mark.parametrize("name", ["usdSend", "approveAgent"])
def test_what_moves_money_or_power_is_always_signed(desk, name):
    login = Login(signed.SIGNER, NOW_MS + 1000, False)
    envelope = signed.envelope(signed.ACTIONS[name])
    del envelope["signature"]
    assert desk.answered(envelope, login=login) == err(errors.MUST_BE_SIGNED.format(name))
    assert desk.answered(signed.body(signed.ACTIONS[name]), login=login) == OK


def test_a_session_ends_with_its_time(desk):
    login = Login(signed.SIGNER, NOW_MS, False)
    assert desk.answered({"action": NOOP}, login=login) == err(errors.LOGIN_OVER)
    login.valid_until_ms += 1
    assert desk.answered({"action": NOOP}, login=login) == OK


def farewells(desk):
    return [(command["vault"].tobytes().hex(), int(command["flags"])) for command in desk.engine.pop()]


def test_who_leaves_has_no_orders_left_if_he_wished_so(desk):
    desk.exchange.left(Login(signed.SIGNER, NOW_MS, False))
    assert farewells(desk) == []
    login = Login(signed.SIGNER, NOW_MS + 9, True)
    desk.answered({"action": PLACE, "vaultAddress": signed.VAULT}, Outcome.RESTING, login=login)
    unknown = "0x" + "77" * 20
    desk.answered(
        {"action": PLACE, "vaultAddress": unknown}, Outcome.REFUSED, Code.UNKNOWN_VAULT, login=login
    )
    desk.exchange.left(login)
    assert farewells(desk) == [
        ("00" * 20, Ask.SESSION),
        (signed.VAULT[2:], Ask.SESSION | Ask.HAS_VAULT),
    ]


def test_a_farewell_waits_for_room_and_for_an_engine_and_is_then_said_once():
    desk = Desk(actions_per_minute_max=10**9)
    fill(desk)
    while not desk.act(signed.body(CANCEL)):
        pass
    desk.exchange.left(Login(signed.SIGNER, NOW_MS, True))
    commands = desk.engine.pop()
    assert Command.CANCEL_ALL not in commands["kind"]
    desk.engine.ack(commands, Outcome.RESTING)
    desk.turn()
    (command,) = desk.engine.pop()
    assert command["kind"] == Command.CANCEL_ALL
    desk.exchange.tick(exchange.END_NS)
    assert len(desk.engine.pop()) == 0, "it is on its way, however long that takes"
    desk.exchange.lost_engine()
    desk.restart(epoch=2)
    (command,) = desk.engine.answer_all()
    assert command["kind"] == Command.CANCEL_ALL
    desk.turn()
    desk.restart(epoch=3)
    assert len(desk.engine.pop()) == 0


# --- whatever is said --------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [*signed.ACTIONS.values(), PLACE, ORDER, signed.VAULT, NOW_MS, "a", "", None, 0, -1, 2**70, 1.5, True, []]
)
KEYS = st.sampled_from(
    "action nonce signature vaultAddress expiresAfter type orders grouping a b p s r t c r v".split()
)
ANY = st.recursive(WORDS, lambda inner: st.dictionaries(KEYS, inner, max_size=6), max_leaves=10)
ENVELOPES = st.fixed_dictionaries(
    {
        "action": ANY,
        "nonce": st.just(NOW_MS) | WORDS,
        "signature": st.just(signed.envelope(NOOP)["signature"]) | WORDS,
    },
    optional={"vaultAddress": WORDS, "expiresAfter": WORDS},
)
BODIES = st.binary(max_size=99) | (ANY | ENVELOPES).map(lambda it: json.dumps(it).encode())
REFUSED = st.sampled_from([0, *(code for code in Code if code != Code.NONE)])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(BODIES, st.booleans(), REFUSED), min_size=1, max_size=6))
def test_whatever_is_posted_gets_one_of_the_known_answers(said):
    desk = Desk()
    login = Login(signed.SIGNER, NOW_MS + 1000, True)
    for body, in_session, code in said:
        told = desk.act(body, login if in_session else None)
        commands = desk.engine.pop()
        assert bool(told) == (len(commands) == 0), "what was answered was not sent"
        outcome = Outcome.REFUSED if code else Outcome.RESTING
        desk.engine.ack(commands, outcome, code)
        desk.engine.show()
        desk.turn()
        (given,) = told
        if isinstance(given, bytes):
            answer = json.loads(given)
            assert answer["status"] == "ok" or isinstance(answer["response"], str)
        else:
            assert given is errors.BAD_BODY
