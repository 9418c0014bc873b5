"""The engine with one line wrong, many times: each must be told from the engine by the tests beside this.

    NUMBA_DISABLE_JIT=1 python -m tests.exchange.mutants      one line of JSON a mutant: its name, and how it
                                                              was caught, or null

The streams and what the model says of them are made once; then each mutant is a fork of this process that
imports the engine with its line put in. "the engine itself" is among them, and must not be caught. Some leave
a state that is unsound, whatever they tell: what the scan alone says of it, after each command, is `scanned`.
"""

import importlib.abc
import importlib.util
import io
import json
import signal
import sys
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from tests.exchange.commands import TIGHT, Swarm
from tests.exchange.stops import Stops
from tests.exchange.storms import Storm

ROOT = Path(__file__).parents[2]

STREAMS = [Swarm(2), Swarm(9), Swarm(39, TIGHT), Swarm(4, TIGHT)]
STREAMS += map(Storm, (0, 2, 10, 14, 25, 43))
STREAMS += map(Stops, (1, 11, 20, 24, 26))
BY_HAND = ("margin", "funding", "liquidation", "triggers", "twap")
COMMANDS, CHUNK, SCANNED = 500, 50, 250
SECONDS_MAX = (
    30  # of its processor for one step, until a mutant is taken not to end; it needs less than a third
)
LETTERS_MAX = 100  # of what is said of a mutant
NONE = "the engine itself"
BOOK = "engine.book"
(
    APPLY, CLOIDS, FUNDING, JUDGING, LIQUIDATION, MARGIN, MARKETS,
    MATCHING, MONEY, PRICES, SHELF, SIGNERS, TRIGGERS, TWAP,
) = (
    f"engine.exchange.{name}"
    for name in (
        "apply", "cloids", "funding", "judging", "liquidation", "margin", "markets",
        "matching", "money", "prices", "shelf", "signers", "triggers", "twap",
    )
)  # fmt: skip


class Mutant(NamedTuple):
    """A line of one module of the engine, and what stands there instead."""

    module: str
    line: str
    instead: str
    unsound: bool = False  # it leaves a state that breaks a law


