"""A client's connection without a network: it takes frames, as long as it likes, read here as messages."""

import json

from gateway import rings


class Wire:
    """What gateway.fanout.Client writes to. `room`: bytes that the socket still takes; None: everything."""

    peer = "127.0.0.1"

    def __init__(self, room=None):
        self.room = room
        self.frames = []
        self.closed_with = None

    @property
    def closed(self):
        return self.closed_with is not None

    def write_frames(self, frames):
        if self.closed:
            return False
        self.frames.append(bytes(frames))
        if self.room is not None:
            self.room -= len(frames)
        return self.room is None or self.room > 0

    def close(self, code, reason=""):
        if not self.closed:
            self.closed_with = code, reason

    def take(self):
        """The messages since the last time, as JSON."""
        raw, self.frames = b"".join(self.frames), []
        return [json.loads(text) for text in messages(raw)]


def messages(raw):
    """The payloads of a stream of server frames; fragments are put together."""
    found, parts, at = [], [], 0
    while at < len(raw):
        first, length = raw[at], raw[at + 1]
        at += 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(raw[at : at + size], "big")
            at += size
        assert first & 0x0F == (rings.CONTINUATION if parts else rings.TEXT)
        parts.append(raw[at : at + length])
        at += length
        if first & rings.FINAL:
            found.append(b"".join(parts))
            parts = []
    assert at == len(raw) and not parts, "frames are whole"
    return found
