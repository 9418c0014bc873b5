"""What does the exchange cost beyond reading its commands and writing what it tells?

mix       exchange-core's mix, at 1,000 and at 1,000,000 resting orders: apply / a bare copy of as many
          commands, acks and outcomes. The same with a nonce in each command: the others trust a session.
flat      the mix at 1,000,000 resting / at 1,000
shapes    a million new orders on each of five paths of the price: apply / the same bare copy
latency   one command a call: the time stamp counter around the call, less its median around an empty one

Beside them stand what the commands became, counted from their acks; the commands a second, which are worth
what this machine did at that moment; and the memory of one order.
"""

import multiprocessing
from collections import Counter
from functools import partial
from time import perf_counter_ns

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from engine.exchange import apply, state
from perf import apply_commands, mapped, ratio
from perf.apply_commands import BLOCK, SHAPES, Called, Stream
from shm.codes import Ack, Command, Refusal, Tif
from shm.layout import ACK, COMMAND

THOUSAND, MILLION = 1_000, 1_000_000
ROUNDS, PROCESSES = 31, 5
A_TURN = 16 * BLOCK  # commands
SHAPE_ROUNDS, SHAPE_PROCESSES = 5, 3
SINGLE = 500_000  # commands timed one by one
PER_MILLE = (500, 990, 999)


# --- the two works ----------------------------------------------------------------------------------------


class Run:
    """A stream on its way through an engine; `begin` takes both to where the measured part begins."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.engine = stream, state.allocate(stream.capacity)
        self.at = 0

    def begin(self) -> None:
        if self.at > self.stream.start:
            fresh = state.allocate(self.stream.capacity)
            for name in set(state.State._fields) - {"outcomes", "outcome_words", "acks"}:
                getattr(self.engine, name)[:] = getattr(fresh, name)
            self.at = 0
        self.apply(self.stream.start - self.at)

    def apply(self, count: int) -> int:
        """Apply the next `count` commands, at most BLOCK a call; return how many outcomes that gave."""
        outcomes, until = 0, self.at + count
        while self.at < until:
            commands = self.stream.commands[self.at : min(self.at + BLOCK, until)]
            self.at += apply.apply_commands(self.engine, commands, len(commands))
            outcomes += int(self.engine.heap[0]["outcomes"])
        return outcomes


class Copy:
    """The least that anybody could do: read as many commands, write as many acks and outcomes."""

    def __init__(self, run: Run) -> None:
        engine = run.engine
        self.stream, self.engine, self.at = run.stream, engine, run.stream.start
        self.commands, self.acks = mapped.zeros(BLOCK, COMMAND), mapped.zeros(BLOCK, ACK)
        self.outcomes = mapped.zeros(BLOCK * 8, engine.outcomes.dtype)

    def apply(self, count: int) -> int:
        outcomes, until = 0, self.at + count
        while self.at < until:
            end = min(self.at + BLOCK, until)
            told = int(self.stream.told[self.at : end].sum())
            outcomes += copied(
                self.stream.commands[self.at : end], self.commands, self.engine.acks, self.acks,
                self.engine.outcomes, self.outcomes, told,
            )  # fmt: skip
            self.at = end
        return outcomes


@njit(nogil=True)
def copied(commands, commands_out, acks, acks_out, outcomes, outcomes_out, count):
    for i in range(len(commands)):
        commands_out[i] = commands[i]
        acks_out[i] = acks[i]
    for i in range(count):
        outcomes_out[i % len(outcomes_out)] = outcomes[i]
    return count


def in_turns(run: Run) -> ratio.Work:
    """Work that is the next A_TURN commands each time."""
    run.begin()
    return lambda: run.apply(A_TURN)


def a_mix(resting: int, nonces: bool = False) -> Stream:
    return apply_commands.mix(resting, A_TURN * (ROUNDS + 1), nonces)


def mixed(resting: int, nonces: bool = False) -> tuple[ratio.Work, ratio.Work]:
    run = Run(a_mix(resting, nonces))
    copy = Copy(run)
    return in_turns(run), lambda: copy.apply(A_TURN)


def flat() -> tuple[ratio.Work, ratio.Work]:
    large, small = (in_turns(Run(a_mix(resting))) for resting in (MILLION, THOUSAND))
    return lambda: large() * 0, lambda: small() * 0  # they cannot tell the same


def shaped(name: str) -> tuple[ratio.Work, ratio.Work]:
    """Each turn is the whole stream, from its beginning: a new state is on the candidate's bill."""
    run = Run(apply_commands.shape(name))
    copy, count = Copy(run), len(run.stream.commands) - run.stream.start

    def applied() -> int:
        run.begin()
        return run.apply(count)

    def copies() -> int:
        copy.at = run.stream.start
        return copy.apply(count)

    return applied, copies


# --- what the commands became -----------------------------------------------------------------------------


