"""`ringside replay` tells what happened: every outcome, in order, and no other; from a snapshot the same."""

import json
import shutil

import numpy as np
import pytest

from engine.exchange import recovery
from engine.exchange.records import Kind
from engine.exchange.state import allocate
from engine.journal.disk import Disk
from engine.journal.writer import Writer
from scripts import cli, journal_words, outcome_words, replay
from scripts.operator import AMOUNT_MAX
from scripts.verify import Absent
from shm.codes import Ack, Command, Condition, Flag, Side, Tif
from shm.layout import NO_ACCOUNT, NO_MARKET
from tests.engine.journal.made import SMALLEST
from tests.engine.replica.stream import RINGS
from tests.exchange.commands import ROOMY
from tests.scripts.kept import CONFIG, kept


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    data = tmp_path_factory.mktemp("exchange")
    (data / "exchange.toml").write_text(CONFIG)
    return data, kept(data)


@pytest.fixture(scope="module")
def outcomes(exchange):
    """All outcomes, and the core at the end."""
    core, acks = allocate(ROOMY), []
    given = []
    for each in recovery.applied(core, exchange[1]):
        given.append(each.copy())
        acks.append(core.acks[: int(core.heap[0]["acks"])].copy())
    return np.concatenate(given), np.concatenate(acks), core


def told(data, **asked):
    core, shown = replay.empty(ROOMY._asdict(), RINGS)
    places = (data / "journal", data / "snapshots")
    return list(replay.replay(*places, core, shown, replay.Asked(**asked), lambda done, total: None))


def without_refusals(facts):
    return [each for each in facts if each["what"] != "not done"]


def test_every_outcome_is_told_in_order_and_every_refusal(exchange, outcomes):
    data, commands = exchange
    every, acks, core = outcomes
    facts = told(data)
    assert [each["sequence"] for each in facts] == sorted(each["sequence"] for each in facts)
    plain = without_refusals(facts)
    assert [each["sequence"] for each in plain] == every["sequence"].tolist()
    assert [each["what"] for each in plain] == [outcome_words.WORDS[Kind(kind)][0] for kind in every["kind"]]
    assert {each["what"] for each in plain} >= {
        "rests",
        "filled",
        "ended",
        "refused",
        "money",
        "funds",
        "block",
    }
    silent = {int(ack["sequence"]) for ack in acks[acks["outcome"] == Ack.REFUSED]}
    silent -= set(every["sequence"][every["kind"] == Kind.REFUSED].tolist())
    assert {each["sequence"] for each in facts if each["what"] == "not done"} == silent != set()


def test_amounts_are_exact_and_in_words(exchange, outcomes):
    data, _ = exchange
    every, _, core = outcomes
    for facts, outcome in zip(without_refusals(told(data)), every, strict=True):
        if facts["what"] == "filled":
            decimals = int(core.markets["size_decimals"][outcome["market"]])
            whole, _, fraction = facts["size"].partition(".")
            assert int(whole + fraction.ljust(decimals, "0")) == outcome["quantity"], facts
            assert facts["side"] in ("buy", "sell") and facts["as"] in ("maker", "taker")
            assert facts["with"] == outcome_words.address_of(core, int(outcome["other"])) != facts["account"]


