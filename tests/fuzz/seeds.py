"""What a run begins with: the valid examples of the tests, and what is known to break decoders of its kind.

The words are what a fuzzer would take long to make up: those of the wire, and the edges of its numbers.
"""

import json
from itertools import chain

from engine.follow.records import Kind
from engine.journal.record import MAGIC, SECTOR
from gateway import schema
from gateway.codec import tag
from tests.engine.follow.test_decode import DIFFERENT, EXAMPLES
from tests.engine.follow.test_parse import order_text
from tests.engine.journal.made import SMALLEST, write
from tests.engine.journal.memory_disk import MemoryDisk
from tests.gateway import rim, signed
from tests.gateway.test_exchange import NOW_MS, PLACE, login_body
from tests.gateway.test_front import PIECES
from tests.gateway.test_fuzz_actions import PIECES as JSON_PIECES
from tests.world import ALICE, BOB

FALSE_NUMBERS = (  # that one library or another reads as a number
    "NaN", "Infinity", "-Infinity", "1_000", " 1", "1 ", "1\n", "+1", "-1", "-0", "01", "1.", ".5", "1.0",
    "1e5", "1E-5", "0x1", "１２", "١", "", "1" * 16, "0." + "1" * 9, "1" * 25, "9223372036854775807",
    "9223372036854775808", "18446744073709551616", "1e400",
)  # fmt: skip
FALSE_TEXTS = (
    "\ud800",
    "\ufeff",
    "\x1b[31m",
    "\x7f",
    "\u202e",
    "{",
    "}",
    "{}",
    "../../etc",
    "a" * 2000,
    "\0",
)
FALSE_BODIES = (
    b"", b" ", b"null", b"[]", b"{}", b"0", b'"', b"\xef\xbb\xbf{}", b"\xff", b"[" * 1500, b'{"a":' * 1500,
    b"{" * 64, b"NaN", b"1e400", b'{"type":NaN}', b'{"type":"\\ud800"}', b'{"type":1e999}',
)  # fmt: skip
LIKELY = {
    "user": ALICE, "coin": "BTC", "dex": "", "oid": 1, "startTime": 0, "endTime": 2**53,
    "aggregateByTime": True, "reversed": True, "nSigFigs": 5, "mantissa": 2, "builder": BOB, "id": 1,
    "interval": "1m", "nLevels": 20, "fast": False,
    "req": {"coin": "BTC", "interval": "1m", "startTime": 0, "endTime": 2**53},
}  # fmt: skip


def requests_of(union) -> list[dict]:
    """One request of each kind, with all that it can name."""
    kinds = union.__args__
    return [
        {"type": tag(kind), **{key: LIKELY[key] for key in kind.__struct_encode_fields__ if key in LIKELY}}
        for kind in kinds
    ]


def texts(values) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


def actions() -> list[bytes]:
    """Every action signed, and orders and cancels with each false number and text in them."""
    good = [signed.body(action) for action in signed.ACTIONS.values()]
    more = [signed.body(PLACE, vault=signed.VAULT, expires_ms=signed.EXPIRES_MS), login_body()]
    order = PLACE["orders"][0]
    signature = signed.envelope(PLACE)["signature"]
    false = [
        {"action": {**PLACE, "orders": [{**order, key: text}]}, "nonce": NOW_MS, "signature": signature}
        for text in (*FALSE_NUMBERS, *FALSE_TEXTS)
        for key in ("p", "s", "c")
    ]
    numbers = [
        b'{"action":{"type":"cancel","cancels":[{"a":0,"o":%b}]},"nonce":%d}' % (number.encode(), NOW_MS)
        for number in FALSE_NUMBERS
    ]
    twice = good[0].replace(b'"b": true', b'"b": false, "b": true')
    return [*good, *more, *texts(false), *numbers, twice, *FALSE_BODIES]


