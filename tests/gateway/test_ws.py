"""WebSocket rules are kept against clients that break them, and one client's breach stays its own."""

import struct

import pytest
import websockets.sync.client

from gateway import ws
from tests.gateway.rim import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PATIENCE,
    PING,
    PONG,
    TEXT,
    Client,
    client_frame,
    handshake,
    serving,
)

BAD_UTF8 = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"


def refusal(*frames: bytes, **limits) -> tuple[int, bytes, list[bytes]]:
    """Send frames; return the code and reason of the CLOSE, and the messages that were received."""
    with serving(**limits) as served, Client(served.port) as client:
        client.websocket().send(b"".join(frames))
        code, reason = client.said_close()
        served.until(lambda: served.application.talks[0].closed_count == 1)
        assert served.faults == []
        return code, reason, served.application.talks[0].received


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535])
def test_a_text_comes_back_whole(size):
    with serving() as served, Client(served.port) as client:
        client.websocket().send(client_frame(TEXT, b"x" * size))
        assert client.frame() == (TEXT, b"x" * size)


def test_another_implementation_gets_on_with_it():
    with serving() as served:
        with websockets.sync.client.connect(f"ws://127.0.0.1:{served.port}/ws") as client:
            for message in ["", "grüße", "x" * 65_536, b"\xff" * 300, ["in ", "three ", "parts"]]:
                client.send(message)
                assert client.recv() == ("".join(message) if isinstance(message, list) else message)
            assert client.ping("payload").wait(PATIENCE)
            client.close(3001, "done")
        assert (client.close_code, client.close_reason) == (3001, "")
        served.until(lambda: served.application.talks[0].closed_count == 1)


@pytest.mark.parametrize(("size", "head"), [
    (0, b"\x81\x00"), (125, b"\x81\x7d"), (126, b"\x81\x7e\x00\x7e"), (65_535, b"\x81\x7e\xff\xff"),
    (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
])  # fmt: skip
def test_a_frame_says_its_length_in_the_shortest_form(size, head):
    assert ws.frame(b"x" * size) == head + b"x" * size


def test_bytes_that_come_with_the_handshake_are_not_lost():
    with serving() as served, Client(served.port) as client:
        long = client_frame(TEXT, b"y" * 9000)
        client.send(handshake() + client_frame(TEXT, b"early") + long + client_frame(TEXT, b"la")[:3])
        assert client.head()[0] == 101
        assert client.frame() == (TEXT, b"early")
        assert client.frame() == (TEXT, b"y" * 9000)
        client.send(client_frame(TEXT, b"la")[3:])
        assert client.frame() == (TEXT, b"la")


def test_frames_survive_any_cut():
    with serving() as served, Client(served.port) as client:
        client.websocket()
        for byte in client_frame(TEXT, "grüße".encode()):
            client.send(bytes([byte]))
        assert client.frame() == (TEXT, "grüße".encode())


def test_fragments_become_one_message_and_pings_may_come_between():
    with serving() as served, Client(served.port) as client:
        client.websocket().send(
            client_frame(TEXT, "ü".encode()[:1], fin=False),
            client_frame(PING, b"now"),
            client_frame(CONTINUATION, b"", fin=False),
            client_frame(CONTINUATION, "ü".encode()[1:]),
        )
        assert client.frame() == (PONG, b"now")
        assert client.frame() == (TEXT, "ü".encode())
        assert served.application.talks[0].received == ["ü".encode()]


def test_binary_comes_back_binary_and_need_not_be_utf8():
    with serving() as served, Client(served.port) as client:
        client.websocket().send(client_frame(BINARY, BAD_UTF8), client_frame(TEXT, b"text"))
        assert client.frame() == (BINARY, BAD_UTF8)
        assert client.frame() == (TEXT, b"text")


def test_a_ping_gets_a_pong_with_its_payload():
    with serving() as served, Client(served.port) as client:
        client.websocket().send(client_frame(PING, b"p" * 125), client_frame(PING))
        assert client.frame() == (PONG, b"p" * 125)
        assert client.frame() == (PONG, b"")


@pytest.mark.parametrize("rsv", [1, 2, 4])
@pytest.mark.parametrize("opcode", [TEXT, PING, CLOSE])
def test_reserved_bits_are_refused(rsv, opcode):
    code, _, received = refusal(client_frame(opcode, b"", rsv=rsv))
    assert (code, received) == (1002, [])


def test_a_stray_continuation_is_refused():
    assert refusal(client_frame(CONTINUATION, b"x"))[::2] == (1002, [])
    assert refusal(client_frame(CONTINUATION, b"x", fin=False))[::2] == (1002, [])


@pytest.mark.parametrize("second", [client_frame(TEXT, b"b"), client_frame(BINARY, b"b", fin=False)])
def test_a_message_inside_a_message_is_refused(second):
    assert refusal(client_frame(TEXT, b"a", fin=False), second)[::2] == (1002, [])


@pytest.mark.parametrize("opcode", [0x3, 0x7, 0xB, 0xF])
def test_reserved_opcodes_are_refused(opcode):
    assert refusal(client_frame(opcode, b"x"))[0] == 1002


def test_control_frames_must_be_short_and_whole():
    assert refusal(client_frame(PING, b"x" * 126))[0] == 1002
    assert refusal(client_frame(PING, b"x", fin=False))[0] == 1002


def test_bad_utf8_is_refused_also_across_fragments():
    assert refusal(client_frame(TEXT, BAD_UTF8))[::2] == (1007, [])
    for cut in range(1, len(BAD_UTF8)):
        first = client_frame(TEXT, BAD_UTF8[:cut], fin=False)
        assert refusal(first, client_frame(CONTINUATION, BAD_UTF8[cut:]))[::2] == (1007, [])


def test_bad_utf8_is_refused_before_the_message_ends():
    assert refusal(client_frame(TEXT, b"\xff", fin=False))[0] == 1007


def test_a_character_cut_off_by_the_end_is_refused():
    last = client_frame(CONTINUATION, "ü".encode()[:1])
    assert refusal(client_frame(TEXT, b"a", fin=False), last)[0] == 1007


@pytest.mark.parametrize(("payload", "code"), [
    (b"", 1000), (b"\x03\xe8", 1000), (b"\x03\xe9going", 1001), (b"\x0b\xb8", 3000), (b"\x13\x87x", 4999),
])  # fmt: skip
def test_a_close_is_answered_with_its_code(payload, code):
    with serving() as served, Client(served.port) as client:
        client.websocket().send(client_frame(CLOSE, payload))
        assert client.frame() == (CLOSE, struct.pack("!H", code))
        assert client.to_the_end() == b""
        served.until(lambda: served.application.talks[0].closed_count == 1)


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535])
def test_a_close_code_that_may_not_be_sent_is_refused(code):
    assert refusal(client_frame(CLOSE, struct.pack("!H", code)))[0] == 1002


