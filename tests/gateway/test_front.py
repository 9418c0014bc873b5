"""HTTP is answered in order and within its limits, whatever a client sends and however it cuts it."""

import asyncio
import time

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http import HttpAnswer, HttpRefusal, Limits, Phase, RequestReader, encode
from tests.gateway.rim import CLOSE, PATIENCE, TEXT, Client, client_frame, handshake, request, serving

CORS = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "*",
    "vary": "origin, access-control-request-method, access-control-request-headers",
}


def refused(raw: bytes, **limits) -> int:
    """Send bytes that are no request; return the status, after which the connection must have ended."""
    with serving(**limits) as served, Client(served.port) as client:
        client.send(raw)
        status, headers, _ = client.answer()
        assert headers["connection"] == "close"
        assert CORS.items() <= headers.items()
        assert client.to_the_end() == b""
        assert (served.application.asked, served.faults) == ([], [])
        assert served.front.counts.requests_refused == 1
        return status


# what is answered


def test_a_connection_is_kept_for_the_next_request():
    with serving() as served, Client(served.port) as client:
        for i in range(5):
            assert client.post(b'{"i":%d}' % i) == (200, b'{"i":%d}' % i)
        assert served.front.counts.accepted == 1


def test_pipelined_requests_are_answered_in_order():
    with serving() as served, Client(served.port) as client:
        client.send(b"".join(request("POST", "/info", b"%d" % i) for i in range(50)))
        assert [client.answer()[2] for _ in range(50)] == [b"%d" % i for i in range(50)]


def test_an_awaited_answer_holds_back_those_behind_it():
    with serving() as served, Client(served.port) as client:
        application = served.application
        paths = ["/later", "/info", "/later", "/fault"]
        client.send(b"".join(request("POST", path, b"%d" % i) for i, path in enumerate(paths)))
        for count in (1, 2):
            served.until(lambda count=count: len(application.waiting) == count)
            served.call(lambda: application.waiting[-1].set_result(None))
        assert [client.answer()[2] for _ in paths] == [b"0", b"1", b"2", b"null"]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_requests_survive_any_cut(size):
    raw = request("POST", "/info", b"first") + request("POST", "/info", b"second")
    with serving() as served, Client(served.port) as client:
        client.send(*[raw[at : at + size] for at in range(0, len(raw), size)])
        assert [client.answer()[2] for _ in range(2)] == [b"first", b"second"]


def test_every_answer_says_that_any_page_may_read_it():
    with serving() as served, Client(served.port) as client:
        for method, path in [("POST", "/info"), ("GET", "/nowhere"), ("PUT", "/info"), ("OPTIONS", "/info")]:
            client.send(request(method, path))
            assert CORS.items() <= client.answer()[1].items()


def test_json_says_that_it_is_and_text_too():
    with serving() as served, Client(served.port) as client:
        client.send(request("POST", "/info", b"{}") + request("POST", "/exchange", b"{"))
        status, headers, _ = client.answer()
        assert (status, headers["content-type"]) == (200, "application/json")
        status, headers, body = client.answer()
        assert (status, headers["content-type"], body) == (422, "text/plain", b"cannot read it")


def test_head_is_get_without_the_body():
    with serving() as served, Client(served.port) as client:
        client.send(request("HEAD", "/page"))
        status, headers = client.head()
        assert (status, headers["content-length"]) == (200, "10")
        client.send(request("GET", "/page?x=1"))
        assert client.answer()[2] == b'{"page":1}', "and no byte of a body came before"
        assert served.application.asked == [("/page", b"")] * 2


def test_options_is_answered_for_what_exists():
    with serving() as served, Client(served.port) as client:
        client.send(request("OPTIONS", "/info") + request("OPTIONS", "*") + request("OPTIONS", "/nowhere"))
        status, headers, _ = client.answer()
        assert (status, headers["allow"]) == (200, "options, post")
        assert headers["access-control-allow-methods"] == headers["access-control-allow-headers"] == "*"
        assert [client.answer()[0] for _ in range(2)] == [200, 404]
        assert served.application.asked == []