def said() -> list[bytes]:
    """What a client says, a message a line."""
    subscriptions = requests_of(schema.Subscription)
    begin = [{"method": "subscribe", "subscription": each} for each in subscriptions]
    end = [{"method": "unsubscribe", "subscription": each} for each in subscriptions]
    posts = [
        {"method": "post", "id": place, "request": {"type": "info", "payload": payload}}
        for place, payload in enumerate(requests_of(schema.InfoRequest))
    ]
    acts = [
        {"method": "post", "id": 2**63 - 1, "request": {"type": "action", "payload": signed.envelope(action)}}
        for action in signed.ACTIONS.values()
    ]
    login = {"method": "login", "id": 1, "request": json.loads(login_body())}
    unsigned = {"method": "post", "id": 3, "request": {"type": "action", "payload": {"action": PLACE}}}
    pairs = [b"\n".join(texts(pair)) for pair in zip(begin, end, strict=True)]
    bad = [*FALSE_BODIES, *texts({"method": text} for text in (*FALSE_NUMBERS, *FALSE_TEXTS))]
    return [
        *pairs,
        *texts(begin + posts + acts),
        b"\n".join(texts([login, unsigned, login])),
        b'{"method":"ping"}',
        *bad,
    ]


def asked() -> list[bytes]:
    requests = texts(requests_of(schema.InfoRequest))
    coins = texts({"type": kind, "coin": text} for kind in ("l2Book", "recentTrades") for text in FALSE_TEXTS)
    return [*requests, *coins, *FALSE_BODIES]


def heads() -> list[bytes]:
    whole = [
        rim.request("POST", "/info", b"{}"),
        rim.request("POST", "/info", b"abc") + rim.request("GET", "/page"),
        rim.request("OPTIONS", "*") + rim.request("HEAD", "/page"),
        rim.request("POST", "/info", b"{}", "HTTP/1.0", connection="keep-alive"),
        rim.request("POST", "/info", expect="100-continue"),
        rim.request("GET", "http://a/page?b=c"),
        rim.handshake(),
        rim.handshake(connection="keep-alive, Upgrade", origin="null") + rim.client_frame(rim.TEXT, b"a"),
        rim.handshake(sec_websocket_version="8"),
        rim.handshake(sec_websocket_key="short"),
        rim.handshake(transfer_encoding="chunked"),
        rim.request("POST", "/info", b"abc", filler="x" * 20_000),
        b"GET /\r\n",
    ]
    return [*whole, b"".join(PIECES)]


def frames() -> list[bytes]:
    one = rim.client_frame
    return [
        one(rim.TEXT, b"hallo") + one(rim.PING, b"x") + one(rim.CLOSE, b"\x03\xe8bye"),
        one(rim.TEXT, "é€😀".encode()) + one(rim.BINARY, b"\xff\xfe"),
        one(rim.TEXT, b"\xc3", fin=False) + one(rim.PING) + one(rim.CONTINUATION, b"\xa9"),
        one(rim.TEXT, b"\xff") + one(rim.TEXT, b"later"),
        one(rim.TEXT, b"a" * 126) + one(rim.TEXT, b"a" * 70_000),
        one(rim.CONTINUATION, b"a"),
        one(rim.TEXT, b"a", fin=False) + one(rim.TEXT, b"b"),
        one(rim.TEXT, b"a", rsv=4) + one(0x3, b"a") + one(0xB, b"a"),
        one(rim.PING, b"a" * 126),
        one(rim.PING, b"a", fin=False),
        one(rim.TEXT, b"a", masked=False),
        one(rim.TEXT, b"", fin=False) * 70,
        one(rim.PING) * 12 + one(rim.TEXT, b"a"),
        one(rim.CLOSE, b"\x03") + one(rim.CLOSE),
        *(
            one(rim.CLOSE, code.to_bytes(2, "big"))
            for code in (0, 999, 1000, 1004, 1005, 1006, 1015, 2999, 3000, 5000)
        ),
        one(rim.CLOSE, b"\x03\xe8\xff"),
        b"\x81\xff\x80" + bytes(7) + rim.MASK + bytes(64),  # a length with its top bit set
        b"\x81\xfe\x00\x01" + rim.MASK + b"a",  # a length that is not in the shortest form
    ]


