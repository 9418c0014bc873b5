"""What is fed to which decoder, and what may come of it: whatever else happens is a finding.

  exchange  the body of a POST /exchange, signed and of a login, up to the command and back to its answer
  info      the body of a POST /info, of an exchange and of one who follows a node
  session   what a client says over a WebSocket, a message a line
  http      what a connection says: requests, upgrades, and whatever follows them
  ws        what follows an upgrade: frames
  node      a line of a node's logs, or a snapshot: by the kernels and by the general reading
  journal   the files of a journal, as they are and with every checksum made right

An outcome is documented if it is an answer in the wire's words, a status, a close code, or the one exception
that the decoder names. What was accepted must be what was said: it is worked out once more by something that
is not ours (the standard library, h11, websockets), or by the other of two readings.
"""

import json
import re
import zlib
from decimal import Decimal

import msgspec
import numpy as np
from websockets.frames import Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from engine.follow import decode, parse, snapshot
from engine.follow.records import Corrupt as BadLine
from engine.follow.records import Kind
from engine.journal import reader as journal_reader
from engine.journal import record
from engine.journal.reader import Corrupt, Reader, path_of
from engine.journal.record import HEADER, SECTOR
from gateway import actions, codec, errors, http, signing, ws
from gateway.errors import Answer, Refusal
from gateway.exchange import Login
from gateway.fanout import Client
from gateway.feed import Feed
from gateway.info import Info
from gateway.session import Session, SessionLimits
from gateway.world import World as Mapped
from shm import codes
from shm.codes import Ack as Outcome
from shm.codes import Refusal as Code
from shm.constants import BATCH_MAX, PERP_DECIMALS
from shm.layout import COMMAND, NO_MARKET
from tests.engine.follow import node_text
from tests.engine.follow.test_decode import assert_agrees
from tests.engine.journal.damage import Still
from tests.engine.journal.made import DIRECTORY
from tests.exchange_world import Exchange as ExchangeWorld
from tests.fuzz.pipe import Rim, cut
from tests.gateway import rim, signed
from tests.gateway.test_exchange import NOW_MS, Desk
from tests.gateway.test_front import agrees_with_another
from tests.gateway.wire import Wire
from tests.world import ALICE, BOB, World

HERE = "127.0.0.1"
NEVER = 10**12
PLACES = 5  # of the quantities of the market there is
DIGITS_MAX = 99  # of a number; what has more is ignored by all


def _words() -> re.Pattern[str]:
    """All that a client may be told, with anything where a text has a blank to fill."""
    texts = [text for name, text in vars(errors).items() if name.isupper() and isinstance(text, str)]
    texts += [answer.message for answer in vars(errors).values() if isinstance(answer, Answer)]
    texts += errors.REFUSALS.values()
    echoes = errors.already_subscribed, errors.already_unsubscribed, errors.invalid_subscription
    texts += [echo(b"{}") for echo in echoes] + [errors.not_a_request(b"{}", whole=True)]
    patterns = (re.sub(r"\\\{[a-z]*\\\}", ".*", re.escape(text)) for text in texts)
    return re.compile("|".join(patterns), re.DOTALL)


WORDS = _words()
TOLD_MAX = 2 * errors.ECHO_BYTES_MAX  # characters of one text


def check_words(text: str) -> None:
    assert WORDS.fullmatch(text), f"in nobody's words: {text!r}"
    assert len(text) < TOLD_MAX, f"{len(text)} characters"


def check_json(raw: bytes):
    """What is sent is JSON that everyone reads alike, in one line and without control characters."""
    assert not raw or min(raw) >= 0x20, raw

    return json.loads(raw.decode(), object_pairs_hook=once, parse_constant=fail)


def once(pairs: list[tuple]) -> dict:
    assert len(dict(pairs)) == len(pairs), "a key twice"
    return dict(pairs)


