"""Drive a follower by hand: small tables, a clock that moves when told, books as plain tuples."""

from pathlib import Path
from typing import Any

import numpy as np

from engine import image, verify
from engine.follow import checkpoint
from engine.follow.bootstrap import FileSource
from engine.follow.follower import Follower
from engine.state import Capacity, allocate, market_name
from shm.codes import Flag, Stale
from shm.units import format_decimal

SMALL = Capacity(
    markets=32, accounts=1 << 10, orders=1 << 13, levels=1 << 14, names=256,
    events=1 << 13, trades=1 << 10, fills=1 << 10, closed=1 << 10, rejected=1 << 10, buckets=1 << 8,
)  # fmt: skip
RECORDED = SMALL._replace(accounts=1 << 15, orders=1 << 17, levels=1 << 17, events=1 << 16)
TICK_NS = 1_000_000
SETTLE_NS = 12_000_000_000  # longer than anything waits

Order = tuple[int, str, str, str, str, str | None]  # oid, side, price, size, user, cloid
UNKNOWN = "?"  # the cloid of an order that only its diff has told


class Following:
    """A follower of `node_data` with a snapshot file, its clock and its checkpoints."""

    def __init__(self, node_data: Path, snapshot: Path | None, capacity: Capacity = SMALL, **options: Any):
        self.node_data, self.snapshot, self.capacity, self.options = node_data, snapshot, capacity, options
        self.checkpoints = node_data / "checkpoints"
        self.now_ns = 1
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self._begin()

    def _begin(self) -> None:
        self.state = allocate(self.capacity)
        source = FileSource(self.snapshot) if self.snapshot is not None else None
        self.follower = Follower(
            self.state,
            self.capacity,
            self.node_data,
            source,
            log=lambda event, facts: self.logged.append((event, facts)),
            **self.options,
        )

    def poll(self, ticks: int = 1, step_ns: int = TICK_NS) -> int:
        """Let time pass and poll; return how many blocks were applied."""
        applied = 0
        for _ in range(ticks):
            self.now_ns += step_ns
            applied += self.follower.poll(self.now_ns)
        return applied

    def settle(self) -> None:
        """Poll until nothing more can come of what is there: all files read, every wait over, checks done."""
        quiet_ns = 0
        while quiet_ns < SETTLE_NS:
            quiet_ns = 0 if self.poll(1, SETTLE_NS // 40) else quiet_ns + SETTLE_NS // 40
            if self.follower.checking:
                quiet_ns = 0

    def compare_every(self, period_ns: int) -> None:
        """From now on compare with each new snapshot, doubt or none."""
        self.options["check_ns"] = self.follower._check_ns = period_ns

    def save(self) -> None:
        taken = self.follower.checkpoint()
        if taken is not None:
            checkpoint.save(taken, self.checkpoints)

    def restart(self) -> None:
        """End as by SIGKILL, and begin again from the last checkpoint."""
        self.follower.close()
        self._begin()
        self.follower.resume(self.checkpoints)

    def verify(self) -> None:
        verify.verify(self.state)

    def books(self) -> dict[str, list[Order]]:
        """Coin -> its resting orders in priority, bids first."""
        return {
            market_name(self.state, market): [self._order(row) for row in image.resting(self.state, market)]
            for market in range(int(self.state.status[0]["market_count"]))
        }

    def _order(self, row: np.void) -> Order:
        user = bytes(self.state.accounts[row["account"]]["address"]).hex()
        cloid = "0x" + bytes(row["cloid"]).hex() if row["flags"] & Flag.HAS_CLOID else None
        cloid = UNKNOWN if row["flags"] & Flag.SYNTHETIC else cloid
        price, size = format_decimal(row["price"], 8), format_decimal(row["quantity"], 8)
        return int(row["order"]), "BA"[row["side"]], price, size, "0x" + user, cloid

    def stale(self) -> dict[str, Stale]:
        """Coin -> why it is in doubt, of those that are."""
        count = int(self.state.status[0]["market_count"])
        return {
            market_name(self.state, market): Stale(int(self.state.markets[market]["stale"]))
            for market in range(count)
            if self.state.markets[market]["stale"]
        }


def books_of(snapshot: list[Any]) -> dict[str, list[Order]]:
    """The same of a node's L4 snapshot, its untriggered orders left out."""
    return {
        coin: [
            (order["oid"], order["side"], order["limitPx"], order["sz"], user, order["cloid"])
            for side in sides
            for user, order in side
            if not order["isTrigger"]
        ]
        for coin, sides in snapshot[1]
    }


def agree(mine: list[Order], truth: list[Order]) -> bool:
    """Whether two books are equal, but for what an order's diff does not tell where its status was lost."""
    return len(mine) == len(truth) and all(
        one[:5] == other[:5] and one[5] in (other[5], UNKNOWN) for one, other in zip(mine, truth, strict=True)
    )
