"""What the node says of its markets: `meta` and `spotMeta`, asked once and kept for the gateways.

The logs name no size decimals, leverage or tokens. A node's info server does; its answers are written to our
directory as they are, because they are larger than a message between processes, and their size decimals go
into the market rows.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.follow.bootstrap import ask_node
from engine.state import State, market_name

QUESTIONS = {"meta": {"type": "meta"}, "spotMeta": {"type": "spotMeta"}}


class Meta:
    """The question under way, and what it brought."""

    def __init__(self, url: str, directory: Path):
        self._url, self._path = url, directory / "meta.json"
        self._pool = ThreadPoolExecutor(1, "meta")
        self._reply: Future[dict[str, Any]] | None = self._pool.submit(self._ask)
        self._sizes: dict[str, int] = {}
        self._told = 0

    def _ask(self) -> dict[str, Any]:
        answers = {
            name: msgspec.json.decode(ask_node(self._url, question)) for name, question in QUESTIONS.items()
        }
        beside = self._path.with_suffix(".writing")
        beside.write_bytes(msgspec.json.encode(answers))
        os.replace(beside, self._path)
        return answers

    def collect(self, state: State) -> Path | None:
        """Return the file once, when the answers have come; keep the rows' decimals as the node has them."""
        arrived = None
        if self._reply is not None and self._reply.done():
            reply, self._reply = self._reply, None
            if reply.exception() is None:
                self._sizes, arrived = size_decimals(reply.result()), self._path
            else:
                self._reply = self._pool.submit(self._ask)
        count = int(state.status[0]["market_count"])
        if self._sizes and (arrived or count > self._told):
            self._told = count
            for market in range(count):
                decimals = self._sizes.get(market_name(state, market))
                if decimals is not None:
                    state.markets[market]["size_decimals"] = np.int32(decimals)
        return arrived


def size_decimals(answers: dict[str, Any]) -> dict[str, int]:
    """Coin -> szDecimals, of perps by their name and of spot pairs by their base token."""
    sizes = {asset["name"]: int(asset["szDecimals"]) for asset in answers["meta"]["universe"]}
    tokens = {token["index"]: int(token["szDecimals"]) for token in answers["spotMeta"]["tokens"]}
    for pair in answers["spotMeta"]["universe"]:
        if pair["tokens"][0] in tokens:
            sizes[pair["name"]] = tokens[pair["tokens"][0]]
    return sizes
