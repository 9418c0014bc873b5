"""The world that readers of an exchange see, and what the projection keeps beside it.

Its books, orders, accounts and rings are those of any world (engine/state.py); its contracts, funds,
positions, agents, ledger, candles, rates and TWAPs are its own. Tables are as large as the core's, so that
what the core has room for has room here.
"""

from typing import NamedTuple

import numpy as np

from engine import state as states
from engine.exchange.candles import INTERVALS
from engine.exchange.state import Capacity as CoreCapacity
from engine.state import Capacity, State, world_counts
from shm import constants as c
from shm.codes import Mode
from shm.layout import ENDED, FILL, LEDGER, TRADE, TWAP


class World(NamedTuple):
    """All of it. Everything after `state` and before `position_rows` lies in shared memory as well."""

    state: State
    contracts: np.ndarray
    funds: np.ndarray
    positions: np.ndarray
    agents: np.ndarray
    ledger_ring: np.ndarray
    ledger: np.ndarray
    candle_heads: np.ndarray
    candles: np.ndarray
    rates: np.ndarray
    twap_ring: np.ndarray
    twaps: np.ndarray
    running_twaps: np.ndarray
    # the projection's own
    position_rows: np.ndarray  # i4[accounts x markets]: row of `positions` + 1
    agent_rows: np.ndarray  # i4[signers of the core]: row of `agents` + 1
    of_slice: np.ndarray  # i8[2]: oid of the newest slice of a TWAP; the id of that
    pair: np.ndarray  # FILL[2]: of the trade under way, the maker's and the taker's
    trade: np.ndarray  # room for one record each
    ended: np.ndarray
    entry: np.ndarray
    twap_entry: np.ndarray


def capacity_for(core: CoreCapacity, candles_kept: int = c.CANDLES_KEPT, **more: int) -> Capacity:
    """How large a world shows an exchange of capacity `core`. more: fields of Capacity, instead of these."""
    sizes = {
        "markets": core.markets,
        "accounts": core.accounts,
        "orders": core.orders,
        "levels": core.levels,
        "contracts": core.markets,
        "funds": core.accounts,
        "positions": min(c.POSITIONS_MAX, core.accounts * core.markets),
        "agents": core.agents,
        "ledger": c.LEDGER_MAX,
        "candle_heads": INTERVALS * core.markets,
        "candles": INTERVALS * core.markets * candles_kept,
        "rates": c.RATES_KEPT * core.markets,
        "twaps": c.TWAPS_KEPT,
        "running_twaps": c.TWAPS_MAX,
    }
    return Capacity(**{**sizes, **more})


def allocate(capacity: Capacity, arrays: dict[str, np.ndarray] | None = None) -> World:
    """Make an empty world over `arrays` (zeroed sections of a world region), or in private memory."""
    shared = arrays or {
        name: np.zeros(count, dtype) for name, (dtype, count) in world_counts(capacity).items()
    }
    state = states.allocate(capacity, shared)
    state.status["mode"] = Mode.EXCHANGE
    return World(
        state=state,
        position_rows=np.zeros(capacity.accounts * capacity.markets, np.int32),
        agent_rows=np.zeros(capacity.accounts + capacity.agents, np.int32),
        of_slice=np.zeros(2, np.int64),
        pair=np.zeros(2, FILL),
        trade=np.zeros(1, TRADE),
        ended=np.zeros(1, ENDED),
        entry=np.zeros(1, LEDGER),
        twap_entry=np.zeros(1, TWAP),
        **{name: shared[name] for name in World._fields if name in shared},
    )
