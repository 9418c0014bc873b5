"""A SIMULATION of a node: it matches invented orders of invented users and writes log files as a node does.

    python -m scripts.simulated_node --out DIR [--info-port P] [--form by_block|streaming]

It exists to show and to test the follower without a real node. Prices, users and trades mean nothing; margin,
funding, reduce-only and liquidation are not simulated; the shape of every line is that of captured node
output. The info server answers on 127.0.0.1 only and, as a real node does, writes the file that a
`fileSnapshot` request names.

Each start begins with empty books, at a height above all those found in DIR, with a gap that a follower
notices.
"""

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from scripts import simulated_log
from scripts.simulated_market import (
    BUY,
    DIFFS,
    FILLS,
    SELL,
    SPECS,
    STATUSES,
    Block,
    Market,
    Order,
    Spec,
    time_text,
)
from scripts.simulated_traders import Traders

FIRST_HEIGHT = 900_000_000
FIRST_TIME_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00
BLOCK_NS = 70_000_000
RESTART_GAP = 10_000  # blocks between the last of an earlier run and the first of this one
RATE = 12  # commands a block: with the default interval about half a gigabyte of logs an hour
WRITE_DELAY_NS = 380_000_000  # without a clock: local_time of the first line of a block, after its block time
BODY_BYTES_MAX = 1 << 16


class SimulatedNode:
    """Markets, their traders and the log files. `step` is one block; without a clock, a seed tells all.

    out: directory that will hold node_order_statuses_* and its like. clock: nanoseconds since 1970; without
    one, blocks are about 70 ms apart from the start of 2026. rate: commands a block; depth: orders a book.
    Raises simulated_log.ForeignDirectory, and KeyError for a coin that is not in SPECS.
    """

    def __init__(
        self,
        out: Path,
        *,
        seed: int = 0,
        form: str = "by_block",
        coins: list[str] | None = None,
        rate: int = RATE,
        depth: int = 300,
        first_height: int = FIRST_HEIGHT,
        clock: Callable[[], int] | None = None,
    ):
        self.out = Path(out)
        self.specs = [SPECS[coin] for coin in coins or SPECS]
        found = simulated_log.last_height(self.out)
        self.height = max(first_height, found + RESTART_GAP if found else 0) - 1
        self.time_ns = FIRST_TIME_NS
        self._first = self.height + 1
        self._files = simulated_log.LogFiles(self.out, form)
        self._write_block = self._write_batch if form == "by_block" else self._write_stream
        self._random = Random(f"{seed} {self._first}" if found else seed)  # a later run is another one
        self._traders = Traders(self._random, self.specs, rate, depth)
        self._clock = clock
        self._lock = threading.Lock()

    @property
    def markets(self) -> dict[str, Market]:
        return self._traders.markets

    def step(self) -> None:
        """Make one block and write its lines."""
        with self._lock:
            elapsed = BLOCK_NS + self._random.randrange(-8_000_000, 8_000_000)
            now_ns = self._clock() if self._clock else self.time_ns + elapsed
            block = Block(self.height + 1, max(now_ns, self.time_ns + 1))
            self._traders.act(block, opening=block.height == self._first)
            self.time_ns = max(now_ns, self.time_ns + 1)
            self._write_block(block)
            self.height = block.height

    def snapshot(self, users: bool = True, triggers: bool = False) -> list[Any]:
        """[height, [[coin, [bids, asks]], ...]] after the last block, the form of the node's own snapshot."""
        loaded: list[Any] = json.loads(self.snapshot_text(users, triggers))
        return loaded

    def write_snapshot(
        self, path: Path, users: bool = True, triggers: bool = False, height: bool = True
    ) -> None:
        """Write the snapshot as JSON, whole or not at all."""
        text = self.snapshot_text(users, triggers, height)
        partial = Path(f"{path}.partial.{threading.get_ident()}")
        partial.write_text(text)
        os.replace(partial, path)

    def snapshot_text(self, users: bool = True, triggers: bool = False, height: bool = True) -> str:
        with self._lock:
            coins = [self._book_text(market, users, triggers) for market in self.markets.values()]
            books = f"[{','.join(coins)}]"
            return f"[{self.height},{books}]" if height else books

    def close(self) -> None:
        self._files.close()

    def _book_text(self, market: Market, users: bool, triggers: bool) -> str:
        sides = []
        for side in (BUY, SELL):
            orders = list(market.in_priority(side))
            if triggers:
                orders += [order for order in market.triggers.values() if order.side == side]
            sides.append(f"[{','.join(self._order_text(order, market.spec, users) for order in orders)}]")
        return f'["{market.spec.coin}",[{",".join(sides)}]]'

    @staticmethod
    def _order_text(order: Order, spec: Spec, users: bool) -> str:
        text = order.text(spec)
        return f'["{order.user}",{text}]' if users else text

    def _write_batch(self, block: Block) -> None:
        for number, stream in enumerate((FILLS, DIFFS, STATUSES)):
            events = ",".join(text for of, text in block.events if of == stream)
            self._write(block, number, stream, events)

    def _write_stream(self, block: Block) -> None:
        for number, (stream, text) in enumerate(block.events):
            self._write(block, number, stream, text)

    def _write(self, block: Block, number: int, stream: int, events: str) -> None:
        """Write the block's line `number`. Its hour is that of the writing, so streams part near the hour."""
        local_ns = self._clock() if self._clock else self.time_ns + WRITE_DELAY_NS + number * 10_000
        line = (
            f'{{"local_time":"{time_text(local_ns)}","block_time":"{block.time_text}",'
            f'"block_number":{block.height},"events":[{events}]}}\n'
        )
        self._files.write(stream, line.encode(), local_ns)