def lines() -> list[bytes]:
    """What a node writes, and its snapshot."""
    orders = (
        order_text(),
        order_text(side="A", isTrigger=True, triggerPx="5.5", triggerCondition="Price below 5.5"),
    )
    pairs = [f'["{ALICE}",{order}]' for order in orders]
    snapshots = [f'[7,[["BTC",[[{pairs[0]}],[{pairs[1]}]]]]]', f'[["BTC",[[{pairs[0]}],[]]]]', "[7,[]]"]
    diff = EXAMPLES[Kind.DIFFS][0]
    sizes = [diff.replace(b'"0.5"', json.dumps(text).encode()) for text in FALSE_NUMBERS]
    heights = [diff.replace(b":7,", b":%b," % text.encode()) for text in FALSE_NUMBERS]
    return [*chain.from_iterable(EXAMPLES.values()), *(text.encode() for text in snapshots), *sizes, *heights]


def journals() -> list[bytes]:
    """Segments one after the other, each as far as it is written."""
    found = []
    for epochs in ([(3, 1)], [(1,), (2, 5)], [()], [(1, 1, 1), (), (30,)]):
        disk = MemoryDisk()
        for epoch, counts in enumerate(epochs, 1):
            writer = write(disk, *counts, epoch=epoch, segment_bytes=SMALLEST)
            writer.mark()
            writer.drop()
        files = [bytes(file) for _, file in sorted(disk.files.items())]
        found.append(b"".join(file[: last_sector(file)] for file in files))
    return found


def last_sector(file: bytes) -> int:
    """Where the zeros at the end begin, in whole sectors."""
    return -(-len(file.rstrip(b"\0")) // SECTOR) * SECTOR


_JSON_WORDS = [
    *JSON_PIECES, *(json.dumps(text).encode() for text in (*FALSE_NUMBERS, *FALSE_TEXTS) if len(text) < 40),
    *(text.encode() for text in FALSE_NUMBERS if text),
]  # fmt: skip


def keys_of(bodies: list[bytes]) -> list[bytes]:
    """The names and short texts in some JSON texts, as they stand there."""
    found: dict[bytes, None] = {}

    def look(value) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                found[json.dumps(key).encode()] = None
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)
        elif len(text := json.dumps(value).encode()) < 60:
            found[text] = None

    for line in chain.from_iterable(body.split(b"\n") for body in bodies):
        try:
            look(json.loads(line))
        except (ValueError, RecursionError):
            pass
    return list(found)


def _with_keys(bodies: list[bytes]) -> list[bytes]:
    words = [*keys_of(bodies), *_JSON_WORDS]
    return [word for word in dict.fromkeys(words) if 0 < len(word) <= 60]


SEEDS = {
    "exchange": actions(),
    "info": asked(),
    "session": said(),
    "http": heads(),
    "ws": frames(),
    "node": lines(),
    "journal": journals(),
}
WORDS = {
    "exchange": _with_keys(SEEDS["exchange"]),
    "info": _with_keys(SEEDS["info"]),
    "session": _with_keys(SEEDS["session"]),
    "http": [
        *PIECES, *rim.handshake().split(b"\r\n"), b"HTTP/1.1", b"HTTP/0.9", b"chunked", b"+3", b"0x3", b"1_0",
        b", ", b"close",
    ],
    "ws": [rim.MASK, *frames()[5:8], b"\x7f\xff", b"\xfe\x00\x7e", b"\xff" * 8, b"\xed\xa0\x80", b"\xf4\x90"],
    "node": [*DIFFERENT, *keys_of(SEEDS["node"])],
    "journal": [n.to_bytes(8, "little") for n in (MAGIC, 0, 1, 2, 3, 512, 1 << 20, 2**63, 2**64 - 1)],
}  # fmt: skip
WORDS = {
    name: [word for word in dict.fromkeys(words) if 0 < len(word) <= 64] for name, words in WORDS.items()
}