def test_unknown_paths_and_methods_are_told_apart():
    with serving() as served, Client(served.port) as client:
        client.send(request("POST", "/nowhere", b"{}"), request("GET", "/info"), request("HEAD", "/info"))
        assert client.answer()[0] == 404
        status, headers, _ = client.answer()
        assert (status, headers["allow"]) == (405, "options, post")
        assert client.head()[0] == 405
        assert served.application.asked == []


def test_an_exception_is_answered_without_its_text_and_told_to_us():
    with serving() as served, Client(served.port) as client:
        client.send(request("POST", "/fault"))
        status, headers, body = client.answer()
        assert (status, headers["content-type"], body) == (500, "application/json", b"null")
        assert client.to_the_end() == b""
        assert [str(fault) for fault in served.faults] == ["secret"]
        with Client(served.port) as other:
            assert other.post(b"1") == (200, b"1")


def test_an_exception_in_what_is_awaited_is_a_fault_too():
    with serving() as served, Client(served.port) as client:
        client.send(request("POST", "/later"))
        served.until(lambda: served.application.waiting)
        served.call(lambda: served.application.waiting[0].set_exception(RuntimeError("secret")))
        assert client.answer()[::2] == (500, b"null")
        assert [str(fault) for fault in served.faults] == ["secret"]


@pytest.mark.parametrize("nonsense", [None, "text", HttpAnswer(b"", headers=(("x", "é"),))])
def test_an_answer_that_is_none_is_a_fault(nonsense):
    with serving() as served, Client(served.port) as client:
        served.application.answer = lambda path, body, request: nonsense
        client.send(request("POST", "/info"))
        assert client.answer()[::2] == (500, b"null")
        assert len(served.faults) == 1


def test_an_awaited_answer_may_take_longer_than_a_request_may():
    with (
        serving(head_seconds=0.05, body_seconds=0.05, idle_seconds=0.05) as served,
        Client(served.port) as client,
    ):
        client.send(request("POST", "/later", b"x")[:-1])
        served.until(lambda: served.front.counts.open == 1)
        client.send(b"x")
        served.until(lambda: served.application.waiting)
        time.sleep(0.3)
        served.call(lambda: served.application.waiting[0].set_result(None))
        assert client.answer()[::2] == (200, b"x")


def test_who_goes_away_cancels_only_its_own_answer():
    with serving() as served, Client(served.port) as stays:
        waiting = served.application.waiting
        with Client(served.port) as leaves:
            leaves.send(request("POST", "/later", b"leaves"))
            served.until(lambda: len(waiting) == 1)
            stays.send(request("POST", "/later", b"stays"))
            served.until(lambda: len(waiting) == 2)
        served.until(lambda: waiting[0].cancelled())
        served.call(lambda: waiting[1].set_result(None))
        assert stays.answer()[2] == b"stays"
        assert served.faults == []


def test_a_client_asking_ahead_is_read_only_so_far():
    with serving(body_bytes_max=1000, head_bytes_max=1000) as served, Client(served.port) as client:
        client.socket.settimeout(0.2)
        client.send(request("POST", "/later"))
        served.until(lambda: served.application.waiting)
        many = request("POST", "/info", b"x" * 500) * 20_000
        with pytest.raises(TimeoutError):
            client.send(many)  # more than the kernel's buffers hold, so it can only end by being read
        client.socket.settimeout(PATIENCE)
        served.call(lambda: served.application.waiting[0].set_result(None))
        assert client.answer()[0] == 200
        assert client.answer()[2] == b"x" * 500


def test_answers_nobody_reads_stop_the_reading():
    with (
        serving(answer_backlog_bytes_max=10_000, idle_seconds=0.3) as served,
        Client(served.port, 4096) as client,
    ):
        client.socket.settimeout(0.1)
        with pytest.raises((TimeoutError, ConnectionResetError, BrokenPipeError)):
            while True:
                client.send(request("POST", "/info", b"x" * 5000) * 100)
        served.until(lambda: served.front.counts.open == 0)  # and in the end it is cut off


# how a connection ends


