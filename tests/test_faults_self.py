"""A fault script that promises to lose nothing loses nothing, one that loses says so, and all occur."""

import json
import shutil
from collections import Counter
from random import Random

import pytest

from scripts.simulated_log import FORMS
from scripts.simulated_node import SimulatedNode
from tests import fault_lines, recorded
from tests.fault_lines import FAULTS
from tests.faults import script
from tests.reference_book import STREAMS, ReferenceBook, followed, read_blocks

BLOCKS = 60


@pytest.fixture(scope="module", params=FORMS)
def log(request, tmp_path_factory):
    """A small simulated log in either form."""
    root = tmp_path_factory.mktemp(request.param)
    node = SimulatedNode(root, form=request.param, rate=10, depth=10, coins=["BTC", "PURR/USDC"])
    for _ in range(BLOCKS):
        node.step()
    node.close()
    return root


def perform(seed, log, out, **choices):
    actions = []
    for action in script(seed, log, out, **choices):
        action.apply()
        actions.append(action)
    return actions


def records(root):
    """{stream: {(height, event text)}} of the well-formed records in all files, wherever they were moved."""
    found = {stream: set() for stream in STREAMS}
    for path in root.rglob("*"):
        stream = next(
            (stream for stream in STREAMS if f"node_{stream}" in str(path) or path.stem == stream), None
        )
        if path.is_file() and stream:
            for line in path.read_bytes().split(b"\n"):
                try:
                    record = json.loads(line)
                    found[stream] |= {
                        (record["block_number"], json.dumps(event)) for event in record["events"]
                    }
                    found[stream].add(
                        (record["block_number"], "")
                    )  # the block itself, with or without events
                except (ValueError, KeyError, TypeError):
                    continue
    return found


def lines(root):
    return sorted(
        {line for path in root.rglob("*") if path.is_file() and path.name != "SIMULATION"
         for line in path.read_bytes().split(b"\n") if line}
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(log):
    return records(log)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_not_lossy_loses_nothing(log, whole, tmp_path, seed):
    actions = perform(seed, log, tmp_path, lossy=False)
    assert not any(action.lossy for action in actions)
    assert records(tmp_path) == whole


@pytest.mark.timeout(1_800)
def test_many_scripts_lose_nothing(log, whole, tmp_path, pytestconfig):
    if not pytestconfig.getoption("--soak"):
        pytest.skip("a thousand scripts: only with --soak")
    for seed in range(1_000):
        perform(seed, log, tmp_path / str(seed), lossy=False)
        assert records(tmp_path / str(seed)) == whole, seed
        shutil.rmtree(tmp_path / str(seed))


@pytest.mark.parametrize("seed", range(15))
def test_without_changed_lines_the_very_bytes_are_there(log, tmp_path, seed):
    perform(seed, log, tmp_path, faults=set(FAULTS) - {"F8", "F11"}, lossy=False)
    assert lines(tmp_path) == lines(log)


@pytest.mark.parametrize("fault", ["F6", "F8"])
def test_what_is_lossy_loses_something(log, whole, tmp_path, fault):
    verdicts = Counter()
    for seed in range(12):
        actions = perform(seed, log, tmp_path / str(seed), faults=[fault])
        lossy = any(action.lossy for action in actions)
        verdicts[lossy, records(tmp_path / str(seed)) == whole] += 1
    assert verdicts[False, False] == verdicts[True, True] == 0
    assert verdicts[True, False] > 0


def test_every_fault_and_every_kind_occurs(log, tmp_path):
    labels, kinds = Counter(), Counter()
    for seed in range(100):
        for action in script(seed, log, tmp_path, snapshots=lambda height: [height, []]):
            labels.update(action.fault.split("+"))
            kinds[action.kind] += 1
    assert set(FAULTS) <= labels.keys()
    wanted = "append create shrink truncate replace rename snapshot silence restart missing"
    assert kinds.keys() == set(wanted.split())


def test_a_seed_names_one_script(log, tmp_path):
    def told(seed):
        actions = script(seed, log, tmp_path)
        return [(action.kind, action.fault, action.lossy, action.path, action.content) for action in actions]

    assert all(told(seed) == told(seed) for seed in range(20))
    assert told(1) != told(2)


def test_a_script_without_faults_copies_the_log(log, tmp_path):
    perform(1, log, tmp_path, faults=[])
    form = "streaming" if "streaming" in str(log) else "by_block"
    assert list(read_blocks(tmp_path, form)) == list(read_blocks(log, form))


def test_rotated_and_delayed_logs_still_add_up(log, tmp_path):
    """Rotation, splitting and lag move lines between files but not within a stream."""
    form = "streaming" if "streaming" in str(log) else "by_block"
    first = next(iter(read_blocks(log, form)))["height"]
    end = followed([first - 1, []], log, form)
    for seed in range(10):
        out = tmp_path / str(seed)
        perform(seed, log, out, faults=["F1", "F3", "F10", "F12"], lossy=False)
        if not (out / "copied").exists():
            assert followed([first - 1, []], out, form).orders == end.orders, seed


def test_a_false_size_is_well_formed(log, whole, tmp_path):
    found = 0
    for seed in range(10):
        out = tmp_path / str(seed)
        actions = perform(seed, log, out, faults=["F9"], snapshots=lambda height: [height, []])
        if any(action.lossy for action in actions):
            assert records(out) != whole
            assert all(json.loads(line) for line in lines(out) if not line.startswith(b"[9"))
            found += 1
    assert found > 0


def test_a_flipped_bit_is_noticeable():
    line = b'{"local_time":"2026","block_number":7,"events":[{"px":"1.5"}]}\n'
    for seed in range(200):
        flipped = fault_lines.with_flipped_bit(Random(seed), line)
        with pytest.raises(ValueError):
            json.loads(flipped)
        assert flipped.endswith(b"\n")


@pytest.mark.parametrize("form", FORMS)
def test_scripts_over_the_capture(tmp_path, form):
    log = recorded.extract(tmp_path / "log", form)
    perform(3, log, tmp_path / "out", faults=["F1", "F2", "F4", "F5"], lossy=False)
    assert lines(tmp_path / "out") == lines(log)


def test_a_reference_snapshot_begins_where_it_was_taken(log):
    form = "streaming" if "streaming" in str(log) else "by_block"
    blocks = list(read_blocks(log, form))
    middle, end = ReferenceBook(), followed([blocks[0]["height"] - 1, []], log, form)
    middle.load([blocks[0]["height"] - 1, []])
    for block in blocks[: BLOCKS // 2]:
        middle.apply(block)
    joined = followed(json.loads(json.dumps(middle.snapshot())), log, form)
    assert joined.height == end.height
    assert joined.triggers == end.triggers
    assert all(joined.book(coin) == end.book(coin) for coin in end.queues)