def meta(specs: list[Spec]) -> dict[str, Any]:
    universe = [
        {
            "szDecimals": s.size_decimals,
            "name": s.coin,
            "maxLeverage": s.leverage_max,
            "marginTableId": s.leverage_max,
        }
        for s in specs
        if not s.spot
    ]
    tables = [
        [leverage, {"description": "", "marginTiers": [{"lowerBound": "0.0", "maxLeverage": leverage}]}]
        for leverage in sorted({s.leverage_max for s in specs if not s.spot})
    ]
    return {"universe": universe, "marginTables": tables, "collateralToken": 0}


def spot_meta(specs: list[Spec]) -> dict[str, Any]:
    spots = [spec for spec in specs if spec.spot]
    tokens = [_token("USDC", 8, 0)] + [_token(s.base, s.size_decimals, i) for i, s in enumerate(spots, 1)]
    universe = [
        {"tokens": [i, 0], "name": s.coin, "index": _spot_index(s.coin), "isCanonical": "/" in s.coin}
        for i, s in enumerate(spots, 1)
    ]
    return {"universe": universe, "tokens": tokens}


def _spot_index(coin: str) -> int:
    return int(coin[1:]) if coin.startswith("@") else 0


def _token(name: str, size_decimals: int, index: int) -> dict[str, Any]:
    return {
        "name": name,
        "szDecimals": size_decimals,
        "weiDecimals": max(8, size_decimals),
        "index": index,
        "tokenId": f"0x{index + 1:032x}",
        "isCanonical": True,
        "evmContract": None,
        "fullName": None,
        "deployerTradingFeeShare": "0.0",
    }