def told(stream: Stream) -> str:
    """Shares of the commands by kind and of their acks, what is resting at the end, and commands a second."""
    run = Run(stream)
    run.begin()
    asked: Counter[str] = Counter()
    became: Counter[str] = Counter()
    spent = []
    while run.at < len(stream.commands):
        commands = stream.commands[run.at : run.at + BLOCK]
        begin = perf_counter_ns()
        run.apply(len(commands))
        spent.append((perf_counter_ns() - begin) / len(commands))
        for kind, tif in zip(commands["kind"].tolist(), commands["tif"].tolist(), strict=True):
            asked[Tif(tif).name if kind == Command.ORDER else Command(kind).name] += 1
        acks = run.engine.acks[: len(commands)]
        for outcome, code in zip(acks["outcome"].tolist(), acks["code"].tolist(), strict=True):
            became[Refusal(code).name if code else Ack(outcome).name] += 1
    outcomes = stream.told[stream.start :].sum() / (len(stream.commands) - stream.start)
    orders, levels = int(run.engine.status[0]["order_count"]), run.engine.sides["count"].tolist()
    return (
        f"  {shares(asked)}\n  {shares(became)}\n  {outcomes:.2f} outcomes a command; at the end "
        f"{orders} orders on {levels} levels\n  {1e3 / np.median(spent):.2f} M commands/s (median of calls), "
        f"{1e9 * len(spent) / sum(spent) / 1e6:.2f} over all"
    )


def shares(counts: Counter[str]) -> str:
    return " ".join(f"{name}:{100 * n / counts.total():.2f}%" for name, n in counts.most_common())


def bytes_an_order(orders: int) -> float:
    """Of a state for so many open orders: everything that there is one of for each."""
    made = state.allocate(apply_commands.capacity_for(orders))
    of_orders = (made.orders, made.facts, made.order_index, made.cloid_index, made.free_orders)
    return sum(array.nbytes for array in of_orders) / orders


# --- latency ----------------------------------------------------------------------------------------------


@intrinsic
def cycles(typingctx):
    """The time stamp counter."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(64), [])
        counter = builder.module.declare_intrinsic("llvm.readcyclecounter", (), kind)
        return builder.call(counter, [])

    return types.int64(), codegen


@njit(nogil=True, no_cpython_wrapper=True)
def nothing(engine, commands, count):
    return count


@njit(nogil=True)
def one_by_one(apply_commands, engine, commands, spent):
    for i in range(len(commands)):
        begin = cycles()
        apply_commands(engine, commands[i : i + 1], 1)
        spent[i] = cycles() - begin


@njit(nogil=True)
def empty(engine, commands, spent):
    for i in range(len(commands)):
        begin = cycles()
        nothing(engine, commands[i : i + 1], 1)
        spent[i] = cycles() - begin


def latencies(resting: int) -> str:
    """Nanoseconds of a command: p50, p99, p99.9."""
    run = Run(apply_commands.mix(resting, SINGLE))
    run.begin()
    commands = run.stream.commands[run.at :]
    spent = np.zeros(len(commands), np.int64)
    called = Called(apply.apply_commands)
    one_by_one(called, run.engine, commands[:0], spent), empty(run.engine, commands, spent)
    floor = np.median(spent)
    begin, first = perf_counter_ns(), read_cycles()
    one_by_one(called, run.engine, commands, spent)
    unit = (perf_counter_ns() - begin) / (read_cycles() - first)
    waits = np.quantile((spent - floor) * unit, [each / 1_000 for each in PER_MILLE])
    return " ".join(f"p{each / 10:g} {ns:.0f} ns" for each, ns in zip(PER_MILLE, waits, strict=True))


@njit(nogil=True)
def read_cycles():
    return cycles()


# --- all of it --------------------------------------------------------------------------------------------


def apart(work, *args) -> None:
    """Do it in a process of its own, so that its memory is given back."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=args)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{work.__name__}{args} failed")


def show_mix(resting: int) -> None:
    print(f"mix, {resting:,} resting\n{told(a_mix(resting))}", flush=True)


def show_shape(name: str) -> None:
    print(f"{name}\n{told(apply_commands.shape(name))}", flush=True)


def show_latency(resting: int) -> None:
    print(f"latency, {resting:,} resting: {latencies(resting)}", flush=True)


if __name__ == "__main__":
    print(f"memory of an order: {bytes_an_order(MILLION):.0f} bytes, of a table for {MILLION:,}")
    for resting in (THOUSAND, MILLION):
        apart(show_mix, resting)
        apart(show_latency, resting)
        name = f"mix, {resting:,} resting: apply / a bare copy"
        ratio.report(name, partial(mixed, resting), PROCESSES, ROUNDS)
    ratio.report("the same with nonces, 1,000 resting", partial(mixed, THOUSAND, True), PROCESSES, ROUNDS)
    ratio.report("mix, 1,000,000 resting / 1,000 resting", flat, PROCESSES, ROUNDS)
    for shape in SHAPES:
        apart(show_shape, shape)
        name = f"{shape}: apply / a bare copy"
        ratio.report(name, partial(shaped, shape), SHAPE_PROCESSES, SHAPE_ROUNDS)