@pytest.mark.parametrize("raw", [
    request("POST", "/info", b"x", connection="close"),
    request("POST", "/info", b"x", connection="foo, CLOSE"),
    request("POST", "/info", b"x", version="HTTP/1.0"),
    b"POST /info HTTP/1.0\r\ncontent-length: 1\r\n\r\nx",
])  # fmt: skip
def test_the_last_answer_says_so(raw):
    with serving() as served, Client(served.port) as client:
        client.send(raw + request("POST", "/info", b"never"))
        status, headers, body = client.answer()
        assert (status, headers["connection"], body) == (200, "close", b"x")
        assert client.to_the_end() == b""
        assert served.application.asked == [("/info", b"x")]


def test_http_1_0_may_ask_to_stay():
    with serving() as served, Client(served.port) as client:
        for _ in range(2):
            client.send(request("POST", "/info", b"x", version="HTTP/1.0", connection="keep-alive"))
            assert client.answer()[1]["connection"] == "keep-alive"


def test_a_large_last_answer_is_read_to_its_end():
    with serving(linger_seconds=0.05) as served, Client(served.port, 4096) as client:
        served.application.answer = lambda path, body, request: HttpAnswer(b"x" * 3_000_000)
        client.send(request("POST", "/info", connection="close"))
        time.sleep(0.3)  # much longer than we linger, once all is read
        assert client.answer()[2] == b"x" * 3_000_000
        assert client.to_the_end() == b""


def test_a_client_that_does_not_close_after_the_last_answer_is_cut_off():
    with serving(linger_seconds=0.05) as served, Client(served.port) as client:
        client.send(request("POST", "/info", connection="close"))
        assert client.answer()[0] == 200
        served.until(lambda: served.front.counts.open == 0)


def test_an_idle_connection_ends_in_silence():
    with serving(idle_seconds=0.05, linger_seconds=0.05) as served, Client(served.port) as client:
        assert client.post()[0] == 200
        assert client.to_the_end() == b""
        served.until(lambda: served.front.counts.open == 0)


def test_a_connection_that_says_nothing_ends_in_silence():
    with serving(head_seconds=0.05) as served, Client(served.port) as client:
        assert client.to_the_end() == b""
        assert served.front.counts.requests_refused == 0


# what is refused


def test_a_slow_head_is_refused():
    assert refused(b"POST /info HTTP/1.1\r\nhost: te", head_seconds=0.05) == 408


def test_a_slow_head_is_refused_on_a_kept_connection_too():
    with serving(head_seconds=0.05) as served, Client(served.port) as client:
        assert client.post()[0] == 200
        client.send(b"P")
        assert client.answer()[0] == 408


def test_a_head_in_drips_gets_no_more_time():
    with serving(head_seconds=0.3) as served, Client(served.port) as client:
        client.socket.settimeout(0.02)
        raw, at = request("POST", "/info", filler="x" * 5000), 0
        while not client.unread:
            client.send(raw[at : at + 1])
            at += 1
            try:
                client.more()
            except TimeoutError:
                continue
        assert client.head()[0] == 408
        assert at < len(raw)


def test_a_slow_body_is_refused():
    assert refused(request("POST", "/info", b"x" * 10)[:-1], body_seconds=0.05) == 408


def test_a_slow_body_behind_another_request_is_refused():
    with serving(body_seconds=0.05) as served, Client(served.port) as client:
        client.send(request("POST", "/info", b"x" * 10) * 2 + request("POST", "/info", b"x" * 10)[:-1])
        assert [client.answer()[0] for _ in range(3)] == [200, 200, 408]


def test_a_head_too_large_is_refused_whole_or_not():
    assert refused(request("GET", "/page", filler="x" * 16_384)) == 431
    assert refused(b"GET /page HTTP/1.1\r\nfiller: " + b"x" * 16_384) == 431
    assert refused(b"x" * 20_000) == 431


def test_too_many_headers_are_refused():
    with serving() as served, Client(served.port) as client:
        client.send(request("GET", "/page", **{f"h{i}": "x" for i in range(98)}))
        assert client.answer()[0] == 200
    assert refused(request("GET", "/page", **{f"h{i}": "x" for i in range(99)})) == 431