def test_half_a_close_code_and_a_bad_reason_are_refused():
    assert refusal(client_frame(CLOSE, b"\x03"))[0] == 1002
    assert refusal(client_frame(CLOSE, b"\x03\xe8" + BAD_UTF8))[0] == 1007


def test_what_follows_a_close_is_ignored():
    with serving() as served, Client(served.port) as client:
        client.websocket().send(client_frame(CLOSE, b"\x03\xe8") + client_frame(TEXT, b"late"))
        assert client.frame()[0] == CLOSE
        assert client.to_the_end() == b""
        assert served.application.talks[0].received == []


def test_an_unmasked_frame_is_refused():
    assert refusal(client_frame(TEXT, b"bare", masked=False))[::2] == (1002, [])


def test_a_length_with_its_top_bit_set_does_not_end_the_process():
    deadly = b"\x81\xff" + b"\xff" * 8 + b"\x00" * 68
    with serving() as served, Client(served.port) as client, Client(served.port) as other:
        other.websocket()
        client.websocket().send(deadly)
        assert client.said_close()[0] == 1002
        other.send(client_frame(TEXT, b"alive"))
        assert other.frame() == (TEXT, b"alive")


def test_a_length_must_be_in_the_shortest_form():
    assert refusal(b"\x81\xfe\x00\x05" + bytes(9))[0] == 1002
    assert refusal(b"\x81\xff" + (5).to_bytes(8, "big") + bytes(9))[0] == 1002


def test_a_message_too_big_is_refused_before_it_has_come():
    head_only = client_frame(TEXT, b"x" * 65_537)[:14]
    assert refusal(head_only)[0] == 1009


def test_fragments_too_big_together_are_refused():
    parts = [client_frame(TEXT, b"x" * 60, fin=False), client_frame(CONTINUATION, b"x" * 60)]
    assert refusal(*parts, message_bytes_max=100)[::2] == (1009, [])
    with serving(message_bytes_max=120) as served, Client(served.port) as client:
        client.websocket().send(*parts)
        assert client.frame() == (TEXT, b"x" * 120)


