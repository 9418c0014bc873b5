"""A cascade with the shape of 10 October 2025: 162 markets fall within minutes, and their longs with them.

    python -m perf.cascade [--accounts 20000] [--markets 162] [--to DIR]

Makers quote around each market's oracle, ever more thinly while it falls; accounts, mostly long and at the
leverage they were allowed, do nothing but lose. What becomes of them is the engine's doing: sold on the book,
taken by the insurance account, deleveraged against the shorts. The run is a function of its numbers: it
prints the digest over all outcomes, a line for each half minute, and writes cascade.csv and cascade.svg.
"""

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine.exchange.apply import apply_commands
from engine.exchange.records import OUTCOME, Kind
from engine.exchange.state import INSURANCE, INSURANCE_ADDRESS, Capacity, State, allocate
from shm.codes import Ask, Command, Side, Tif
from shm.layout import COMMAND

USD = 10**6
BEGIN_MS = 1_760_125_800_000  # 10 October 2025, 19:50 UTC
TICK_MS, BLOCK_MS = 3000, 1000
CALM_TICKS, FALL_TICKS, RISE_TICKS, QUIET_TICKS = 10, 200, 60, 30  # 30 s, ten minutes, three, one and a half
MAKERS = 40
QUOTES = 3  # levels a side that a maker keeps
LEVERAGES = (40, 25, 20, 10, 5, 3)  # of the majors, and on the way to the smallest
DEPTHS = (0.14, 0.18, 0.25, 0.4, 0.6, 0.75)  # how far they fall
DECIMALS = 2
BATCH = 4096
METHODS = ("book", "backstop", "deleveraged")
COLUMNS = (
    "second", "index", *(f"{name}_{what}" for what in ("count", "usd") for name in METHODS), "insurance_usd",
)  # fmt: skip


class Tape:
    """Commands of one run, stamped as they are made."""

    def __init__(self) -> None:
        self.made, self.sequence, self.now_ms = [], 0, BEGIN_MS

    def add(self, kind: Command, **fields: int | bytes) -> None:
        self.sequence += 1
        self.made.append((self.sequence, self.now_ms * 10**6, int(kind), fields))

    def order(self, who: bytes, market: int, side: Side, price: int, quantity: int, tif: Tif) -> None:
        fields = {"side": int(side), "price": price, "quantity": quantity, "tif": int(tif), "market": market}
        self.add(Command.ORDER, signer=who, flags=int(Ask.SESSION), **fields)

    def take(self) -> np.ndarray:
        """All that was made since the last call, as COMMAND[]."""
        out = np.zeros(len(self.made), COMMAND)
        for row, (sequence, time_ns, kind, fields) in zip(out, self.made, strict=True):
            row["sequence"], row["time_ns"], row["kind"], row["count"] = sequence, time_ns, kind, 1
            for name, value in fields.items():
                if isinstance(value, bytes):
                    row[name][: len(value)] = np.frombuffer(value, np.uint8)
                else:
                    row[name] = value
        self.made.clear()
        return out


def address(number: int) -> bytes:
    return (number + 1).to_bytes(20, "big")


