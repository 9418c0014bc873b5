"""What the node says of its markets reaches the rows and a file, also of markets that appear later."""

import json
from concurrent.futures import wait

import numpy as np
import pytest

from engine.follow import meta
from scripts.simulated_node import SimulatedNode, serve_info
from tests.engine import made


@pytest.fixture
def url(tmp_path):
    node = SimulatedNode(tmp_path / "node", coins=["BTC", "HYPE", "PURR/USDC", "@107"])
    server = serve_info(node, 0)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    node.close()


def named(state, market, coin):
    state.markets[market]["name"][: len(coin)] = np.frombuffer(coin.encode(), np.uint8)
    state.markets[market]["size_decimals"] = 9


def collected(asked, state):
    wait([asked._reply], 20)
    return asked.collect(state)


def test_decimals_of_perps_and_of_spot_pairs_by_their_base_token():
    answers = {
        "meta": {"universe": [{"name": "BTC", "szDecimals": 5}, {"name": "HYPE", "szDecimals": 2}]},
        "spotMeta": {
            "tokens": [{"index": 0, "szDecimals": 8}, {"index": 4, "szDecimals": 1}],
            "universe": [{"name": "@7", "tokens": [4, 0]}, {"name": "@8", "tokens": [99, 0]}],
        },
    }
    assert meta.size_decimals(answers) == {"BTC": 5, "HYPE": 2, "@7": 1}


def test_the_answers_are_kept_for_the_gateways_and_the_rows_are_told(url, tmp_path):
    state = made.world(markets=0)
    named(state, 0, "BTC")
    named(state, 1, "HYPE")
    state.status["market_count"] = 1
    asked = meta.Meta(url, tmp_path)
    path = collected(asked, state)
    assert path == tmp_path / "meta.json" and set(json.loads(path.read_bytes())) == {"meta", "spotMeta"}
    universe = json.loads(path.read_bytes())["meta"]["universe"]
    truth = {entry["name"]: entry["szDecimals"] for entry in universe}
    assert state.markets["size_decimals"].tolist() == [truth["BTC"], 9, 0, 0]
    state.status["market_count"] = 2
    assert asked.collect(state) is None, "the file is told once"
    assert state.markets["size_decimals"].tolist() == [truth["BTC"], truth["HYPE"], 0, 0], "a later market"


def test_a_node_that_does_not_answer_is_asked_again(url, tmp_path):
    state = made.world()
    asked = meta.Meta("http://127.0.0.1:1", tmp_path)
    assert collected(asked, state) is None and asked._reply is not None
    wait([asked._reply], 20)
    asked._url = url
    assert asked.collect(state) is None
    assert collected(asked, state) == tmp_path / "meta.json"