def test_the_65th_fragment_is_refused():
    rest = [client_frame(CONTINUATION, b"x", fin=False)] * 62
    with serving() as served, Client(served.port) as client:
        client.websocket().send(client_frame(TEXT, b"x", fin=False), *rest, client_frame(CONTINUATION, b"x"))
        assert client.frame() == (TEXT, b"x" * 64)
    last = client_frame(CONTINUATION, b"x", fin=False)
    assert refusal(client_frame(TEXT, b"x", fin=False), *rest, last, last)[:2] == (
        1008,
        b"too many fragments",
    )


def test_a_message_that_never_ends_is_refused():
    code, reason, _ = refusal(client_frame(TEXT, b"x", fin=False), message_seconds=0.05)
    assert (code, reason) == (1008, b"a message took too long")


def test_a_flood_of_control_frames_is_refused():
    assert refusal(*[client_frame(PING)] * 30)[0] == 1008
    assert refusal(*[client_frame(PONG)] * 30)[0] == 1008


def test_the_frame_before_a_broken_one_in_the_same_segment_is_not_acted_on():
    """picows looks one frame ahead: it has sent CLOSE when it delivers the last whole frame, whose answer
    could no longer leave. It is dropped; the frames before it were answered."""
    broken = client_frame(TEXT, b"bare", masked=False)
    frames = [client_frame(TEXT, text) for text in (b"first", b"second", b"third")]
    code, _, received = refusal(*frames, broken)
    assert (code, received) == (1002, [b"first", b"second"])


def test_an_exception_closes_that_connection_and_tells_nothing():
    with serving() as served, Client(served.port) as client, Client(served.port) as other:
        other.websocket()
        client.websocket().send(client_frame(TEXT, b"raise"))
        assert client.said_close() == (1011, b"")
        served.until(lambda: served.application.talks[1].closed_count == 1)
        assert [str(fault) for fault in served.faults] == ["secret"]
        other.send(client_frame(TEXT, b"alive"))
        assert other.frame() == (TEXT, b"alive")


def test_an_exception_at_the_start_closes_the_connection():
    with serving() as served, Client(served.port) as client:
        served.application.talks = None  # so that open() fails
        client.websocket()
        assert client.said_close() == (1011, b"")
        assert [type(fault) for fault in served.faults] == [AttributeError]


def test_our_close_waits_for_the_clients_and_carries_a_reason():
    with serving() as served, Client(served.port) as client:
        client.websocket()
        talk = served.application.talks[0]
        served.call(lambda: talk.connection.close(4000, "ü" * 100))
        assert served.call(lambda: talk.connection.closed)
        client.send(client_frame(TEXT, b"too late"))
        assert client.said_close() == (4000, ("ü" * 61).encode())
        served.until(lambda: talk.closed_count == 1)
        assert talk.received == []


def test_a_client_that_does_not_answer_our_close_is_aborted():
    with serving(close_seconds=0.05) as served, Client(served.port) as client:
        client.websocket()
        talk = served.application.talks[0]
        served.call(lambda: talk.connection.close(1001))
        served.until(lambda: talk.closed_count == 1)
        assert client.frame() == (CLOSE, b"\x03\xe9")
        assert client.to_the_end() == b""


def test_a_client_that_vanishes_is_closed_once():
    with serving() as served, Client(served.port) as client:
        client.websocket()
        talk = served.application.talks[0]
        client.socket.close()
        served.until(lambda: talk.closed_count == 1)
        assert served.call(lambda: (talk.connection.closed, talk.connection.write_frames(b"x"))) == (
            True,
            False,
        )
        served.call(lambda: talk.connection.send(b"to nobody"))
        assert served.front.counts.websockets == 0


def test_the_silent_are_asked_and_then_dropped():
    with serving(ping_seconds=0.05, silence_seconds=0.3) as served, Client(served.port) as client:
        client.websocket()
        assert client.frame() == (PING, b"")
        code, _ = client.said_close()
        assert code == 1001


def test_those_who_answer_the_ping_stay():
    with serving(ping_seconds=0.05, silence_seconds=0.5) as served, Client(served.port) as client:
        client.websocket()
        for _ in range(8):  # together more than the silence that is allowed
            assert client.frame() == (PING, b"")
            client.send(client_frame(PONG))
        client.send(client_frame(TEXT, b"here"))
        opcode, payload = client.frame()
        while opcode == PING:
            opcode, payload = client.frame()
        assert (opcode, payload) == (TEXT, b"here")