MUTANTS = {
    NONE: Mutant(BOOK, "", "", unsound=True),
    "a rebate larger than the fee": Mutant(MONEY, "return max(maker, -taker), taker", "return maker, taker"),
    "fees rounded down": Mutant(
        MONEY,
        "taker = ceil_div(notional * market.taker_rate, RATE_UNIT)",
        "taker = notional * market.taker_rate // RATE_UNIT",
    ),
    "fees that nobody gets": Mutant(MONEY, "state.accounts[FEE_ACCOUNT].cash += fee", "pass", unsound=True),
    "a closed part's share one too much": Mutant(
        MARGIN, "closes, abs(size))\n", "closes, abs(size)) + (closes < abs(size))\n"
    ),
    "isolated money lost with its position": Mutant(
        MARGIN, "out, isolated = isolated + out, 0", "isolated = 0", unsound=True
    ),
    "open interest of both sides": Mutant(
        MARGIN, "max(size, 0) - max(position.size, 0)", "abs(size) - abs(position.size)", unsound=True
    ),
    "volume in lots": Mutant(MATCHING, "row.volume += notional", "row.volume += outcome.quantity"),
    "shorts that need no margin": Mutant(MARGIN, "sells - value)\n", "sells)\n", unsound=True),
    "margin that is not summed": Mutant(
        MARGIN, "row.used += sign * margin\n", "row.used += max(sign, 0) * margin\n", unsound=True
    ),
    "less margin refused like more": Mutant(
        MARGIN,
        "if after <= before:\n        return True",
        "if after <= before:\n        return free_of(state, account) >= fee",
    ),
    "a debt set aside": Mutant(MONEY, "amount < 0 and left < ", "amount < 0 and left < 0 * "),
    "a sub-account that pays its master's deposit": Mutant(
        MONEY, "(account, sub) if is_deposit", "(account, sub) if not is_deposit"
    ),
    "leverage that margin does not hear of": Mutant(
        MONEY, "margin.count(state, account, market, 1)", "pass", unsound=True
    ),
    "a price of six figures": Mutant(JUDGING, "price % step == 0", "True"),
    "a price far off": Mutant(
        JUDGING, "> market.price_band * reference", "> (market.price_band + 200) * reference"
    ),
    "an order value one too small": Mutant(
        JUDGING, "price * quantity < VALUE_MIN and", "price * quantity < VALUE_MIN // 2 and"
    ),
    "a cloid that its own order keeps from being used": Mutant(JUDGING, " and known != replaced", ""),
    "a modify that runs into the order it replaces": Mutant(
        JUDGING, "market, 1 - side, replaced)", "market, 1 - side, NO_SLOT)"
    ),
    "an Alo at the best price": Mutant(JUDGING, "price >= best if", "price > best if"),
    "last come, first served": Mutant(MATCHING, "slot = level.head", "slot = level.tail"),
    "a trade with oneself": Mutant(MATCHING, "if maker.account == account:", "if False:"),
    "a reduce-only maker that opens": Mutant(
        MATCHING, "closable_of(state.positions[at].size, maker.side))\n", "maker.quantity)\n"
    ),
    "the taker's reduce-only orders forgotten": Mutant(
        MATCHING, "    end_reducing(state, account, command.market)\n", ""
    ),
    "reduce-only orders miscounted": Mutant(MATCHING, "reduce_count -= 1", "reduce_count -= 0", unsound=True),
    "a reference price that stands still": Mutant(
        MATCHING, "market.reference_price, market.is_touched = price, 1", "market.is_touched = 1"
    ),
    "an ended order that keeps its margin": Mutant(
        MATCHING, "order.side, -value)", "order.side, 0)", unsound=True
    ),
    "a cloid that outlives its order": Mutant(MATCHING, "cloids.remove(state, slot)", "pass", unsound=True),
    "an index with a gap": Mutant(CLOIDS, "words[hole] = words[at]", "pass", unsound=True),
    "a cancel in the wrong market": Mutant(APPLY, " or state.orders[slot].market != command.market", ""),
    "a cancel of another's order": Mutant(MATCHING, " and state.orders[slot].account == account", ""),
    "a refused modify that ends the old order": Mutant(
        APPLY,
        "    code, quantity = _judge(state, command, account, old)\n    if code != Refusal.NONE:\n",
        "    code, quantity = _judge(state, command, account, old)\n    if code != Refusal.NONE:\n"
        "        if old != NO_SLOT:\n            matching.end(state, old, telling.CANCELED)\n",
    ),
    "a schedule that fires late": Mutant(
        APPLY, "if 0 < row.schedule_ms <= now_ms", "if 0 < row.schedule_ms < now_ms"
    ),
    "a slot that is never used again": Mutant(BOOK, "    heap.free_orders += 1\n", "", unsound=True),
    "an empty level left standing": Mutant(
        BOOK, "if rows.levels[at].count == 0:\n        close", "if False:\n        close", unsound=True
    ),
    "a move that leaves its neighbours where they were": Mutant(
        BOOK, "bulk.shift(levels, at, at + 1, to - at)", "pass"
    ),
    "a move that turns beside its level": Mutant(BOOK, "return to - (to > at)", "return to"),
    "a move without its margin": Mutant(MATCHING, "value_of(order) - value)", "0)"),
    "a move that meets somebody": Mutant(MATCHING, "and alone and not reaches", "and alone or reaches"),
    "a move away from one's children": Mutant(MATCHING, "alone = order.role == Role.ALONE and", "alone ="),
    "a nonce forgotten": Mutant(SIGNERS, "nonces[at - 1] == nonce", "False"),
    "a nonce from too far ahead": Mutant(SIGNERS, "nonce >= now_ms + DAY_MS", "nonce > now_ms + DAY_MS"),
    "an agent one moment too long": Mutant(
        SIGNERS,
        "if signer.is_live == 0 or 0 < signer.valid_until_ms <= now_ms",
        "if signer.is_live == 0 or 0 < signer.valid_until_ms < now_ms",
    ),
    "an agent not revoked": Mutant(SIGNERS, "agent.is_live = 0", "agent.is_live = 1"),
    "an agent that sends money": Mutant(SIGNERS, "if signer.is_agent or command", "if command"),
    "anyone's sub-account": Mutant(SIGNERS, "master != signer.account", "master == NO_ACCOUNT"),
    "an action that has expired": Mutant(
        SIGNERS, "command.expires_ms < now_ms", "command.expires_ms < now_ms - 1"
    ),
    "an average that forgets nothing": Mutant(
        PRICES, "weight = weight * span // (span + elapsed) + elapsed", "weight = weight + elapsed"
    ),
    "an average of the oracle's pace": Mutant(PRICES, "        market.book_ms = now_ms\n", ""),
    "a mark without its basis": Mutant(PRICES, "market.oracle + market.basis // FINE", "market.oracle"),
    "a mark that steps too far": Mutant(PRICES, "market.mark + step)", "market.mark + 2 * step)"),
    "a mark that moves while its market is halted": Mutant(
        PRICES, "    if market.mode != Trading.HALTED:\n        set_mark", "    if True:\n        set_mark"
    ),
    "an oracle that is never stopped": Mutant(
        PRICES, "oracle_ms > STOPPED_MS", "oracle_ms > 60 * STOPPED_MS"
    ),
    "an impact at the last level's price": Mutant(
        PRICES, "return notional // quantity if quantity > 0 else level.price", "return level.price"
    ),
    "a premium of a halted market": Mutant(PRICES, "if heard and row.mode != Trading.HALTED:", "if heard:"),
    "a rate without its calm": Mutant(PRICES, "(mean + clamp(CALM - mean, -CALM_SPAN, CALM_SPAN))", "mean"),
    "orders in a closed market": Mutant(
        JUDGING, "if is_open(market) else Refusal.CLOSED", "if True else Refusal.CLOSED"
    ),
    "who is killed alone places orders": Mutant(
        JUDGING, "state.heap[0].is_killed or state.accounts[account].is_killed", "state.heap[0].is_killed"
    ),
    "a cap that is exceeded by what reaches it": Mutant(
        JUDGING,
        "0 < market.interest_cap <= market.open_interest",
        "0 < market.interest_cap < market.open_interest",
    ),
    "a band around the last price": Mutant(
        JUDGING, "reference = reference_of(market)", "reference = market.reference_price"
    ),
    "a tier that forgets the one before": Mutant(
        MARKETS, "row.tier_deduction[last] + -(-notional", "-(-notional"
    ),
    "the tier below": Mutant(
        MARGIN, "if notional >= market.tier_from[i]:", "if notional > 2 * market.tier_from[i]:"
    ),
    "a tier without its deduction": Mutant(MARGIN, " - market.tier_deduction[tier]\n", "\n", unsound=True),
    "a mark that accounts do not hear of": Mutant(
        MARGIN,
        "state.accounts[account].marks != state.heap[0].marks",
        "False",
    ),
    "isolated money that draws on cross": Mutant(
        MARGIN,
        "out = max(0, share(max(isolated, 0), closes, abs(size)) + out)",
        "out = share(max(isolated, 0), closes, abs(size)) + out",
    ),
    "an opening with no more than maintenance": Mutant(
        MARGIN, "return worth >= row.used - had + margin", "return worth >= row.maintenance - kept + keeps"
    ),
    "funding that one account is spared": Mutant(
        FUNDING,
        "row.funding_round = heap.funding_round\n    held = row.first_held",
        "row.funding_round = heap.funding_round\n    held = row.first_held if account != 3 else 0",
    ),
    "funding rounded for who pays": Mutant(
        FUNDING, "return least + (rest % PREMIUM_UNIT != 0)", "return least"
    ),
    "funding out of nothing": Mutant(
        FUNDING,
        "state.accounts[INSURANCE].cash += paid",
        "pass",
    ),
    "half the maintenance is enough for the book": Mutant(
        LIQUIDATION, "3 * worth >= 2 * kept", "2 * worth >= kept"
    ),
    "a liquidation that leaves orders": Mutant(
        LIQUIDATION,
        "if scope == CROSS or state.orders[slot].market == scope:",
        "if state.orders[slot].market == scope:",
    ),
    "an insurance account that bears anything": Mutant(
        LIQUIDATION, "return margin.equity(state, INSURANCE) + worth >= kept", "return True"
    ),
    "the least gain is deleveraged first": Mutant(
        LIQUIDATION,
        "return state.rank_keys[one] > state.rank_keys[other]",
        "return state.rank_keys[one] < state.rank_keys[other]",
    ),
    "a debt that nobody bears": Mutant(
        LIQUIDATION, "if amount != 0 and account != INSURANCE:", "if amount > 0 and account != INSURANCE:"
    ),
    "the present mark for who has nothing left": Mutant(
        LIQUIDATION, "contract.mark if is_solvent else contract.sound_mark", "contract.mark"
    ),
    "a stop at the wrong side of the mark": Mutant(
        SHELF, "price >= trigger_price if condition", "price <= trigger_price if condition"
    ),
    "a stop that goes one tick late": Mutant(SHELF, "if level.price <= mark:", "if level.price < mark:"),
    "what waits for a fall goes first": Mutant(
        SHELF, "Side.SELL if condition == Condition.ABOVE", "Side.BUY if condition == Condition.ABOVE"
    ),
    "a stop in a closed market": Mutant(
        TRIGGERS, "if is_open(state.markets[market]) else NO_SLOT", "if True else NO_SLOT"
    ),
    "a sibling that stays": Mutant(
        TRIGGERS, "        matching.end_members(state, account, group, Role.CHILD, SIBLING)", "        pass"
    ),
    "children of another parent": Mutant(MATCHING, " or state.facts[slot].group != group):", "):"),
    "children that are born without a fill": Mutant(
        MATCHING, "bears = status == MARGIN_CANCELED and", "bears = status != MARGIN_CANCELED or"
    ),
    "children that outlive their parent": Mutant(
        MATCHING,
        "        end_members(state, account, group, Role.UNBORN, status)",
        "        pass",
        unsound=True,
    ),
    "a filled parent whose children wait on": Mutant(
        MATCHING, "        release_children(state, maker_account, group)", "        pass"
    ),
    "a child that ends before it was born": Mutant(
        MATCHING, "            if order.role != Role.UNBORN:\n", "            if True:\n"
    ),
    "a stop that holds margin": Mutant(
        JUDGING, " or order.state == OrderState.UNTRIGGERED:", ":", unsound=True
    ),
    "a stop of a position that is not all of it": Mutant(
        TRIGGERS, "    if own.quantity == 0:\n", "    if own.quantity < 0:\n"
    ),
    "a modified child that is an orphan": Mutant(
        TRIGGERS,
        "heap.group, heap.role = state.facts[old].group, order.role",
        "heap.group, heap.role = state.facts[old].group, Role.ALONE",
    ),
    "a stop that keeps its time": Mutant(
        TRIGGERS,
        "own.quantity, own.time_ns = order.quantity, heap.time_ns",
        "own.quantity, own.time_ns = order.quantity, facts.placed_ms * 1_000_000",
    ),
    "a slice that is never caught up": Mutant(
        TWAP, "quantity = min(target - row.executed, most)", "quantity = min(most // 3, most)"
    ),
    "a slice as far as it likes": Mutant(TWAP, "SLIPPAGE, PER_MILLE = 30", "SLIPPAGE, PER_MILLE = 300"),
    "a last slice that is forgotten": Mutant(TWAP, "if row.slices >= slices:", "if row.slices > slices + 1:"),
    "slices that outlive a kill": Mutant(
        TWAP,
        "is_killed or state.accounts[row.account].is_killed:\n        return Twap.TERMINATED",
        "is_killed and False:\n        return Twap.TERMINATED",
    ),
    "a slice without its margin": Mutant(TWAP, "and judging.bears_slice(state, own, account)", "and True"),
    "all of it withdrawable": Mutant(
        MARGIN, "max(row.used, ceil_div(row.notional, TRANSFER_PART))", "row.used"
    ),
    "a large position sold at once": Mutant(
        LIQUIDATION, "if in_parts and _value(state, account, market) > PARTIAL_VALUE:", "if False:"
    ),
    "a part twice in half a minute": Mutant(LIQUIDATION, "PARTIAL_MS = 30_000", "PARTIAL_MS = 0"),
    "a tie that goes the other way": Mutant(
        LIQUIDATION,
        "return state.rank_rows[one] < state.rank_rows[other]",
        "return state.rank_rows[one] > state.rank_rows[other]",
    ),
    "a circle that ends one account early": Mutant(
        LIQUIDATION, "while heap.circle_left > 0 and looked", "while heap.circle_left > 1 and looked"
    ),
}