def answer(node: SimulatedNode, request: Any) -> Any:
    """Answer a body of POST /info. Raises KeyError or TypeError where it is not one that is served."""
    kind = request["type"]
    if kind == "fileSnapshot":
        inner = request["request"]
        if inner["type"] != "l4Snapshots":
            raise KeyError(inner["type"])
        users, triggers = inner.get("includeUsers", False), inner.get("includeTriggerOrders", False)
        path = Path(request["outPath"])
        node.write_snapshot(path, users, triggers, request.get("includeHeightInOutput", False))
        return None
    served: dict[str, Callable[[], Any]] = {
        "meta": lambda: meta(node.specs),
        "spotMeta": lambda: spot_meta(node.specs),
        "exchangeStatus": lambda: {"time": node.time_ns // 1_000_000, "specialStatuses": None},
        "perpDexs": lambda: [None],
    }
    return served[kind]()


def serve_info(node: SimulatedNode, port: int) -> ThreadingHTTPServer:
    """Serve POST /info on 127.0.0.1 in a thread; port 0 takes a free one. End it with shutdown()."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if self.path != "/info" or length > BODY_BYTES_MAX:
                self.close_connection = True
                return self._reply(404, b"not found", "text/plain")
            body = self.rfile.read(length)
            try:
                reply = json.dumps(answer(node, json.loads(body)), separators=(",", ":")).encode()
            except (ValueError, KeyError, TypeError, AttributeError):
                refusal = b"Failed to deserialize the JSON body into the target type"
                return self._reply(422, refusal, "text/plain")
            except OSError as error:
                return self._reply(500, str(error).encode(), "text/plain")
            self._reply(200, reply, "application/json")

        def _reply(self, status: int, body: bytes, content: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing: the lines of the simulation are its output."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="info", daemon=True).start()
    return server


def paced(interval_ns: int) -> Iterator[None]:
    """Yield once every interval. A late turn shortens the next wait, but missed turns are not made up."""
    due_ns = time.monotonic_ns()
    while True:
        yield
        due_ns = max(due_ns + interval_ns, time.monotonic_ns() - interval_ns)
        time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)


def arguments_of(line: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.simulated_node", description="A simulated node.")
    parser.add_argument("--out", type=Path, required=True, help="directory for the node_* logs")
    parser.add_argument("--info-port", type=int, help="serve POST /info on 127.0.0.1 here (0: a free port)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--block-ms", type=float, default=BLOCK_NS / 1e6, help="0: as fast as possible")
    parser.add_argument("--form", choices=simulated_log.FORMS, default="by_block")
    parser.add_argument("--blocks", type=int, help="end after so many blocks")
    parser.add_argument("--coins", default=",".join(SPECS), help="comma-separated, of: %(default)s")
    parser.add_argument("--rate", type=int, default=RATE, help="commands a block, over all coins")
    parser.add_argument("--depth", type=int, default=300, help="orders a book")
    arguments = parser.parse_args(line)
    arguments.coins = arguments.coins.split(",")
    if unknown := set(arguments.coins) - set(SPECS):
        parser.error(f"no such coin in the simulation: {', '.join(sorted(unknown))}")
    return arguments


def fresh_height(now_ns: int) -> int:
    """A height above that of earlier starts, even in a directory emptied since: 20 blocks a second."""
    return FIRST_HEIGHT + (now_ns - FIRST_TIME_NS) // 50_000_000 if now_ns > FIRST_TIME_NS else FIRST_HEIGHT


def main(line: list[str] | None = None) -> None:
    arguments = arguments_of(line)
    ended: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        ended.append(number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    node = SimulatedNode(
        arguments.out,
        seed=arguments.seed,
        form=arguments.form,
        coins=arguments.coins,
        rate=arguments.rate,
        depth=arguments.depth,
        first_height=fresh_height(time.time_ns()),
        clock=time.time_ns,
    )
    server = serve_info(node, arguments.info_port) if arguments.info_port is not None else None
    where = f", info at http://127.0.0.1:{server.server_port}/info" if server else ""
    print(f"SIMULATED node: {arguments.form} logs in {arguments.out}", end=" ")
    print(f"from block {node.height + 1}{where}", flush=True)
    last = None if arguments.blocks is None else node.height + arguments.blocks
    for _ in paced(int(arguments.block_ms * 1e6)):
        if ended or node.height == last:
            break
        node.step()
    if server:
        server.shutdown()
    node.close()
    print(f"SIMULATED node: ended after block {node.height}", flush=True)


if __name__ == "__main__":
    main()
