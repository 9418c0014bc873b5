"""Settings are checked once and say where they are wrong; the command line wins over the file."""

import json
import os

import pytest

from scripts import config
from scripts.config import Cores, Invalid


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "ringside.toml"
        path.write_text(text)
        return str(path)

    return write


def test_nothing_given_is_loopback_and_the_default_directory():
    settings = config.load(None, {})
    assert settings.gateway.host == "127.0.0.1"
    assert (settings.gateway.port, settings.gateway.count) == (3001, 1)
    assert settings.data == os.path.expanduser("~/.local/state/ringside")


def test_the_command_line_wins_key_by_key(file):
    path = file("[gateway]\nport = 4000\ncount = 2\n[follow]\nnode_data = '/n'\nsilent_ms = 50")
    settings = config.load(path, {"gateway": {"port": 5000}, "data": "/d"})
    assert (settings.gateway.port, settings.gateway.count) == (5000, 2)
    assert (settings.follow.node_data, settings.follow.silent_ms, settings.data) == ("/n", 50, "/d")


def test_a_source_on_the_command_line_replaces_that_of_the_file(file):
    path = file("[follow]\nnode_data = '/n'\nsnapshot = '/s'")
    settings = config.load(path, {"follow": {"node_info": "http://127.0.0.1:1"}})
    assert (settings.follow.snapshot, settings.follow.node_info) == (None, "http://127.0.0.1:1")
    settings = config.load(file("[follow]\nnode_data = '/n'"), {"follow": {"simulated": True}})
    assert (settings.follow.node_data, settings.follow.simulated) == (None, True)


