"""What does a block cost on its way from the log to a client's frame, against a bare file-watching echo?

candidate: the whole instance (engine, shared memory, gateway, WebSocket) as `ringside follow` starts it; the
client reads `l4Book` of the one market.
baseline: one process that sleeps in inotify on the same kind of file, reads what was appended, and sends it
as a frame to the client, without looking at it.

Both sleep while they wait (park), both take the same lines of a simulated node, block after block, in turns;
the clock is the client's, from before the first write to after the last byte of the frame. So the ratio says
what three files, their join, the parsing, the books and a second process cost on top of the kernel's own path
from a file to a socket.
"""

import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from scripts.simulated_node import SimulatedNode
from tests.e2e import node_log
from tests.e2e.instance import Instance

RUNS, BLOCKS, WARM_UP = 3, 300, 50
COIN = "BTC"
PAUSE_SECONDS = 0.004  # both sides are asleep again
SUBSCRIBE = b'{"method":"subscribe","subscription":{"type":"l4Book","coin":"%s"}}' % COIN.encode()
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

ECHO = """
import os, socket, struct, sys
from pathlib import Path
from engine.follow.watch import Watch
path = Path(sys.argv[1])
watch, offset = Watch([path.parents[2]]), 0
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
client, _ = listener.accept()
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
file = os.open(path, os.O_RDONLY)
os.set_blocking(watch.fd, True)
while True:
    os.read(watch.fd, 65536)
    text = os.pread(file, 1 << 20, offset)
    if text:
        offset += len(text)
        client.sendall(struct.pack("!BBQ", 0x81, 127, len(text)) + text)
"""


class Frames:
    """A blocking socket that gives one WebSocket message at a time."""

    def __init__(self, port: int):
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._held = b""

    def upgrade(self) -> None:
        """Ask for the WebSocket and for the book."""
        self._socket.sendall(UPGRADE)
        while b"\r\n\r\n" not in self._held:
            self._held += self._socket.recv(1 << 16)
        self._held = self._held.split(b"\r\n\r\n", 1)[1]
        self._socket.sendall(bytes([0x81, 0x80 | len(SUBSCRIBE), 0, 0, 0, 0]) + SUBSCRIBE)

    def _take(self, count: int) -> bytes:
        while len(self._held) < count:
            self._held += self._socket.recv(1 << 18)
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def message(self) -> bytes:
        text, final = b"", False
        while not final:
            first, length = self._take(2)
            if length == 126:
                (length,) = struct.unpack("!H", self._take(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self._take(8))
            text, final = text + self._take(length), bool(first & 0x80)
        return text


def measure() -> tuple[list[float], list[float]]:
    """Seconds of each block: (candidate, baseline)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        node = SimulatedNode(folder / "log", seed=1, coins=[COIN], rate=40)
        node.step()
        node.write_snapshot(folder / "snapshot.json", triggers=True)
        first = node.height
        for _ in range(BLOCKS):
            node.step()
        node.close()
        blocks = {height: pieces for height, pieces in node_log.blocks(folder / "log", "by_block").items()}
        with Instance(folder, "--snapshot", str(folder / "snapshot.json")) as ringside:
            node_log.append(ringside.node_data, blocks.pop(first))
            return _in_turns(folder, ringside, blocks)


def _in_turns(folder: Path, ringside: Instance, blocks: dict) -> tuple[list[float], list[float]]:
    diffs = next(piece.path for piece in blocks[min(blocks)] if "diffs" in str(piece.path))
    echoed = folder / "echo" / diffs
    echoed.parent.mkdir(parents=True)
    echoed.touch()
    echo = subprocess.Popen([sys.executable, "-c", ECHO, str(echoed)], stdout=subprocess.PIPE, text=True)
    assert echo.stdout is not None
    bare, whole = Frames(int(echo.stdout.readline())), Frames(ringside.port)
    whole.upgrade()
    while b"Snapshot" not in whole.message():
        pass
    spent: tuple[list[float], list[float]] = [], []
    try:
        for height, pieces in blocks.items():
            told = b'"height":%d' % height
            if not any("diffs" in str(piece.path) and len(piece.content) > 200 for piece in pieces):
                node_log.append(ringside.node_data, pieces)
                continue
            time.sleep(PAUSE_SECONDS)
            start = time.perf_counter()
            node_log.append(ringside.node_data, pieces)
            while told not in whole.message()[:200]:
                pass
            spent[0].append(time.perf_counter() - start)
            time.sleep(PAUSE_SECONDS)
            start = time.perf_counter()
            node_log.append(folder / "echo", [piece for piece in pieces if piece.path == diffs])
            bare.message()
            spent[1].append(time.perf_counter() - start)
    finally:
        echo.kill()
        echo.wait()
    return spent[0][WARM_UP:], spent[1][WARM_UP:]


def main() -> None:
    ratios = []
    for _ in range(RUNS):
        candidate, baseline = measure()
        ratios.append(median(candidate) / median(baseline))
        shown = [f"{name} p50 {median(of) * 1e6:.0f} us p99 {quantiles(of, n=100)[98] * 1e6:.0f} us"
                 for name, of in (("block -> frame", candidate), ("echo", baseline))]  # fmt: skip
        print(f"{len(candidate)} blocks: {', '.join(shown)}: {ratios[-1]:.2f}x", flush=True)
    print(f"block written -> frame received / bare file-watching echo: median {median(ratios):.2f}x "
          f"({min(ratios):.2f}..{max(ratios):.2f}) over {RUNS} runs")  # fmt: skip


if __name__ == "__main__":
    main()