def test_a_body_too_large_is_refused_before_it_comes():
    with serving() as served, Client(served.port) as client:
        assert client.post(b"x" * 65_536) == (200, b"x" * 65_536)
    assert refused(b"POST /info HTTP/1.1\r\nhost: a\r\ncontent-length: 65537\r\n\r\n") == 413
    assert refused(b"POST /info HTTP/1.1\r\nhost: a\r\ncontent-length: " + b"0" * 19 + b"1\r\n\r\n") == 413


def test_a_refusal_can_be_read_though_the_body_still_comes():
    with serving() as served, Client(served.port) as client:
        client.send(b"POST /info HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1_000_000)
        assert client.answer()[0] == 413
        assert client.to_the_end() == b""


HEAD = b"POST /info HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize("raw", [
    HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    HEAD + b"Content-Length: +5\r\n\r\nhello",
    HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    HEAD + b"Content-Length: -5\r\n\r\nhello",
    HEAD + b"Content-Length:\r\n\r\n",
    HEAD + b"Content-Length : 5\r\n\r\nhello",
    HEAD + b"X: a\r\n Content-Length: 5\r\n\r\nhello",
    HEAD + b"X: a\nContent-Length: 5\r\n\r\nhello",
    HEAD + b"X: a\rContent-Length: 5\r\n\r\nhello",
    HEAD + b"X: a\0b\r\n\r\n",
    HEAD + b": empty\r\n\r\n",
    b"POST /info HTTP/1.1\nHost: a\n\n",
    b"POST /info HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"POST /info HTTP/1.1\r\nContent-Length: 0\r\n\r\n",  # Host is missing
    b"POST info HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /page\r\n\r\n",  # HTTP/0.9
    b"GET /page\r\nHost: a\r\n\r\n",
    b"GET /page\nHost: a\n\n",
    b"\nGET /page HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\rGET /page HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /page\r\n",  # and no more
    b"GET /page HTTP/0.9\r\nHost: a\r\n\r\n",
    b"GET /page HTTP/1.2\r\nHost: a\r\n\r\n",
    b"GET /page HTTP/2.0\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"NONSENSE /info HTTP/1.1\r\nHost: a\r\n\r\n",
])  # fmt: skip
def test_what_two_servers_might_read_differently_is_refused(raw):
    assert refused(raw) == 400