def test_long_frames_arrive_intact_while_the_socket_is_backed_up():
    """With other transports than aiofastnet's, picows' send() overwrote the header of a frame that waited."""
    with serving(send_backlog_bytes_max=1 << 26) as served, Client(served.port, 4096) as client:
        client.websocket()
        connection = served.application.talks[0].connection
        sizes = [8193 + 1111 * (i % 13) for i in range(400)]
        served.call(lambda: [connection.send(bytes([65 + i % 26]) * size) for i, size in enumerate(sizes)])
        assert served.call(lambda: connection.backlog_bytes) > 0
        for i, size in enumerate(sizes):
            assert client.frame() == (TEXT, bytes([65 + i % 26]) * size)
        served.until(lambda: connection.backlog_bytes == 0)


def test_memory_that_was_written_may_be_reused_while_the_socket_is_backed_up():
    with serving(send_backlog_bytes_max=1 << 26) as served, Client(served.port, 4096) as client:
        client.websocket()
        talk = served.application.talks[0]

        def write_all():
            ring, roomy = bytearray(16_004), []
            for i in range(400):
                ring[:] = ws.frame(bytes([65 + i % 26]) * 16_000)
                roomy.append(talk.connection.write_frames(memoryview(ring)))
            return roomy

        roomy = served.call(write_all)
        assert roomy[0] and not roomy[-1], "False says that the socket is backed up"
        assert talk.drained_count == 0
        for i in range(400):
            assert client.frame() == (TEXT, bytes([65 + i % 26]) * 16_000)
        served.until(lambda: talk.drained_count == 1)
        assert served.call(lambda: talk.connection.write_frames(ws.frame(b"x")))


def test_a_small_backlog_is_told_and_its_end_too():
    with serving() as served, Client(served.port, 4096) as client:
        client.websocket()
        talk = served.application.talks[0]

        def fill():
            count = 1
            while talk.connection.write_frames(ws.frame(b"x" * 1000)):
                count += 1
            return count, talk.connection.backlog_bytes

        count, backlog = served.call(fill)
        assert 0 < backlog <= 1004
        assert [client.frame() for _ in range(count)] == [(TEXT, b"x" * 1000)] * count
        served.until(lambda: talk.drained_count == 1)


def test_a_client_that_does_not_read_is_closed_and_its_memory_bounded():
    with serving(close_seconds=0.05) as served, Client(served.port, 4096) as client:
        client.websocket()
        talk = served.application.talks[0]

        def flood():
            most = 0
            for _ in range(10_000):
                talk.connection.send(b"x" * 1000)
                most = max(most, talk.connection.backlog_bytes)
                if talk.connection.closed:
                    return most
            return None

        assert served.call(flood) <= 1024 * 1024 + 200, "only the CLOSE may stand above the bound"
        served.until(lambda: talk.closed_count == 1)  # though it has read nothing
        assert served.front.counts.slow_clients == 1
        assert served.faults == []


def test_a_slow_client_that_reads_after_all_is_told_why():
    with serving(send_backlog_bytes_max=10_000) as served, Client(served.port, 4096) as client:
        client.websocket()
        connection = served.application.talks[0].connection

        def flood():
            while not connection.closed:
                connection.send(b"x" * 1000)

        served.call(flood)
        assert client.said_close() == (1008, b"too slow")


def test_one_message_may_be_larger_than_the_backlog():
    with serving(send_backlog_bytes_max=10_000) as served, Client(served.port, 4096) as client:
        client.websocket()
        connection = served.application.talks[0].connection
        served.call(lambda: connection.send(b"x" * 5_000_000))
        assert client.frame() == (TEXT, b"x" * 5_000_000)


def test_pongs_nobody_reads_are_bounded_too():
    with serving(send_backlog_bytes_max=100_000) as served, Client(served.port, 4096) as client:
        client.websocket()
        connection = served.application.talks[0].connection

        def back_up():
            while connection.write_frames(ws.frame(b"x" * 1000)):
                pass
            connection.send(b"x" * (100_000 - connection.backlog_bytes - 50))

        served.call(back_up)
        client.send(client_frame(PING, b"p" * 125))
        served.until(lambda: connection.closed)
        assert served.front.counts.slow_clients == 1
