"""Run the engine on commands of the model, and say where the two first differ."""

from typing import NamedTuple

import numpy as np

from engine.exchange.apply import apply_commands
from engine.exchange.records import Kind
from engine.exchange.state import State, allocate
from tests.exchange.commands import Step, Swarm
from tests.exchange.interpreted import rows_for_kernels, state_for_kernels
from tests.exchange.terms import FIELDS, HEAD, MARKED, NO_TEXT, NOBODY, core, encode, read_acks, read_outcomes

TOLD_ABSOLUTE = {Kind.FUNDS: -1, Kind.POSITION: slice(-2, None), Kind.MARKET: -1}  # where the subject stands
BLANK = (NOBODY, NO_TEXT)


class Result(NamedTuple):
    """What the engine gave for some commands."""

    outcomes: list
    acks: list
    rows: np.ndarray  # the same outcomes, all of their bytes


def run(state: State, commands: np.ndarray) -> Result:
    """Apply all of the commands, in as many calls as their outcomes need."""
    outcomes, acks, rows = [], [], []
    while len(commands) > 0:
        consumed = apply_commands(state_for_kernels(state), rows_for_kernels(commands), len(commands))
        heap = state.heap[0]
        assert consumed > 0, "no room for one command's outcomes"
        rows.append(state.outcomes[: heap["outcomes"]].copy())
        outcomes += read_outcomes(rows[-1])
        acks += read_acks(state.acks[: heap["acks"]])
        commands = commands[consumed:]
    return Result(outcomes, acks, np.concatenate(rows) if rows else state.outcomes[:0].copy())


class Comparison:
    """The engine beside a swarm's model, from the first command on."""

    def __init__(self, swarm: Swarm):
        self.swarm, self.state = swarm, allocate(swarm.capacity)
        self._told = {}  # (kind, subject) -> the absolute row told last

    def go_on(self, count: int) -> Result:
        """Put the next commands through both. AssertionError says where they first differ."""
        return self.put(list(self.swarm.steps(count)))

    def put(self, steps: list[Step]) -> Result:
        """The same for commands that the swarm has given before."""
        result = run(self.state, encode([step.command for step in steps]))
        self.check(steps, result)
        return result

    def check(self, steps: list[Step], result: Result) -> None:
        self._check_standing(steps, result)
        news = [row for row in result.outcomes if self._is_news(row)]
        expected = [row for step in steps for row in step.outcomes]
        if ordered(news) != ordered(expected) or result.acks != [step.ack for step in steps]:
            raise AssertionError(self._first_difference(steps, news, result.acks))

    def _check_standing(self, steps, result):
        """An absolute row is as things stand at that moment, also where it need not have been told."""
        standing = {step.command.sequence: step.standing for step in steps if step.standing}
        for row in result.outcomes:
            if row[0] in MARKED and (stands := standing.get(row[1])):
                subject = row[TOLD_ABSOLUTE[row[0]]]
                assert stands[row[0], subject] == row[HEAD:], (
                    f"{Kind(row[0]).name} {row} is {stands[row[0], subject]}"
                )

    def _is_news(self, row) -> bool:
        """Whether it is not an absolute row told again unchanged: what is touched, the rules leave open."""
        at = TOLD_ABSOLUTE.get(row[0])
        if at is None:
            return True
        subject = (row[0], row[at])
        before = self._told.get(subject)
        if before is None and row[0] == Kind.POSITION:
            leverage = min(20, self.swarm.model.markets[row[-1]].max_leverage)
            before = (0, 0, 0, 0, 0, 0, leverage, 0, 1, *row[at])
        self._told[subject] = row[HEAD:]
        return core(row[0], before) != core(row[0], row[HEAD:])

    def _first_difference(self, steps, news, acks) -> str:
        by_sequence = {}
        for row in news:
            by_sequence.setdefault(row[1], []).append(row)
        for step, ack in zip(steps, acks, strict=False):
            given = by_sequence.get(step.command.sequence, [])
            given = by_sequence.get(0, []) + given if step.command.sequence == 1 else given
            if ordered(given) != ordered(step.outcomes) or ack != step.ack:
                return describe(step, given, ack)
        return f"{len(acks)} acks for {len(steps)} commands"


def ordered(rows: list) -> list:
    """The rows as they came, but the absolute ones of each block by kind and subject, before its BLOCK."""
    return sorted(rows, key=_place)


def _place(row):
    kind, sequence = row[:2]
    if kind in (Kind.FUNDS, Kind.POSITION):
        return sequence, kind, *row[-2:]
    return sequence, Kind.MARKET * 2 if kind in (Kind.MARKET, Kind.BLOCK) else 0


def describe(step: Step, given: list, ack: tuple) -> str:
    """What was asked, what the model says, what the engine says."""
    asked = {name: value for name, value in step.command._asdict().items() if value and value not in BLANK}
    lines = [f"{asked}", f"model  {step.ack}", f"engine {ack}"]
    for title, rows in (("model ", step.outcomes), ("engine", given)):
        for row in rows:
            kind = Kind(row[0])
            fields = dict(zip(FIELDS[kind].split(), row[HEAD:], strict=True))
            lines.append(f"{title} {kind.name} {fields}")
    return "\n".join(lines)
