"""What this gateway takes for granted of picows and aiofastnet, private names included.

When an upgrade of either breaks one of these, `gateway/ws.py` or `gateway/accept.py` must be looked at again.
"""

import asyncio
import inspect
import socket
from importlib.metadata import version

import aiofastnet
import picows
import pytest
import uvloop
from picows import WSAutoPingStrategy, WSCloseCode, WSListener, WSMsgType
from picows.picows import WSProtocol

from gateway import ws
from tests.gateway.rim import BINARY, CLOSE, CONTINUATION, PING, TEXT, client_frame, handshake


def test_the_versions_are_those_that_were_read():
    assert version("picows").startswith("2.3.")
    assert version("aiofastnet").startswith("1.2.")


class Recorder(WSListener):
    """Records what picows delivers, by which it shows what it lets through."""

    def __init__(self):
        self.frames, self.calls = [], []

    def on_ws_connected(self, transport):
        self.calls.append("connected")
        self.transport = transport

    def on_ws_frame(self, transport, frame):
        self.frames.append((int(frame.msg_type), frame.get_payload_as_bytes(), bool(frame.fin)))
        self.rsv = (frame.rsv1, frame.rsv2, frame.rsv3)
        self.closing = transport.is_close_frame_sent

    def on_ws_disconnected(self, transport):
        self.calls.append("disconnected")

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")


def talk(play):
    """Run `await play(protocol, recorder, transport, peer)`: a fed protocol, and the client's socket."""

    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        ours.setblocking(False)
        theirs.settimeout(10)
        transport, _ = await aiofastnet.connect_accepted_socket(loop, asyncio.Protocol, ours)
        recorder = Recorder()
        protocol = ws._speak(recorder, 65_536)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        try:
            await play(protocol, recorder, transport, theirs)
        finally:
            transport.abort()
            await asyncio.sleep(0.02)  # longer than picows' own delayed disconnect
            theirs.close()
        return recorder

    return uvloop.run(main())


def test_the_private_constructor_takes_what_we_give_it():
    assert inspect.isclass(WSProtocol) and issubclass(WSProtocol, asyncio.BufferedProtocol)
    assert {"get_buffer", "buffer_updated", "connection_made", "listener", "transport"} <= set(
        dir(WSProtocol)
    )
    with pytest.raises(TypeError):
        WSProtocol()


def test_the_handshake_is_complete_when_it_has_been_fed():
    async def play(protocol, recorder, transport, peer):
        assert protocol.listener is None
        ws._feed(protocol, handshake() + client_frame(TEXT, b"early"))
        assert protocol.listener is recorder
        assert recorder.calls == ["connected"]
        assert recorder.transport.underlying_transport is transport
        assert (recorder.transport.is_close_frame_sent, recorder.transport.is_disconnected) == (False, False)
        assert peer.recv(12) == b"HTTP/1.1 101"

    recorder = talk(play)
    assert recorder.frames == [(TEXT, b"early", True)]
    assert recorder.calls == ["connected", "disconnected"]


def test_it_delivers_what_the_strict_layer_refuses():
    """If one of these is no longer delivered, the rule above it has become a rule of picows'."""
    frames = [
        client_frame(CONTINUATION, b"stray"),
        client_frame(TEXT, b"\xff"),
        client_frame(TEXT, b"open", fin=False),
        client_frame(BINARY, b"inside"),
        client_frame(PING, b"not answered"),
        client_frame(TEXT, b"reserved", rsv=7),
    ]

    async def play(protocol, recorder, transport, peer):
        ws._feed(protocol, handshake() + b"".join(frames))
        assert recorder.rsv == (1, 1, 1)

    assert [payload for _, payload, _ in talk(play).frames] == [
        b"stray", b"\xff", b"open", b"inside", b"not answered", b"reserved",
    ]  # fmt: skip


def test_it_sends_close_for_the_next_frame_before_it_delivers_this_one():
    async def play(protocol, recorder, transport, peer):
        ws._feed(protocol, handshake())
        ws._feed(protocol, client_frame(TEXT, b"good") + client_frame(TEXT, b"bad", masked=False))
        assert recorder.frames == [(TEXT, b"good", True)]
        assert recorder.closing

    talk(play)


def test_it_delivers_close_and_does_not_answer_it():
    async def play(protocol, recorder, transport, peer):
        ws._feed(protocol, handshake() + client_frame(CLOSE, b"\x03\xe8bye"))
        assert recorder.frames == [(CLOSE, b"\x03\xe8bye", True)]
        assert not recorder.closing
        recorder.transport.send_close(4001, b"reason")
        assert recorder.transport.is_close_frame_sent
        assert peer.recv(1000).endswith(b"\x88\x08\x0f\xa1reason")

    talk(play)


def test_with_no_watermark_it_says_when_it_backs_up_and_when_it_is_empty():
    async def play(protocol, recorder, transport, peer):
        ws._feed(protocol, handshake())
        transport.set_write_buffer_limits(high=0, low=0)
        while transport.get_write_buffer_size() == 0:
            transport.write(b"x" * 100_000)
        assert recorder.calls == ["connected", "pause"]
        peer.setblocking(False)
        while transport.get_write_buffer_size():
            try:
                peer.recv(1 << 20)
            except BlockingIOError:
                await asyncio.sleep(0.001)
        assert recorder.calls == ["connected", "pause", "resume"]

    talk(play)


def test_the_transport_copies_memory_that_may_change():
    async def play(protocol, recorder, transport, peer):
        ws._feed(protocol, handshake())
        while transport.get_write_buffer_size() == 0:
            transport.write(b"x" * 100_000)
        ring = bytearray(b"y" * 100)
        transport.write(memoryview(ring))
        ring[:] = b"z" * 100
        read = b""
        peer.setblocking(False)
        while not read.endswith((b"y" * 100, b"z" * 100)):
            try:
                read = read[-200:] + peer.recv(1 << 20)
            except BlockingIOError:
                await asyncio.sleep(0.001)
        assert read.endswith(b"y" * 100)

    talk(play)


def test_the_names_and_numbers_we_use():
    assert [int(WSMsgType[name]) for name in ("CONTINUATION", "TEXT", "BINARY", "CLOSE", "PING", "PONG")] == [
        0, 1, 2, 8, 9, 10,
    ]  # fmt: skip
    assert WSAutoPingStrategy.PING_WHEN_IDLE and int(WSCloseCode.OK) == 1000
    assert issubclass(aiofastnet.Transport, object) and picows.WSTransport
