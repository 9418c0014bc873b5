"""Where the fair prices of simulated markets go: a seeded walk that knows no clock.

Each market's log price is pulled back to its reference and shaken by a shock of its own and one that all
share. Calm, busy and wild times follow each other for all markets together, and now and then a price jumps. A
jump excites those who trade, and that wears off: so there are bursts. Prices mean nothing outside of here.
"""

from collections.abc import Iterable
from math import exp, sqrt
from random import Random
from typing import NamedTuple

from scripts.simulated_market import Spec

STEP_SECONDS = 0.1
PULL = 1 / 1_800  # of the way back to the reference, each second
VOLATILITY = 0.8e-4  # of a calm second, relative
SHARED = 0.6  # of a market's shock is common to all; the squares of this and OWN make 1
OWN = 0.8
JUMPS_PER_SECOND = 1 / 60  # of each market, in calm times
JUMP = 8e-4  # the mean size of one, relative
EXCITEMENT_SECONDS = 3.0  # until 1/e of it is left
FARTHEST = 0.2  # of the logarithm from the reference


class Regime(NamedTuple):
    """times: how many times as volatile as in calm. seconds: how long it lasts, on average."""

    times: float
    seconds: float


CALM, BUSY, WILD = REGIMES = (Regime(1, 60), Regime(2.5, 15), Regime(6, 4))


class Prices:
    """The fair price of each market, in its own integers, after so many steps of STEP_SECONDS."""

    def __init__(self, random: Random, specs: Iterable[Spec]):
        self._random = random
        self._specs = {spec.coin: spec for spec in specs}
        self._moved = dict.fromkeys(self._specs, 0.0)  # logarithm of price / reference
        self._regime = CALM
        self.excitement = dict.fromkeys(self._specs, 0.0)  # 1: one jump of the mean size just now

    @property
    def volatility(self) -> float:
        """Of one second, relative, of every market at present."""
        return VOLATILITY * self._regime.times

    def fair(self, coin: str) -> int:
        """In 10^-price_decimals USD, at least 1; mostly not a legal price."""
        return max(1, round(self._specs[coin].reference * exp(self._moved[coin])))

    def step(self) -> None:
        """Let STEP_SECONDS go by."""
        draw = self._random
        if draw.random() < STEP_SECONDS / self._regime.seconds:
            self._regime = draw.choice([regime for regime in REGIMES if regime is not self._regime])
        shared = draw.gauss(0, 1)
        for coin, moved in self._moved.items():
            shock = self.volatility * sqrt(STEP_SECONDS) * (SHARED * shared + OWN * draw.gauss(0, 1))
            jump = self._jump(coin)
            moved += shock + jump - PULL * STEP_SECONDS * moved
            self._moved[coin] = min(max(moved, -FARTHEST), FARTHEST)

    def _jump(self, coin: str) -> float:
        self.excitement[coin] *= exp(-STEP_SECONDS / EXCITEMENT_SECONDS)
        if self._random.random() >= JUMPS_PER_SECOND * STEP_SECONDS * self._regime.times:
            return 0.0
        jump = self._random.choice((-1, 1)) * self._random.expovariate(1 / JUMP)
        self.excitement[coin] += abs(jump) / JUMP
        return jump