def test_a_chunked_body_is_refused():
    assert refused(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n") == 411


def test_a_whole_url_and_empty_lines_are_taken():
    with serving() as served, Client(served.port) as client:
        client.send(b"\r\n\r\n" + request("GET", "http://test/page?a=b") + b"\r\n" + request("GET", "/page"))
        assert [client.answer()[0] for _ in range(2)] == [200, 200]


def test_an_offer_to_upgrade_to_something_else_is_ignored():
    with serving() as served, Client(served.port) as client:
        answer = client.post(b"{}", connection="Upgrade, HTTP2-Settings", upgrade="h2c", http2_settings="AAM")
        assert answer == (200, b"{}")
        assert client.post(b"1") == (200, b"1")


def test_a_client_that_waits_to_be_told_is_told_to_send_its_body():
    with serving() as served, Client(served.port) as client:
        raw = request("POST", "/info", b"body", expect="100-continue")
        client.send(raw[:-4])
        assert client.exactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(raw[-4:])
        assert client.answer()[::2] == (200, b"body")
        client.send(raw)
        assert client.answer()[::2] == (200, b"body"), "it did not wait, so it is not told"
    too_large = b"POST /info HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 65537\r\n\r\n"
    assert refused(too_large) == 413


# upgrading


@pytest.mark.parametrize("headers", [
    {"connection": "keep-alive, Upgrade"},  # Firefox
    {"connection": "UPGRADE", "upgrade": "WebSocket"},
    {"origin": "https://anywhere.example"},
    {"sec_websocket_extensions": "permessage-deflate; client_max_window_bits"},
])  # fmt: skip
def test_a_websocket_is_opened(headers):
    with serving() as served, Client(served.port) as client:
        status, answered = client.upgrade(**headers)
        assert status == 101
        assert "sec-websocket-extensions" not in answered
        client.send(client_frame(TEXT, b"hello"))
        assert client.frame() == (TEXT, b"hello")
        assert client.unread == b""


@pytest.mark.parametrize(("headers", "status"), [
    ({"sec_websocket_version": "8"}, 426),
    ({"sec_websocket_version": "14"}, 426),
    ({"sec_websocket_key": "short"}, 400),
    ({"sec_websocket_key": "AAAAAAAAAAAAAAAAAAAAAAAA"}, 400),
    ({"sec_websocket_key": "é"}, 400),
    ({"upgrade": "h2c"}, 426),
    ({"connection": "keep-alive"}, 426),
    ({"version": "HTTP/1.0"}, 400),
])  # fmt: skip
def test_a_bad_handshake_is_refused_and_may_be_mended(headers, status):
    with serving() as served, Client(served.port) as client:
        client.send(handshake(**{"connection": "keep-alive, upgrade", **headers}))
        assert client.answer()[0] == status
        if "version" not in headers:
            client.websocket()
        assert served.faults == []


def test_a_handshake_has_no_body():
    with serving() as served, Client(served.port) as client:
        client.send(handshake().replace(b"content-length: 0", b"content-length: 2") + b"{}")
        assert client.answer()[0] == 400
        assert served.application.talks == []


def test_only_get_opens_a_websocket():
    with serving() as served, Client(served.port) as client:
        client.send(handshake().replace(b"GET", b"POST", 1))
        assert client.answer()[0] == 405
        client.send(request("GET", "/ws"))
        status, headers, _ = client.answer()
        assert (status, headers["sec-websocket-version"]) == (426, "13")
        client.send(handshake().replace(b"/ws", b"/page", 1))
        assert client.answer()[0] == 200


def test_pages_of_other_origins_can_be_kept_out():
    with serving(origins={"https://Ours.example"}) as served, Client(served.port) as client:
        assert client.upgrade(origin="https://theirs.example")[0] == 403
    with serving(origins={"https://Ours.example"}) as served, Client(served.port) as client:
        assert client.upgrade(origin="https://ours.example")[0] == 101
    with serving(origins=set()) as served, Client(served.port) as client:
        assert client.upgrade()[0] == 101, "a program is not a page: it names no origin"


def test_an_upgrade_may_follow_requests_and_be_pipelined():
    with serving() as served, Client(served.port) as client:
        client.send(request("POST", "/later", b"1"), handshake() + client_frame(TEXT, b"hello"))
        served.until(lambda: served.application.waiting)
        served.call(lambda: served.application.waiting[0].set_result(None))
        assert client.answer()[2] == b"1"
        assert client.head()[0] == 101
        assert client.frame() == (TEXT, b"hello")


# draining


def test_draining_answers_what_is_in_flight_and_says_goodbye():
    with (
        serving() as served,
        Client(served.port) as asks,
        Client(served.port) as idle,
        Client(served.port) as ws,
    ):
        ws.websocket()
        assert idle.post()[0] == 200
        asks.send(request("POST", "/later", b"late") + request("POST", "/info", b"never"))
        served.until(lambda: served.application.waiting)
        drained = []
        task = served.call(lambda: served.loop.create_task(served.front.drain(PATIENCE)))
        served.call(lambda: task.add_done_callback(drained.append))
        assert ws.said_close() == (1001, b"going away")
        assert idle.to_the_end() == b""
        with pytest.raises(ConnectionRefusedError):
            Client(served.port)
        assert not drained
        served.call(lambda: served.application.waiting[0].set_result(None))
        status, headers, body = asks.answer()
        assert (status, headers["connection"], body) == (200, "close", b"late")
        assert asks.to_the_end() == b""
        asks.socket.close(), idle.socket.close(), ws.socket.close()
        served.until(lambda: drained)
        assert served.application.asked[-1] == ("/later", b"late")


def test_no_websocket_is_opened_while_draining():
    with serving() as served, Client(served.port) as client:
        client.send(handshake()[:-1])
        served.until(lambda: served.front.counts.open == 1)
        served.call(lambda: asyncio.sleep(0.05))  # for the half head to be read
        served.call(lambda: setattr(served.front, "draining", True))
        client.send(handshake()[-1:])
        status, headers, body = client.answer()
        assert (status, headers["connection"], body) == (503, "close", b"null")
        assert served.application.talks == []


def test_draining_ends_at_its_deadline():
    with serving() as served, Client(served.port) as asks, Client(served.port) as ws:
        ws.websocket()
        asks.send(request("POST", "/later"))
        served.until(lambda: served.application.waiting)
        served.call(lambda: served.front.drain(0.05))
        assert served.front.counts.open == 0
        assert served.application.waiting[0].cancelled()
        assert ws.frame()[0] == CLOSE
        assert asks.to_the_end() == b""


# the reader alone


def read(raw: bytes, cuts: list[int]) -> tuple[list[tuple], int | None]:
    """Feed `raw` cut at `cuts`; return the requests and the status of the refusal, if any."""
    reader, requests = RequestReader(Limits(), "peer"), []
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    try:
        for start, end in zip(edges, edges[1:], strict=False):
            reader.feed(raw[start:end])
            while (found := reader.next()) is not None:
                requests.append((found.method, found.path, found.body, dict(found.headers), found.keep_alive))
    except HttpRefusal as refusal:
        return requests, refusal.status
    assert reader.phase is not Phase.IDLE or reader.buffered_bytes == 0
    return requests, None


PIECES = [
    b"POST /info HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"GET /page HTTP/1.1\r\n", b"Host: a\r\n",
    b"host: b\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Connection: close\r\n",
    b"Transfer-Encoding: chunked\r\n", b"\r\n", b"\n", b"\r", b"abc", b" ", b":", b"\0",
    b"Upgrade: x\r\nConnection: upgrade\r\n", b"0\r\n\r\n",
]  # fmt: skip
raws = st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join)


