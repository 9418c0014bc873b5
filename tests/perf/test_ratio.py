"""The measure itself: what it divides by what, that it takes turns, and that it refuses unequal work."""

import os

import pytest

from perf import ratio

IMPORTED_BY = os.getpid()


@pytest.fixture
def spent(monkeypatch):
    """Let time pass only as the works say. Returns the maker of such works, and the order they ran in."""
    clock, order = [0], []

    def work(name, nanoseconds):
        def run():
            clock[0] += nanoseconds
            order.append(name)
            return "same"

        return run

    monkeypatch.setattr(ratio, "perf_counter_ns", lambda: clock[0])
    return work, order


def test_candidate_is_divided_by_baseline(spent):
    work, _ = spent
    assert ratio.ratio(work("candidate", 300), work("baseline", 200), rounds=5) == (1.5, 1.5, 1.5)


def test_they_take_turns_and_each_goes_first_in_half_of_them(spent):
    work, order = spent
    ratio.ratio(work("c", 1), work("b", 1), rounds=4)
    assert "".join(order) == "cb" + "cbbccbbc"  # once each to compile, then the turns


def test_quartiles_are_of_the_turns(monkeypatch):
    turns = iter([4.0, 1.0, 3.0, 2.0, 5.0])
    monkeypatch.setattr(ratio, "_turn", lambda candidate, baseline, swap: next(turns))
    assert ratio.ratio(int, int, rounds=5) == (2.0, 3.0, 4.0)


def test_different_work_is_refused():
    with pytest.raises(ValueError, match="different work: 1 and 2"):
        ratio.ratio(lambda: 1, lambda: 2)


def pair_of_a_fresh_process():
    """Works that are made only in a process which imported this module itself: no fork of another."""
    assert os.getpid() == IMPORTED_BY
    return lambda: sum(range(1_000)), lambda: sum(range(1_000))


def pair_that_fails():
    raise ValueError("this pair cannot be made")


def test_a_report_says_how_many_processes_it_is_over(capsys):
    low, median, high = ratio.report("a sum / itself", pair_of_a_fresh_process, processes=2, rounds=3)
    assert 0 < low <= median <= high
    assert capsys.readouterr().out.startswith(
        f"a sum / itself: {median:.3g}x ({low:.3g}..{high:.3g}) over 2 processes"
    )


def test_a_process_that_fails_fails_the_report(capfd):
    with pytest.raises(RuntimeError, match="pair_that_fails"):
        ratio.report("never", pair_that_fails, processes=1, rounds=1)
    assert "this pair cannot be made" in capfd.readouterr().err