class Cascade:
    """The story, told in commands: `tell` yields them a tick at a time."""

    def __init__(self, markets: int, accounts: int, seed: int = 20251010):
        self.chance, self.tape = random.Random(seed), Tape()
        self.kinds = [
            min(len(LEVERAGES) - 1, market * len(LEVERAGES) // markets) for market in range(markets)
        ]
        self.starts = [rounded(int(10 ** self.chance.uniform(5, 9))) for _ in range(markets)]
        self.prices = list(self.starts)
        self.makers = [address(number) for number in range(MAKERS)]
        self.others = [address(MAKERS + number) for number in range(accounts)]

    def tell(self) -> Iterator[np.ndarray]:
        self._open()
        yield self.tape.take()
        yield from self._fill_positions()
        ticks = CALM_TICKS + FALL_TICKS + RISE_TICKS + QUIET_TICKS
        for tick in range(ticks):
            self._tick(tick)
            yield self.tape.take()

    def _open(self) -> None:
        tape = self.tape
        for market, kind in enumerate(self.kinds):
            tape.add(
                Command.ADD_MARKET, text=b"M%d" % market, side=DECIMALS, price=self.starts[market],
                amount=LEVERAGES[kind], quantity=150, order=450,
            )  # fmt: skip
        for maker in self.makers:
            tape.add(Command.DEPOSIT, other=maker, amount=500_000_000 * USD)
        for who in self.others:
            dollars = min(5_000_000, int(self.chance.lognormvariate(8.5, 1.6)) + 200)
            tape.add(Command.DEPOSIT, other=who, amount=dollars * USD)
        tape.add(Command.DEPOSIT, other=INSURANCE_ADDRESS, amount=len(self.others) * 100 * USD)
        self._speak()

    def _speak(self) -> None:
        """An oracle price of each market, and quotes around it."""
        for market, price in enumerate(self.prices):
            self.tape.add(Command.ORACLE, market=market, price=price)

    def _quote(self, depth: float) -> None:
        """Each market's two makers move their quotes; `depth` of what they quote on a calm day."""
        chance = self.chance
        for maker in self.makers:
            self.tape.add(Command.CANCEL_ALL, signer=maker, flags=int(Ask.SESSION))
        for market, price in enumerate(self.prices):
            maker = self.makers[market % MAKERS]
            for level in range(QUOTES):
                dollars = int(depth * (400_000 >> self.kinds[market]) * chance.uniform(0.5, 1.5)) + 20
                quantity = max(1, dollars * USD // price)
                off = price * (2 + 5 * level) // 1000 + 1
                for side, at in ((Side.BUY, price - off), (Side.SELL, price + off)):
                    self.tape.order(maker, market, side, rounded(max(1, at)), quantity, Tif.GTC)

    def _fill_positions(self) -> Iterator[np.ndarray]:
        """Everyone takes one to four positions, five of six of them long, at the leverage he may have."""
        chance = self.chance
        self._quote(500)
        for place, who in enumerate(self.others):
            for _ in range(chance.randint(1, 4)):
                market = min(len(self.kinds) - 1, int(chance.expovariate(6) * len(self.kinds)))
                leverage = max(1, LEVERAGES[self.kinds[market]] // chance.choice([1, 1, 2, 4]))
                cross = 0 if chance.random() < 0.4 else int(Ask.IS_CROSS)
                self.tape.add(
                    Command.UPDATE_LEVERAGE, signer=who, market=market, amount=leverage,
                    flags=int(Ask.SESSION) | cross,
                )  # fmt: skip
                dollars = min(400_000, int(chance.lognormvariate(7.5, 1.4)) * leverage) + 20
                price = self.prices[market]
                side = Side.BUY if chance.random() < 5 / 6 else Side.SELL
                limit = rounded(price * (103 if side == Side.BUY else 97) // 100)
                self.tape.order(who, market, side, limit, max(1, dollars * USD // price), Tif.IOC)
            if place % 200 == 199:
                self.tape.now_ms += TICK_MS
                self._speak()
                self._quote(500)
                self.tape.add(Command.END_BLOCK)
                yield self.tape.take()

    def _tick(self, tick: int) -> None:
        """Three seconds: the oracles speak, makers move, three blocks end."""
        fall = min(1.0, max(0, tick - CALM_TICKS) / FALL_TICKS)
        rise = min(1.0, max(0, tick - CALM_TICKS - FALL_TICKS) / RISE_TICKS)
        depth = 0.02 if 0 < fall < 1 else 0.3 if 0 < rise < 1 else 1.0
        for market, start in enumerate(self.starts):
            lost = DEPTHS[self.kinds[market]] * fall**2 * (1 - 0.4 * rise)
            noise = 1 + self.chance.gauss(0, 0.002 + 0.01 * (0 < fall < 1))
            self.prices[market] = rounded(max(100, int(start * (1 - lost) * noise)))
        self._speak()
        self._quote(depth)
        for _ in range(TICK_MS // BLOCK_MS):
            self.tape.now_ms += BLOCK_MS
            self.tape.add(Command.END_BLOCK)


def rounded(price: int) -> int:
    """To five figures."""
    step = 10 ** max(0, len(str(price)) - 5)
    return price // step * step


def apply_all(state: State, commands: np.ndarray) -> np.ndarray:
    """Apply all; return the outcomes."""
    parts = [np.zeros(0, OUTCOME)]
    while len(commands):
        done = apply_commands(state, commands, min(len(commands), BATCH))
        parts.append(state.outcomes[: state.heap[0]["outcomes"]].copy())
        commands = commands[done:]
    return np.concatenate(parts)


def check(state: State) -> None:
    """Collateral is conserved and positions cancel out, to the last unit."""
    markets = len(state.markets)
    positions = state.positions.reshape(-1, markets)
    assert (positions["size"].sum(axis=0) == 0).all(), "positions net to zero"
    wealth = int(state.accounts["cash"].sum() + positions["isolated"].sum() - positions["entry"].sum())
    assert wealth == int(state.accounts["deposited"].sum()), "collateral is conserved"


def check_kept(state: State) -> int:
    """Nobody is left below his maintenance margin; return how many have positions."""
    markets, rows = len(state.markets), state.positions.reshape(-1, len(state.markets))
    value = rows["size"] * state.markets["mark"]
    leverage = np.maximum(state.markets["max_leverage"], 1)  # each market has one tier
    kept, profit = -(-abs(value) // (2 * leverage)), value - rows["entry"]
    cross = rows["is_isolated"] == 0
    over = state.accounts["cash"] + ((profit - kept) * cross).sum(axis=1)
    holds = (rows["size"] != 0) & cross
    below = holds.any(axis=1) & (over < 0)
    below[: INSURANCE + 1] = False
    assert not below.any(), f"{below.sum()} accounts of {markets} markets are below maintenance"
    aside = (rows["size"] != 0) & ~cross & (rows["isolated"] + profit < kept)
    assert not aside.any(), f"{aside.sum()} isolated positions are below maintenance"
    return int((rows["size"] != 0).any(axis=1).sum())


def row_of(state: State, starts: list[int], outcomes: np.ndarray) -> list[int | float]:
    """One line of the log: what was done to whom in this part of the story."""
    told = outcomes[outcomes["kind"] == Kind.LIQUIDATED]
    counts = [int((told["code"] == 1 + method).sum()) for method in range(len(METHODS))]
    values = [
        int(told["quantity"][told["code"] == 1 + method].sum()) // USD for method in range(len(METHODS))
    ]
    index = float(np.mean(state.markets["mark"][: len(starts)] / np.array(starts)))
    held = state.positions.reshape(-1, len(state.markets))[1]
    insurance = int(state.accounts[1]["cash"] + (held["size"] * state.markets["mark"] - held["entry"]).sum())
    second = (int(state.heap[0]["time_ns"]) // 10**6 - BEGIN_MS) // 1000
    return [second, round(index, 4), *counts, *values, insurance // USD]


def run(markets: int, accounts: int) -> tuple[State, list[list[int | float]], float, int]:
    """The whole story; the state at its end, its log, the engine's seconds, and its commands."""
    capacity = Capacity(
        markets=markets, accounts=accounts + MAKERS + 8, orders=1 << 16, levels=1 << 18, agents=8,
        outcomes=1 << 20, commands=BATCH,
    )  # fmt: skip
    story, state, rows, seconds, count = Cascade(markets, accounts), allocate(capacity), [], 0.0, 0
    for part in story.tell():
        begin = time.perf_counter()
        outcomes = apply_all(state, part)
        seconds, count = seconds + time.perf_counter() - begin, count + len(part)
        check(state)
        rows.append(row_of(state, story.starts, outcomes))
    return state, rows, seconds, count


def plot(rows: list[list[int | float]]) -> str:
    """The index of all marks, what was liquidated a tick by each method, the insurance account; as SVG."""
    width, height, pad = 900, 180, 50
    table = np.array(rows, float)
    seconds = table[:, 0] - table[0, 0]
    x = pad + seconds / max(seconds[-1], 1) * (width - 2 * pad)
    panels = (
        ("mean mark / first mark", [(table[:, 1], "#333")]),
        ("liquidated, million USD a tick: book, backstop, deleveraged",
         [(table[:, 5] / 1e6, "#2a6"), (table[:, 6] / 1e6, "#26c"), (table[:, 7] / 1e6, "#c33")]),
        ("insurance account, million USD", [(table[:, 8] / 1e6, "#639")]),
    )  # fmt: skip
    body = []
    for number, (title, lines) in enumerate(panels):
        top = number * height + 30
        most = max(float(line.max()) for line, _ in lines) or 1.0
        least = min(0.0, *(float(line.min()) for line, _ in lines))
        body.append(
            f'<text x="{pad}" y="{top - 8}" font-size="13">{title} ({least:.1f} to {most:.1f})</text>'
        )
        for line, colour in lines:
            y = top + (height - 50) * (1 - (line - least) / (most - least))
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
            body.append(f'<polyline fill="none" stroke="{colour}" points="{points}"/>')
    size = f'width="{width}" height="{3 * height + 20}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">{"".join(body)}</svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=162)
    parser.add_argument("--accounts", type=int, default=20_000)
    parser.add_argument("--to", type=Path, default=Path("."))
    settings = parser.parse_args()
    state, rows, seconds, count = run(settings.markets, settings.accounts)
    for row in rows[:: 30_000 // TICK_MS]:
        print(dict(zip(COLUMNS, row, strict=True)))
    lines = [",".join(COLUMNS), *(",".join(map(str, row)) for row in rows)]
    (settings.to / "cascade.csv").write_text("\n".join(lines) + "\n")
    (settings.to / "cascade.svg").write_text(plot(rows))
    print(f"{check_kept(state)} accounts hold positions, all above their maintenance margin")
    print(f"digest {int(state.heap[0]['digest']) & (1 << 64) - 1:016x}  {count} commands in {seconds:.1f} s")


if __name__ == "__main__":
    main()
