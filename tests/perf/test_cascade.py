"""The cascade, small: the same numbers are the same story, and it ends well."""

from perf import cascade
from shm.codes import Method


def test_a_small_cascade_uses_every_method_and_leaves_nobody_below_maintenance():
    told = []
    for _ in range(2):
        state, rows, _, commands = cascade.run(8, 250)
        assert cascade.check_kept(state) > 0
        told.append((rows, commands, int(state.heap[0]["digest"])))
    assert told[0] == told[1]
    counts = {
        name: sum(row[cascade.COLUMNS.index(f"{name}_count")] for row in rows) for name in cascade.METHODS
    }
    assert all(counts.values()), counts
    assert len(cascade.METHODS) == len(Method) - 1
    assert cascade.plot(rows).startswith("<svg")