def test_two_requests_survive_every_cut():
    raw = request("POST", "/info", b"\r\n\r\n", filler="x" * 50) + request("GET", "/page") + b"\r\n"
    whole = read(raw, [])
    assert len(whole[0]) == 2
    assert read(raw, list(range(len(raw)))) == whole
    for cut in range(len(raw)):
        assert read(raw, [cut]) == whole


@settings(max_examples=300)
@given(raws, st.lists(st.integers(0, 400), max_size=6))
def test_a_request_does_not_depend_on_the_cuts(raw, cuts):
    whole, pieces = read(raw, []), read(raw, cuts)
    assert pieces[0] == whole[0]
    assert pieces[1] == whole[1] or 400 in (
        pieces[1],
        whole[1],
    )  # a first line may be refused before its head


def agrees_with_another(raw):
    """Whatever we read as the first request, h11 reads as the same request with the same body.

    Only the empty lines before it, which HTTP advises a server to skip, h11 does not.
    """
    requests, _ = read(raw, [])
    if not requests:
        return
    method, _, body, headers, _ = requests[0]
    other = h11.Connection(h11.SERVER)
    while raw.startswith(b"\r\n"):
        raw = raw[2:]
    other.receive_data(raw)
    event = other.next_event()
    assert isinstance(event, h11.Request)
    assert event.method.decode() == method
    joined: dict[bytes, bytes] = {}
    for name, text in event.headers:
        joined[name] = joined[name] + b", " + text if name in joined else text
    assert joined == headers
    taken = b""
    while isinstance(event := other.next_event(), h11.Data):
        taken += bytes(event.data)
    assert taken == body


@settings(max_examples=300)
@given(raws)
def test_what_we_take_is_what_another_parser_reads(raw):
    agrees_with_another(raw)


def test_an_answer_is_read_by_another_parser():
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    client.receive_data(encode(HttpAnswer(b"{}", 503, headers=(("retry-after", "1"),)), keep_alive=True))
    response = client.next_event()
    assert isinstance(response, h11.Response)
    assert (response.status_code, dict(response.headers)[b"retry-after"]) == (503, b"1")
    assert bytes(client.next_event().data) == b"{}"
    assert isinstance(client.next_event(), h11.EndOfMessage)
