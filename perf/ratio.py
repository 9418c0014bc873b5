"""Time two ways to do the same work, in turns and in several fresh processes, and say how they compare.

A benchmark is a function of a module that takes nothing and returns the two works, candidate and baseline,
each ready to run, on memory laid out as production does it:

    def pair():
        ring, slots, commands, out = mapped(...), ...
        candidate = lambda: through_the_ring(ring, slots, commands, out)
        baseline = lambda: copied_twice(slots, commands, out)
        return candidate, baseline

    if __name__ == "__main__":
        ratio.report("spsc / two bare copies", pair)

The last two lines are needed as they stand: each fresh process imports the module again to find `pair`.
"""

import multiprocessing
from collections.abc import Callable, Hashable
from statistics import quantiles
from time import perf_counter_ns
from typing import NamedTuple

Work = Callable[[], Hashable]  # does the work once, and returns a digest of its result
Pair = Callable[[], tuple[Work, Work]]  # candidate, baseline


class Ratio(NamedTuple):
    """Quartiles of time(candidate) / time(baseline); below 1 the candidate is the faster one."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g}x ({self.low:.3g}..{self.high:.3g})"


def report(name: str, pair: Pair, processes: int = 7, rounds: int = 31) -> Ratio:
    """Print and return the quartiles over `processes` fresh processes, each the median of its `rounds`.

    One process proves nothing: where its memory came to lie can double a time, with tight quartiles.
    Raises RuntimeError if a process fails; what failed stands above it.
    """
    each = [_fresh(pair, rounds) for _ in range(processes)]
    over_processes = _quartiles([one.median for one in each])
    within = max(each, key=lambda one: one.high - one.low)
    print(f"{name}: {over_processes} over {processes} processes; the widest within one: {within}", flush=True)
    return over_processes


def ratio(candidate: Work, baseline: Work, rounds: int = 31) -> Ratio:
    """Return the quartiles over `rounds` turns in this process.

    They take turns, so that heat, noise and neighbours fall on both alike. Raises ValueError if their digests
    differ: they did not do the same work.
    """
    ours, theirs = candidate(), baseline()  # and both are now compiled
    if ours != theirs:
        raise ValueError(f"the two do different work: {ours} and {theirs}")
    return _quartiles([_turn(candidate, baseline, swap=turn % 2 == 1) for turn in range(rounds)])


def _quartiles(values: list[float]) -> Ratio:
    if len(values) == 1:
        values = values * 2
    return Ratio(*quantiles(values, n=4, method="inclusive"))


def _turn(candidate: Work, baseline: Work, swap: bool) -> float:
    if swap:
        spent_baseline = _nanoseconds(baseline)
        return _nanoseconds(candidate) / spent_baseline
    return _nanoseconds(candidate) / _nanoseconds(baseline)


def _nanoseconds(work: Work) -> int:
    start = perf_counter_ns()
    work()
    return perf_counter_ns() - start


def _fresh(pair: Pair, rounds: int) -> Ratio:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(pair, rounds, sender))
    process.start()
    sender.close()  # so that the end of the process is the end of the pipe
    try:
        return Ratio(*receiver.recv())
    except EOFError:
        raise RuntimeError(
            f"the process that measured {getattr(pair, '__qualname__', pair)} failed"
        ) from None
    finally:
        process.join()


def _measure(pair: Pair, rounds: int, sender) -> None:
    sender.send(tuple(ratio(*pair(), rounds=rounds)))