def test_an_account_a_market_and_a_span_are_told_alone(exchange, outcomes):
    data, _ = exchange
    every, _, core = outcomes
    all_told = told(data)
    accounts = {each["account"] for each in all_told if "account" in each}
    markets = {each["market"] for each in all_told if "market" in each}
    assert len(accounts) > 2
    for account in sorted(accounts)[:4]:
        assert told(data, account=account) == [each for each in all_told if each.get("account") == account]
    for market in markets:
        assert told(data, market=market) == [each for each in all_told if each.get("market") == market]
    assert told(data, account="0x" + "77" * 20) == told(data, market="NONE") == []
    middle = every["sequence"][len(every) // 2]
    assert told(data, until=middle) == [each for each in all_told if each["sequence"] <= middle]


def test_from_a_snapshot_on_the_same_is_told(exchange, monkeypatch):
    data, commands = exchange
    all_told, applied = told(data), []
    saved = sorted(int(path.stem) for path in (data / "snapshots").iterdir())
    original = recovery.applied

    def counted(core, commands):
        applied.append(int(commands["sequence"][0]))
        yield from original(core, commands)

    monkeypatch.setattr(recovery, "applied", counted)
    for since in (saved[0], saved[0] + 1, saved[1] + 5, len(commands)):
        applied.clear()
        assert told(data, since=since) == [each for each in all_told if each["sequence"] >= since]
        assert applied[0] == max(at for at in (0, *saved) if at < since) + 1


def test_a_journal_without_its_beginning_is_told_from_its_oldest_snapshot(exchange, tmp_path):
    data, _ = exchange
    all_told = told(data)
    shutil.copytree(data, tmp_path / "data")
    first, second, *_ = sorted((tmp_path / "data" / "journal").iterdir())
    oldest = min(int(path.stem) for path in (data / "snapshots").iterdir())
    first.unlink()
    assert told(tmp_path / "data") == [each for each in all_told if each["sequence"] > oldest]
    shutil.rmtree(tmp_path / "data" / "snapshots")
    with pytest.raises(Absent, match="no snapshot goes on from there"):
        told(tmp_path / "data")


def test_the_command_tells_lines_and_json(exchange, capsys):
    data, _ = exchange
    options = [str(data), "--config", str(data / "exchange.toml")]
    assert cli.run(["replay", *options, "--json"]) == 0
    said = capsys.readouterr()
    assert [json.loads(line) for line in said.out.splitlines()] == told(data) and said.err == ""
    assert cli.run(["replay", *options, "--until", "400", "--market", "M0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = told(data, until=400, market="M0")
    assert lines == [outcome_words.line(each) for each in facts] and " market M0 " in lines[0]
    assert cli.run(["replay", *options, "--account", "0x12"]) == cli.EXIT_REFUSED
    assert "expected 0x and 40 hex digits" in capsys.readouterr().err


def test_other_commands_than_the_engines_end_it_with_where(exchange, tmp_path, capsys):
    data, commands = exchange
    changed = commands.copy()
    taken = (changed["kind"] == Command.DEPOSIT) & (changed["amount"] < AMOUNT_MAX)
    changed["amount"][taken.nonzero()[0][0]] += 1
    writer = Writer(tmp_path / "journal", 1, Disk(), SMALLEST)
    writer.write(changed)
    writer.close()
    assert (
        cli.run(["replay", str(tmp_path), "--config", str(data / "exchange.toml")])
        == journal_words.EXIT_DAMAGED
    )
    assert "ends a block after one whose digest was" in capsys.readouterr().err


def test_every_kind_has_its_words():
    assert [*outcome_words.WORDS] == [*Kind]
    core = allocate(ROOMY._replace(orders=8, accounts=8, agents=8))
    core.status["market_count"], core.markets["name"][0, 0] = 1, ord("M")
    for kind in Kind:
        outcome = core.outcomes[0]
        outcome["kind"] = kind
        outcome["account"] = outcome["other"] = NO_ACCOUNT
        outcome["market"] = NO_MARKET if kind is Kind.LIQUIDATED else 0
        outcome["code"] = 1
        assert outcome_words.told(core, outcome)["what"] == outcome_words.WORDS[kind][0]


def test_a_trigger_order_tells_what_it_waits_for():
    core = allocate(ROOMY._replace(orders=8, accounts=8, agents=8))
    core.markets["size_decimals"][0] = 2
    outcome = core.outcomes[0]
    facts = {"order": 7, "side": Side.SELL, "price": 90_0000, "tif": Tif.MARKET, "flags": Flag.REDUCE_ONLY}
    facts |= {"start": 95_0000, "done": Condition.BELOW, "amount": 4, "code": 1, "account": NO_ACCOUNT}
    for name, value in facts.items():
        outcome[name] = value
    said = {}
    for kind in Kind.WAITING, Kind.TRIGGERED, Kind.ENDED:
        outcome["kind"] = kind
        said[kind] = {
            name: value for name, value in outcome_words.told(core, outcome).items() if name != "market"
        }
    order = {"order": 7, "side": "sell", "size": "all", "of": "all", "price": "90", "tif": "market"}
    order |= {"reduce_only": True, "trigger": "95", "fires": "below", "group": 4}
    head = {"sequence": 0, "time": 0, "what": "waits"}
    assert said[Kind.WAITING] == head | order | {"for_parent": True}
    assert said[Kind.TRIGGERED] == head | order | {"what": "triggered"}
    assert said[Kind.ENDED]["of"] == "all" and said[Kind.ENDED]["left"] == "0"
    outcome["kind"], outcome["start"], outcome["done"], outcome["amount"] = Kind.OPENED, 0, 0, 0
    assert not {"trigger", "fires", "group"} & outcome_words.told(core, outcome).keys(), (
        "of an order without one"
    )