class _Put(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module with a line changed."""

    def __init__(self, mutant: Mutant):
        self._mutant = mutant

    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name == self._mutant.module else None

    def exec_module(self, module):
        exec(mutated(self._mutant), module.__dict__)


def mutated(mutant: Mutant) -> str:
    """The module's text with the line changed, which must stand there once."""
    text = (ROOT / mutant.module.replace(".", "/")).with_suffix(".py").read_text()
    if mutant.line:
        assert text.count(mutant.line) == 1, f"{mutant.module} has not one: {mutant.line}"
        text = text.replace(mutant.line, mutant.instead)
    return text


def judge(name: str) -> dict:
    """In a process of its own: how the mutant was caught, in one line, or None; and how by the scan alone."""
    assert mutated(MUTANTS[name])
    sys.meta_path.insert(0, _Put(MUTANTS[name]))
    signal.signal(signal.SIGVTALRM, _give_up)
    found = {"mutant": name, "caught": _catch(_play, MUTANTS[name].module in (SHELF, TRIGGERS, TWAP))}
    if MUTANTS[name].unsound:
        found["scanned"] = _catch(_scan)
    return found


def _catch(play, *arguments) -> str | None:
    try:
        play(*arguments)
    except Exception as caught:  # an index out of range tells as well as a difference
        return f"{type(caught).__name__}: {str(caught)[:LETTERS_MAX]}"
    return None


def _play(waits):
    """Every stream and every scene, with all that looks at them; waits: those with stops first."""
    from tests.exchange import test_by_hand
    from tests.exchange.compare import Comparison
    from tests.exchange.invariants import check_all
    from tests.exchange.witness import Witness

    ways = [(Comparison(swarm), Witness(), steps) for swarm, steps in _streams[:: -1 if waits else 1]]
    for start in range(0, COMMANDS, CHUNK):  # a little of each: one of them tells it soon
        for comparison, witness, steps in ways:
            _next_step()
            witness.hear(comparison.put(steps[start : start + CHUNK]).outcomes)
    for comparison, witness, _ in ways:
        _next_step()
        assert check_all(comparison.state) == witness.book
    for play in vars(test_by_hand).values():
        if getattr(play, "__name__", "").startswith("test_"):
            _next_step()
            scene = test_by_hand.Scene(lambda state: None)
            play(scene)
            check_all(scene.state)
    _play_by_hand()


def _play_by_hand():
    """The scenes that were worked by hand, by their numbers alone: nothing scans the state."""
    import pytest

    from tests.exchange import alone

    alone.check_all = lambda state: 0
    files = [str(ROOT / "tests" / "exchange" / f"test_{name}.py") for name in BY_HAND]
    _next_step()
    with redirect_stdout(io.StringIO()) as said:
        code = pytest.main([*files, "-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider"])
    if code != 0:
        raise AssertionError(next(line for line in said.getvalue().splitlines() if "FAILED" in line))


def _scan():
    """The small streams, and after each command a look at the state: at nothing that it told."""
    from engine.exchange.state import allocate
    from tests.exchange.compare import run
    from tests.exchange.invariants import check_all
    from tests.exchange.terms import encode

    for swarm, steps in _streams:
        if swarm.capacity is TIGHT:
            _next_step()
            state = allocate(swarm.capacity)
            for step in steps[:SCANNED]:
                run(state, encode([step.command]))
                check_all(state)


def _next_step():
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_MAX)


def _give_up(*_):
    raise TimeoutError("it does not end")


_streams = []


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # and with us those that we have forked
    for swarm in STREAMS:
        _streams.append((swarm, list(swarm.steps(COMMANDS))))
    with get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        for found in pool.imap(judge, MUTANTS, chunksize=1):
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
