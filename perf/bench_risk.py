"""What does risk cost: margin, fees and positions beside the book, and a tick of the oracle for everybody?

book    exchange-core's mix at 1,000 resting orders: apply / the same outcomes put on the books alone (orders
        found, placed, reduced and removed, with nobody's money)
tick    one ORACLE of each of 64 markets and the end of blocks until everybody was looked at, with 100,000
        accounts that hold two positions each / a bare look at each of these positions
"""

from collections.abc import Hashable

import numpy as np
from numba import njit

from engine import book
from engine.exchange import state as states
from engine.exchange.apply import apply_commands
from engine.exchange.operating import command
from engine.exchange.records import Kind
from engine.exchange.state import Capacity
from perf import ratio
from perf.apply_commands import BLOCK
from perf.bench_apply import A_TURN, ROUNDS, Run, a_mix
from shm import index
from shm.codes import Ask, Command, Flag, Side, Tif

THOUSAND = 1_000
MARKETS, ACCOUNTS, HELD = 64, 100_000, 2
TICKS = 9
USD = 10**6
PRICE, LOT = 100 * 10**4, 10  # of markets with two size decimals: 100 USD, a tenth of a coin


# --- the book alone ---------------------------------------------------------------------------------------


@njit(nogil=True)
def put_on_books(rows, outcomes, count):
    """Put what outcomes[:count] (OUTCOME[]) tell of orders on the books of `rows`; return how many did."""
    done = 0
    for i in range(count):
        outcome = outcomes[i]
        if outcome.kind == Kind.OPENED:
            slot = book.take_slot(rows)
            order = rows.orders[slot]
            order.order, order.price, order.quantity = outcome.order, outcome.price, outcome.quantity
            order.original, order.account, order.market = outcome.original, outcome.account, outcome.market
            order.side, order.tif, order.flags = outcome.side, outcome.tif, outcome.flags
            book.rest(rows, slot)
            done += 1
        elif outcome.kind == Kind.FILLED or outcome.kind == Kind.ENDED:
            if outcome.flags & Flag.CROSSED:
                continue
            slot = index.find_order(rows.order_index, rows.orders, outcome.order)
            if outcome.kind == Kind.FILLED and outcome.done == 0:
                book.resize(rows, slot, outcome.original)
            else:
                book.leave(rows, slot)
            done += 1
    return done


class Books:
    """The outcomes of a stream, and books alone that follow them."""

    def __init__(self, run: Run) -> None:
        told, engine = [], run.engine
        while run.at < len(run.stream.commands):
            commands = run.stream.commands[run.at : run.at + BLOCK]
            run.apply(len(commands))
            told.append(engine.outcomes[: engine.heap[0]["outcomes"]].copy())
        self.parts, self.rows, self.at = told, states.allocate(run.stream.capacity), 0

    def apply(self, parts: int) -> int:
        done = 0
        for part in self.parts[self.at : self.at + parts]:
            done += put_on_books(self.rows, part, len(part))
        self.at += parts
        return done