def fail(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


# --- POST /exchange -----------------------------------------------------------------------------------------


class ExchangeBody:
    BYTES_MAX, IS_JSON = 8192, True
    CODES = [0, *(code for code in Code if code != Code.NONE)]

    def __init__(self):
        self.desk = Desk(actions_per_minute_max=NEVER)

    def feed(self, data: bytes) -> None:
        data = bytes(data)
        for login in (None, Login(signed.SIGNER, NOW_MS + 1000, False)):
            told = self.desk.act(data, login)
            commands = self.desk.engine.pop(BATCH_MAX)
            assert bool(told) == (len(commands) == 0), "what was answered was not sent"
            if len(commands):
                check_accepted(data, commands, login)
            code = self.said_of(data, commands)
            self.desk.engine.ack(commands, Outcome.REFUSED if code else Outcome.RESTING, code)
            self.desk.engine.show()
            self.desk.turn()
            (given,) = told
            check_answer(given)

    def said_of(self, data: bytes, commands: np.ndarray) -> int:
        """What the engine says: any code, but of post-only orders where there are orders."""
        code = self.CODES[zlib.crc32(data) % len(self.CODES)]
        are_orders = np.isin(commands["kind"], (codes.Command.ORDER, codes.Command.MODIFY)).all()
        return 0 if code == Code.POST_ONLY and not are_orders else code


def check_answer(given: bytes | Answer) -> None:
    if isinstance(given, Answer):
        assert given is errors.BAD_BODY
        return
    answer = check_json(given)
    if answer["status"] == "err":
        check_words(answer["response"])
        return
    assert answer["status"] == "ok"
    found = answer["response"].get("data")
    each = found if isinstance(found, dict) else {}
    for status in each.get("statuses", [each.get("status")]):
        if isinstance(status, dict) and "error" in status:
            check_words(status["error"])


def check_accepted(data: bytes, commands: np.ndarray, login: Login | None) -> None:
    """What was sent to the engine is what was said, and nothing that was said twice or by nobody."""
    envelope = actions.decode(data, signed=login is None)
    said = said_once(data)
    action = json.loads(msgspec.json.encode(envelope.action))
    assert without_nulls(action) == without_nulls(said["action"]), "another action than was said"
    if envelope.signature is not None:
        r, s = int(envelope.signature.r, 16), int(envelope.signature.s, 16)
        assert 0 < r < signing.ORDER_OF_GROUP and 0 < s <= signing.ORDER_OF_GROUP // 2
        login = None
    assert commands["count"].tolist() == [len(commands)] * len(commands)
    assert commands["place"].tolist() == [*range(len(commands))]
    assert set(commands["nonce"].tolist()) == {said["nonce"] if login is None else 0}
    assert (np.isin(commands["market"], (NO_MARKET, 0)) | np.isin(commands["kind"], MARKET_UNSEEN)).all()
    if isinstance(envelope.action, actions.PlaceOrders) and envelope.action.grouping == "na":
        check_orders(action["orders"], commands)


MARKET_UNSEEN = [  # the engine looks at the market's number
    codes.Command.CANCEL, codes.Command.CANCEL_CLOID, codes.Command.UPDATE_LEVERAGE,
    codes.Command.ISOLATED_MARGIN, codes.Command.TWAP_CANCEL,
]  # fmt: skip


def check_orders(orders: list[dict], commands: np.ndarray) -> None:
    exact = [
        (price, quantity)
        for order in orders
        if order["a"] == 0
        and (price := units_of(order["p"], PERP_DECIMALS - PLACES)) is not None
        and (quantity := units_of(order["s"], PLACES)) is not None
        and units_of(order["t"].get("trigger", {}).get("triggerPx", "0"), PERP_DECIMALS - PLACES) is not None
    ]
    sent = commands[commands["kind"] == codes.Command.ORDER]
    assert list(zip(sent["price"].tolist(), sent["quantity"].tolist(), strict=True)) == exact


def units_of(text: str, places: int) -> int | None:
    """By the standard library; None: it is finer than a unit, or more than a word holds."""
    value = Decimal(text).scaleb(places)
    return int(value) if value == int(value) and value < 2**63 else None


def said_once(data: bytes):
    """The JSON, in which no key stands twice."""
    whole = {"parse_int": lambda text: int(text) if len(text) < DIGITS_MAX else text}
    return json.loads(data, object_pairs_hook=once, **whole)


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


# --- POST /info, WebSocket messages -------------------------------------------------------------------------


def of_an_exchange() -> World:
    world = ExchangeWorld()
    world.market("BTC", PLACES, max_leverage=40, price="60000")
    with world.block() as block:
        block.funds(ALICE, cash=1_000_000_000, used=150_000_000)
        block.position(ALICE, "BTC", "0.01", 600_000_000, 20, used=150_000_000)
        block.money(ALICE, codes.Ledger.DEPOSIT, 1_000_000_000)
        fill(block)
    return world


def of_a_node() -> World:
    world = World()
    with world.block() as block:
        world.market("@107", codes.MarketKind.SPOT, size_decimals=2)
        world.market("xyz:NVDA", codes.MarketKind.BUILDER, size_decimals=3)
        fill(block)
    return world


def fill(block) -> None:
    block.open("BTC", ALICE, "B", "59999", "0.01", 1, cloid="0x" + "12" * 16)
    block.open("BTC", BOB, "A", "60001", "0.01", 2)
    block.status("BTC", ALICE, "B", "1", "1", 3, "badAloPxRejected")
    block.trade("BTC", ALICE, BOB, "B", "60001", "0.1", tid=5)


class InfoBody:
    BYTES_MAX, IS_JSON = 4096, True

    def __init__(self):
        self.kept = of_an_exchange(), of_a_node()
        self.infos = [Info(), Info()]
        for info, world in zip(self.infos, self.kept, strict=True):
            info.world = Mapped(world.reader())

    def feed(self, data: bytes) -> None:
        data = bytes(data)
        for info in self.infos:
            try:
                answer = info.answer(data)
            except Refusal as refusal:
                assert str(refusal) == errors.BAD_BODY.message
                answer = None
            said = []
            info.post(data, lambda *given, said=said: said.append(given))
            ((kind, payload),) = said
            found = check_json(payload)
            assert kind == ("error" if answer is None else "info")
            if answer is not None:
                assert found == {"type": json.loads(data)["type"], "data": check_json(answer)}


class Conversation:
    BYTES_MAX, IS_JSON = 8192, True
    DIRECT = ("error", "subscriptionResponse", "pong", "post", "login")
    MESSAGES_MAX = 12

    def __init__(self):
        self.world, self.desk = of_an_exchange(), Desk(actions_per_minute_max=NEVER)
        self.fed, self.info = Feed(), Info()
        self.info.world = Mapped(self.world.reader())
        self.fed.adopt(self.info.world, 0)

    def feed(self, data: bytes) -> None:
        wire = Wire()
        client = Client(wire, self.fed.fanout)
        spoken = Session(client, self.fed, self.info, SessionLimits(), self.desk.exchange, HERE)
        for message in [*bytes(data).split(b"\n")[: self.MESSAGES_MAX], b'{"method":"ping"}']:
            spoken.receive(message, 0)
            self.turn(message)
            answers = wire.take()
            direct = [answer for answer in answers if answer["channel"] in self.DIRECT]
            assert len(direct) == 1, f"{len(direct)} answers to {message!r}"
            check_direct(*direct)
        assert answers[-1] == {"channel": "pong"} and not wire.closed, "the session lives on"
        spoken.closed()
        self.turn(b"")
        assert self.fed.fanout.streams == {} and not self.fed.pending, "who leaves leaves nothing"

    def turn(self, message: bytes) -> None:
        """The engine does what it was given, or refuses it; the feed tells what there is."""
        while len(commands := self.desk.engine.pop(BATCH_MAX)):
            is_refused = zlib.crc32(message) % 4 == 0
            code = Code.NONCE_DUPLICATE if is_refused else 0
            self.desk.engine.ack(commands, Outcome.REFUSED if is_refused else Outcome.RESTING, code)
            self.desk.engine.show()
            self.desk.turn()
        self.fed.turn(0)


def check_direct(answer: dict) -> None:
    """The answer to a message, in the wire's words."""
    if answer["channel"] == "error":
        check_words(answer["data"])
    elif answer["channel"] == "post":
        response = answer["data"]["response"]
        assert response["type"] in ("info", "action", "error")
        if response["type"] == "error":
            assert re.match(r"(422|429|503|504) [A-Z][A-Za-z ]+: ", response["payload"])
            check_words(response["payload"].partition(": ")[2])
        elif response["type"] == "action":
            check_answer(msgspec.json.encode(response["payload"]))
    elif answer["channel"] == "login":
        if answer["data"]["status"] == "err":
            check_words(re.sub(r"^(422|429|503|504) [A-Z][A-Za-z ]+: ", "", answer["data"]["response"]))
        else:
            assert answer["data"].keys() == {"id", "status", "user", "validUntil"}


# --- a connection -------------------------------------------------------------------------------------------


PIECES_MAX = 64  # and a few of a long text


def sizes(data: bytes) -> tuple[int, int]:
    """Of the pieces in which it comes: all at once, and some bytes at a time."""
    return len(data) + 1, 1 + max(zlib.crc32(data) % 13, len(data) // PIECES_MAX)


STATUSES = {100, 101, 200, 400, 403, 404, 405, 411, 413, 422, 426, 431}
HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [ -~]+\r\n((?:[a-zA-Z-]+: [ -~]*\r\n)*)\r\n")


class Requests:
    BYTES_MAX, IS_JSON = 32 * 1024, False

    def __init__(self):
        self.rim = Rim()

    def feed(self, data: bytes) -> None:
        data = bytes(data)
        whole, pieces = (self.statuses(data, size) for size in sizes(data))
        assert self.rim.faults == [], self.rim.faults
        is_early = (400, "close") in (whole[-1:] + pieces[-1:]) or whole[-1:] != pieces[-1:]
        assert whole == pieces or (is_early and whole[:-1] == pieces[: len(whole) - 1])
        agrees_with_another(data)

    def statuses(self, data: bytes, size: int) -> list[tuple]:
        """Of all answers, each with its body; of a WebSocket that there was one."""
        left, found = self.rim.talk(cut(data, size)), []
        while left:
            head = HEAD.match(left)
            assert head, f"no answer: {left[:200]!r}"
            status, left = int(head[1]), left[head.end() :]
            assert status in STATUSES
            headers = dict(line.lower().split(b": ", 1) for line in head[2].splitlines())
            if status == 101:
                server_frames(left)
                return [*found, (101, "")]
            if status == 100:
                continue
            length = int(headers[b"content-length"])
            body = b"" if left.startswith(b"HTTP/1.1 ") and length else left[:length]  # of a HEAD: none
            left = left[len(body) :]
            found.append((status, headers.get(b"connection", b"").decode()))
        return found


class Frames:
    """The oracle of what a client said is another implementation, which is as strict, but not as early: a
    frame is looked at before the one in front of it is acted on, so that what is wrong with the last one, or
    follows a CLOSE, may be all that is answered.
    """

    BYTES_MAX, IS_JSON = 16 * 1024, False

    def __init__(self):
        self.rim = Rim()
        self.handshake = rim.handshake()

    def feed(self, data: bytes) -> None:
        data = bytes(data)
        limits = self.rim.front.limits
        said, is_violated, closes = heard(data, limits)
        _, lacks = in_shortest_form(data)
        may_close = is_violated or closes or lacks and heard(data + b"\1" * min(lacks, LACKS_MAX), limits)[1]
        for size in sizes(data):
            sent = self.rim.talk([self.handshake, *cut(data, size)])
            assert self.rim.faults == [], self.rim.faults
            head = HEAD.match(sent)
            assert head and int(head[1]) == 101
            frames = server_frames(sent[head.end() :])
            echoed = [(opcode, payload) for opcode, payload in frames if opcode in (rim.TEXT, rim.BINARY)]
            codes_ = [int.from_bytes(payload[:2], "big") for opcode, payload in frames if opcode == rim.CLOSE]
            assert echoed == said[: len(echoed)], "another message than was said"
            assert len(codes_) <= 1 and set(codes_) <= {*CLOSE_CODES, *closes}
            assert codes_ or not is_violated, "a violation was let through"
            assert codes_ and may_close or (echoed, codes_) == (said, closes), "a message was lost"


HEAD_MAX = 14  # bytes of a frame's head
LACKS_MAX = 1 << 17
CLOSE_CODES = {ws.PROTOCOL_ERROR, ws.BAD_TEXT, ws.POLICY, ws.TOO_BIG}


def heard(data: bytes, limits: http.Limits) -> tuple[list[tuple[int, bytes]], bool, list[int]]:
    """What another implementation hears: whole messages, whether a rule is broken, the client's close code.

    A length that is not in the shortest form, which it lets through, is cut off before it sees it.
    """
    other = Protocol(SERVER, state=OPEN, max_size=limits.message_bytes_max)
    shortest, _ = in_shortest_form(data)
    other.receive_data(data[:shortest])
    found, parts, kind, controls = [], [], 0, 0
    for frame in other.events_received():
        if frame.opcode in (Opcode.PING, Opcode.PONG):
            controls += 1
            if controls > limits.control_frames_per_second_max:
                return found, True, []
        elif frame.opcode == Opcode.CLOSE:
            code = int.from_bytes(bytes(frame.data[:2]), "big") if frame.data else 1000
            return found, not ws._may_be_received(code), [code]
        else:
            kind = kind if parts else int(frame.opcode)
            parts.append(bytes(frame.data))
            if len(parts) > limits.fragments_max or (
                kind == rim.TEXT and not is_text(b"".join(parts), frame.fin)
            ):
                return found, True, []
            if frame.fin:
                found.append((kind, b"".join(parts)))
                parts = []
    return found, shortest < len(data) or other.parser_exc is not None, []


def in_shortest_form(data: bytes) -> tuple[int, int]:
    """Up to where all frames say their lengths in as few bytes as they can; how much the last one lacks."""
    at = 0
    while at + 2 <= len(data):
        length = data[at + 1] & 0x7F
        size, least = {126: (2, 126), 127: (8, 1 << 16)}.get(length, (0, 0))
        if at + 2 + size > len(data):
            return len(data), HEAD_MAX
        if size:
            length = int.from_bytes(data[at + 2 : at + 2 + size], "big")
        if length < least:
            return at, 0
        at += 2 + size + (4 if data[at + 1] & 0x80 else 0) + length
    return len(data), max(at - len(data), 0)


def is_text(raw: bytes, is_whole: bool) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return not is_whole and error.reason == "unexpected end of data"
    return True


def server_frames(raw: bytes) -> list[tuple[int, bytes]]:
    """Whole, unmasked frames, in the shortest form."""
    found = []
    while raw:
        first, length, at = raw[0], raw[1], 2
        assert first & 0xF0 == 0x80 and first & 0x0F in (rim.TEXT, rim.BINARY, rim.CLOSE, rim.PING, rim.PONG)
        if length >= 126:
            at = 4 if length == 126 else 10
            length = int.from_bytes(raw[2:at], "big")
            assert length >= (126 if at == 4 else 1 << 16)
        assert len(raw) >= at + length, "half a frame"
        found.append((first & 0x0F, raw[at : at + length]))
        raw = raw[at + length :]
    return found


# --- what a node writes -------------------------------------------------------------------------------------


class NodeText:
    """One text, as each of the kinds. Tables are made anew before they are full: that is tested elsewhere."""

    BYTES_MAX, IS_JSON = 4096, True
    RUNS_OF_TABLES = 1 << 9

    def __init__(self):
        self.runs = 0

    def feed(self, data: bytes) -> None:
        if self.runs % self.RUNS_OF_TABLES == 0:
            self.parsers = [
                parse.Parser(kind, node_text.shared(names=1 << 13, markets=1 << 12)) for kind in Kind
            ]
        self.runs += 1
        text = bytes(data)
        self.feed_snapshot(text)
        for parser in self.parsers:
            assert_agrees(parser, text)
            for line in text.split(b"\n"):
                self.feed_line(parser, line)

    def feed_line(self, parser: parse.Parser, line: bytes) -> None:
        try:
            height, stamp, records = decode.line(parser.kind, line, parser.tables)
            assert 0 <= height < 2**63 and 0 <= stamp < 2**63 and (records["height"] == height).all()
        except BadLine as error:
            assert len(error.reason) <= 200
            market = decode.only_market(line, parser.tables)
            assert market is None or market.encode() in line

    def feed_snapshot(self, text: bytes) -> None:
        """The kernel's reading is the general one's."""
        tables = self.parsers[0].tables
        found = []
        for read in (snapshot.parse_snapshot, lambda *given: snapshot._generally(*given, 0)):
            try:
                height, orders, rows = read(text, tables, 1)
                found.append((height, orders.tobytes(), rows))
            except BadLine:
                found.append(None)
        assert found[0] == found[1], "two readings of a snapshot"


# --- the journal --------------------------------------------------------------------------------------------


class Journal:
    """Files one after the other: each begins where the first record of a segment stands."""

    BYTES_MAX, IS_JSON = 32 * 1024, False

    def feed(self, data: bytes) -> None:
        files = segments_of(bytes(data))
        self.read(files)
        self.read(made_right(files))

    def read(self, files: list[bytes]) -> None:
        disk = Still({path_of(DIRECTORY, number): file for number, file in enumerate(files, 1)})
        everything, end = read(disk, only_durable=False)
        durable, _ = read(disk, only_durable=True)
        highest = max((highest_of(file) for file in files), default=-1)
        if end is not None:
            assert end.torn == "" or end.torn in journal_reader._WHAT.values()
            assert max(end.durable, highest) < end.sequence, "what was durable is missing, and nobody says so"
            assert len(everything) == end.sequence - 1
        assert everything[: len(durable)].tobytes() == durable.tobytes()
        places = {command.tobytes() for command in everything}
        assert all(any(command in file for file in files) for command in places), "never written"


def read(disk: Still, only_durable: bool):
    """All commands up to the end, which is None where the journal is said to be damaged."""
    reader, pieces = Reader(DIRECTORY, only_durable=only_durable, disk=disk), []
    most = sum(map(len, disk._texts)) // SECTOR + 2
    end = None
    try:
        while len(piece := reader.read()):
            pieces.append(piece)
            assert len(pieces) <= most, "it reads in a circle"
        end = reader.end()
    except Corrupt as error:
        assert str(DIRECTORY) in str(error)
    finally:
        reader.close()
    return (np.concatenate(pieces) if pieces else np.zeros(0, COMMAND)), end


def segments_of(data: bytes) -> list[bytes]:
    """Cut before each sector that says that it begins a segment, but the first."""
    starts = [
        at
        for at in range(SECTOR, len(data) - SECTOR + 1, SECTOR)
        if data[at : at + 8] == record.MAGIC.to_bytes(8, "little") and data[at + 12] == record.Kind.SEGMENT
    ]
    edges = [0, *starts, len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def highest_of(file: bytes) -> int:
    sectors = np.frombuffer(file[: len(file) // SECTOR * SECTOR], np.uint8).copy()
    return int(record.highest_durable(sectors.view(HEADER), sectors.view(np.uint64), len(sectors)))


def made_right(files: list[bytes]) -> list[bytes]:
    """With the checksums, the chain and the commands' sequences that go with what the headers say."""
    made, chain = [], record.NO_CHAIN
    for file in files:
        sectors = np.frombuffer(file[: len(file) // SECTOR * SECTOR], np.uint8).copy()
        at = 0
        while at < len(sectors):
            header = sectors[at : at + HEADER.itemsize].view(HEADER)[0]
            length = int(header["length"])
            is_whole = 0 < length <= len(sectors) - at and length % SECTOR == 0
            if header["magic"] != record.MAGIC or not is_whole:
                at += SECTOR
                continue
            piece = sectors[at : at + length]
            count, most = int(header["count"]), (length - HEADER.itemsize) // COMMAND.itemsize
            if header["kind"] == record.Kind.COMMANDS and 0 < count <= most:
                held = piece[HEADER.itemsize :][: count * COMMAND.itemsize]
                held.view(COMMAND)["sequence"] = np.arange(count) + header["sequence"]
                chain = record.link(chain, held)
            header["chain"] = np.frombuffer(chain, np.uint8)
            body = piece[HEADER.itemsize :].view(np.uint64)
            header["body_crc"] = record.checked(body, record._FULL) ^ record._FULL
            header["crc"] = record.header_crc(piece[: HEADER.itemsize].view(np.uint64))
            at += length
        made.append(sectors.tobytes())
    return made


TARGETS = {
    "exchange": ExchangeBody,
    "info": InfoBody,
    "session": Conversation,
    "http": Requests,
    "ws": Frames,
    "node": NodeText,
    "journal": Journal,
}


# --- are findings found? ------------------------------------------------------------------------------------


BROKEN = {  # of each target: what of its decoder is made worse
    "exchange": (actions, "_names_a_key_twice", lambda body, raw, sent, action: False),
    "info": (codec, "_NOT_JSON", (msgspec.MsgspecError,)),
    "session": (errors, "quoted", lambda message, whole: message.decode()),
    "http": (http, "_joined", lambda pairs, modern: dict(pairs)),
    "ws": (ws.Connection, "_whole_text", lambda self, payload: self._deliver(ws.TEXT, payload)),
    "node": (decode, "whole", lambda value: value),
    "journal": (Reader, "_judge", lambda self: False),
}


def break_decoder(target: str) -> None:
    where, name, worse = BROKEN[target]
    assert hasattr(where, name)
    setattr(where, name, worse)