@pytest.mark.parametrize(
    "text, words",
    [
        ("[gateway]\nport = '1'", ["[gateway] port:", "`int`", "`str`"]),
        ("[gateway]\nport = 70000", ["[gateway] port:", "65535"]),
        ("[gateway]\ncount = 0", ["[gateway] count:"]),
        ("[gateway]\nprot = 1", ["[gateway]:", "`prot`"]),
        ("data = 3", ["data:"]),
        ("[gatway]\nport = 1", ["`gatway`"]),
        ("gateway = 3", ["[gateway]:"]),
        ("[cores]\nwait = 'sleep'", ["[cores] wait:", "sleep"]),
        ("[follow]\ncheck_seconds = 0", ["[follow] check_seconds:"]),
        ("[follow\n", ["line 1"]),
        ("[capacity]\norders = -1", ["[capacity] orders:"]),
        ("[follow]\nsnapshot = 'a'\nnode_info = 'http://b'", ["--snapshot", "--node-info"]),
        ("[follow]\nnode_data = 'a'\nsimulated = true", ["--node-data", "--simulated"]),
        ("[follow]\nsimulated = true\nreplay_speed = 'max'", ["--simulated"]),
        ("[follow]\nnode_info = 'localhost:3001'", ["--node-info", "URL"]),
        ("[follow]\nreplay_speed = 'fast'", ["--replay-speed fast", "real"]),
        ("[follow]\nreplay_speed = 0", ["--replay-speed 0"]),
        ("[follow]\nreplay_speed = 'nan'", ["--replay-speed nan"]),
        ("[follow]\nreplay_speed = inf", ["--replay-speed inf"]),
        ("[exchange]\nblock_ms = 0", ["[exchange] block_ms:"]),
        ("[exchange]\nmarkets = []", ["[exchange] markets:"]),
        (
            "[[exchange.markets]]\nname = 'A B'\nprice = '1'\nsize_decimals = 1",
            ["[exchange] markets[0].name:"],
        ),
        ("[[exchange.markets]]\nname = 'A'\nprice = '1'\nsize_decimals = 1\n" * 2, ["[exchange] markets:"]),
        ("[gateway]\ncount = 2\n[cores]\ngateways = [0]", ["1 cores for 2 gateways"]),
        ("[cores]\nengine = 100000", ["core 100000"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place(file, text, words):
    with pytest.raises(Invalid) as refused:
        config.load(file(text), {})
    assert [word for word in words if word not in str(refused.value)] == []
    assert "$." not in str(refused.value)


def test_a_wrong_section_in_the_file_is_told_even_when_the_command_line_has_it(file):
    with pytest.raises(Invalid, match="gateway"):
        config.load(file("gateway = 3"), {"gateway": {"port": 1}})


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"a = 'b"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "none.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Invalid, match="none.toml"):
        config.load(str(path), {})


@pytest.mark.parametrize(
    "given, meant",
    [(None, "live"), ("real", 1.0), ("max", "max"), ("10", 10.0), (2, 2.0), (0.5, 0.5), ("live", "live")],
)
def test_replay_speeds(given, meant):
    assert config.replay_speed(given) == meant


def test_what_is_printed_is_a_file_that_gives_the_same(file):
    text = "[follow]\nnode_data = 'a \"b\"\\\\'\nreplay_speed = 'max'\n"
    text += "[gateway.limits]\nmessages = 3\nx = 0.5"
    settings = config.load(file(text), {"cores": {"engine": min(os.sched_getaffinity(0))}})
    assert config.load(file(config.to_toml(settings)), {}) == settings


def test_markets_become_whole_numbers(file):
    text = "[[exchange.markets]]\nname = 'A'\nprice = '12.34'\nsize_decimals = 4\nmaker_rate = '-0.2'"
    more = "\ntaker_rate = '3.25'\nmax_leverage = 7\nimpact_notional = 9\n"
    tiers = [
        f"[[exchange.markets.tiers]]\nnotional = {usd}\nmax_leverage = {most}\n"
        for usd, most in ((50, 4), (90, 2))
    ]
    settings = config.load(file(text + more + "".join(tiers)), {})
    engine = json.loads(config.exchange_settings(settings, deposits={"0x1": 5}, epoch=3).to_json())
    (market,) = engine["markets"]
    assert market == {
        "name": "A",
        "size_decimals": 4,
        "price": 1234,
        "max_leverage": 7,
        "tiers": [[50_000_000, 4], [90_000_000, 2]],
        "impact_notional": 9,
        "maker_rate": -20,
        "taker_rate": 325,
    }
    assert (engine["epoch"], engine["deposits"], engine["block_ms"]) == (3, {"0x1": 5}, 1)
    assert config.load(file(config.to_toml(settings)), {}) == settings
    too_fine = config.load(file(text.replace("12.34", "12.345")), {})
    with pytest.raises(Invalid, match="market A, price 12.345: 2 decimals at most"):
        config.exchange_settings(too_fine, deposits={}, epoch=1)
    backwards = config.load(file(text + more + "".join(tiers[::-1])), {})
    with pytest.raises(Invalid, match="market A, tiers: each starts later and allows less"):
        config.exchange_settings(backwards, deposits={}, epoch=1)


def test_paths_do_not_depend_on_where_the_command_was_given(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = config.load(None, {"data": "d", "follow": {"node_data": "n", "snapshot": "s"}})
    assert settings.data == str(tmp_path / "d")
    assert settings.follow.node_data == str(tmp_path / "n")
    assert settings.follow.snapshot == str(tmp_path / "s")


@pytest.mark.parametrize(
    "cores, gateways, usable, placed",
    [
        (Cores(), 1, {0, 1, 2, 3}, (3, [2])),
        (Cores(), 2, {0, 1, 2, 3}, (3, [2, 1])),
        (Cores(), 2, {0, 1, 2}, (None, [None, None])),
        (Cores(auto=False), 1, set(range(64)), (None, [None])),
        (Cores(engine=5), 1, set(range(64)), (5, [None])),
        (Cores(engine=5, gateways=[1, 9]), 2, set(range(64)), (5, [1, 9])),
        (Cores(), 1, {4, 8, 9}, (9, [8])),
    ],
)
def test_who_runs_where(cores, gateways, usable, placed):
    assert config.placed(cores, gateways, usable) == placed


def test_children_get_their_part_as_json():
    given = {"data": "/d", "follow": {"node_data": "/n", "snapshot": "/s", "replay_speed": "real"}}
    settings = config.load(None, given | {"cores": {"auto": False}})
    engine = json.loads(config.engine_settings(settings, node_data="/n", node_info=None, epoch=9).to_json())
    assert engine["data"] == "/d/follow" and engine["replay_speed"] == 1.0 and engine["epoch"] == 9
    assert engine["node_info"] is None and engine["cpu"] is None and engine["snapshot"] == "/s"
    gateway = json.loads(config.gateway_settings(settings, index=0, port=77, mode="follow").to_json())
    assert gateway == {
        "host": "127.0.0.1",
        "port": 77,
        "index": 0,
        "count": 1,
        "wait": "park",
        "cpu": None,
        "limits": {},
        "mode": "follow",
        "sources": "b",
        "durability": "journaled",
        "archive": None,
        "data": "/d",
    }
    gateway = json.loads(config.gateway_settings(settings, index=0, port=77, mode="exchange").to_json())
    replica = json.loads(config.replica_settings(settings).to_json())
    assert gateway["archive"] == replica["archive"] == "/d/archive.sqlite"