def beside_the_book() -> tuple[ratio.Work, ratio.Work]:
    """Both are at the same place of the same stream at every turn."""
    stream = a_mix(THOUSAND)
    books, run = Books(Run(stream)), Run(stream)
    skipped = -(-stream.start // BLOCK)
    run.apply(skipped * BLOCK)
    books.apply(skipped)
    parts = A_TURN // BLOCK

    def applied() -> Hashable:
        run.apply(parts * BLOCK)
        return 0

    def booked() -> Hashable:
        books.apply(parts)
        return 0

    return applied, booked


# --- a tick -----------------------------------------------------------------------------------------------


def crowd() -> tuple[states.State, list[int]]:
    """Accounts with positions against one who holds the other side of all of them; and where time stands."""
    capacity = Capacity(MARKETS, ACCOUNTS + 8, 4 * BLOCK, 1 << 14, 8, 1 << 20, BLOCK)
    engine, clock = states.allocate(capacity), [0, 1_800_000_000 * 10**9]
    commands = [
        command(Command.ADD_MARKET, text=b"M%d" % m, side=2, price=PRICE, amount=20) for m in range(MARKETS)
    ]
    commands += [command(Command.DEPOSIT, other=who(0), amount=10**15)]
    commands += [command(Command.DEPOSIT, other=who(n), amount=1000 * USD) for n in range(1, ACCOUNTS + 1)]
    commands += [command(Command.ORACLE, market=m, price=PRICE) for m in range(MARKETS)]
    apply_all(engine, clock, commands)
    for first in range(1, ACCOUNTS + 1, THOUSAND):
        commands = [ordered(0, m, Side.SELL, THOUSAND * HELD * LOT, Tif.GTC) for m in range(MARKETS)]
        for number in range(first, first + THOUSAND):
            commands += [
                ordered(number, (number + 7 * k) % MARKETS, Side.BUY, LOT, Tif.IOC) for k in range(HELD)
            ]
        commands += [
            command(Command.CANCEL_ALL, signer=who(0), flags=int(Ask.SESSION)),
            command(Command.END_BLOCK),
        ]
        apply_all(engine, clock, commands)
    return engine, clock


def who(number: int) -> bytes:
    return (number + 1).to_bytes(20, "big")


def ordered(number: int, market: int, side: Side, quantity: int, tif: Tif) -> np.ndarray:
    fields = {"side": int(side), "price": PRICE, "quantity": quantity, "tif": int(tif), "market": market}
    return command(Command.ORDER, signer=who(number), flags=int(Ask.SESSION), **fields)


def apply_all(engine: states.State, clock: list[int], commands: list[np.ndarray]) -> None:
    """Apply commands (COMMAND[1] each), a microsecond apart. clock: sequence and time, moved on."""
    rows = np.concatenate(commands)
    rows["sequence"] = clock[0] + 1 + np.arange(len(rows))
    rows["time_ns"] = clock[1] + 1000 * np.arange(len(rows))
    clock[0], clock[1] = clock[0] + len(rows), clock[1] + 1000 * len(rows)
    while len(rows):
        rows = rows[apply_commands(engine, rows, min(len(rows), BLOCK)) :]


@njit(nogil=True)
def looked_at(positions, markets, count):
    """The value of every position, summed: the least that anybody could do."""
    total = 0
    for at in range(count):
        size = positions[at].size
        if size != 0:
            total += size * markets[at % len(markets)].mark
    return total


def ticked() -> tuple[ratio.Work, ratio.Work]:
    engine, clock = crowd()
    assert int(engine.heap[0]["positions"]) > ACCOUNTS * HELD
    prices = [PRICE]

    def tick() -> Hashable:
        prices[0] += 1
        clock[1] += 3 * 10**9
        commands = [command(Command.ORACLE, market=m, price=prices[0]) for m in range(MARKETS)]
        apply_all(engine, clock, [*commands, command(Command.END_BLOCK)])
        while engine.heap[0]["circle_left"] > 0:
            apply_all(engine, clock, [command(Command.END_BLOCK)])
        return 0

    def look() -> Hashable:
        looked_at(engine.positions, engine.markets, len(engine.positions))
        return 0

    return tick, look


def main() -> None:
    name = "margin, fees and positions: apply / the books alone"
    ratio.report(
        name, beside_the_book, rounds=ROUNDS - 1
    )  # the stream begins within a block: its last turn is short
    name = f"a tick of {MARKETS} oracles over {ACCOUNTS:,} accounts / a bare look at their positions"
    ratio.report(name, ticked, processes=3, rounds=TICKS)
    tick, _ = ticked()
    tick()
    spent = [ratio._nanoseconds(tick) / 1e6 for _ in range(TICKS)]
    print(f"  such a tick takes {np.median(spent):.1f} ms ({min(spent):.1f}..{max(spent):.1f})")


if __name__ == "__main__":
    main()
