"""The whole state of an exchange as arrays of fixed capacity: a function of the commands applied so far.

`book` (engine/book.py) works on it as it does on the world's rows: the names it needs are the same.
"""

from typing import NamedTuple

import numpy as np

from engine.exchange import records
from engine.state import EXTENT_CLASSES, power_of_two
from shm import constants as c
from shm.constants import LINE, TWAPS_MAX
from shm.layout import ACK, COMMAND, LEVEL, SIDE

FEE_ACCOUNT = 0  # row of the account that all fees go to
FEE_ADDRESS = bytes([0xFE]) * c.ADDRESS_BYTES
HELD_MAX = 1 << 18  # positions whose outcomes have room at once
INSURANCE = 1  # row of the account that bears what others cannot
INSURANCE_ADDRESS = bytes([0xFD]) * c.ADDRESS_BYTES


class Capacity(NamedTuple):
    """How many of each. A full table refuses what would need more of it, before anything changes."""

    markets: int = c.EXCHANGE_MARKETS_MAX
    accounts: int = c.EXCHANGE_ACCOUNTS_MAX
    orders: int = c.EXCHANGE_ORDERS_MAX
    levels: int = c.LEVELS_MAX
    agents: int = c.AGENTS_MAX
    outcomes: int = 1 << 16  # of one call, besides those that one command can have
    commands: int = 1 << 12  # of one call


TINY = Capacity(2, 4, 8, 128, 4, 256, 16)


class State(NamedTuple):
    """All of it. Everything but the last four is the state; those hold what a call gives."""

    heap: np.ndarray  # HEAP[1]
    status: np.ndarray  # STATUS[1]
    markets: np.ndarray
    sides: np.ndarray  # 4 a market: of its book, then, behind all of those, of what waits for its mark
    levels: np.ndarray
    orders: np.ndarray
    facts: np.ndarray  # ORDER_FACTS, by slot
    order_index: np.ndarray  # i8[], oid -> slot + 1
    cloid_index: np.ndarray  # i8[], (account, cloid) -> slot + 1
    accounts: np.ndarray
    account_index: np.ndarray  # i8[], address -> row + 1
    positions: np.ndarray  # accounts x markets
    signers: np.ndarray
    signer_index: np.ndarray
    free_orders: np.ndarray  # i4[], a stack
    free_extents: np.ndarray  # i8[EXTENT_CLASSES]
    twaps: np.ndarray  # TWAP[], heap.twap_count of them, by id
    own: np.ndarray  # COMMAND[1], of an order that nobody asked for
    rank_keys: np.ndarray  # i8[], of those who are ranked just now
    rank_rows: np.ndarray  # i4[], accounts
    touched_accounts: np.ndarray  # i4[], by the block under way
    touched_positions: np.ndarray  # i8[]
    outcomes: np.ndarray
    outcome_words: np.ndarray  # the same memory, i8[n, OUTCOME_WORDS]
    acks: np.ndarray


def allocate(capacity: Capacity) -> State:
    """Make the state before the first command: no market, no account."""
    signers = capacity.accounts + capacity.agents
    # a sweep can end every order, and a block's end tells of all it touched; unused pages cost nothing
    held = capacity.accounts * capacity.markets
    room = capacity.outcomes + 16 * capacity.orders + 2 * capacity.accounts + 32 * capacity.markets
    room += 16 * min(held, HELD_MAX)
    outcomes = _zeros(room, records.OUTCOME)
    state = State(
        heap=_zeros(1, records.HEAP),
        status=_zeros(1, records.STATUS),
        markets=_zeros(capacity.markets, records.MARKET),
        sides=_zeros(4 * capacity.markets, SIDE),
        levels=_zeros(capacity.levels, LEVEL),
        orders=_zeros(capacity.orders, records.ORDER),
        facts=_zeros(capacity.orders, records.ORDER_FACTS),
        order_index=_zeros(power_of_two(2 * capacity.orders), np.int64),
        cloid_index=_zeros(power_of_two(2 * capacity.orders), np.int64),
        accounts=_zeros(capacity.accounts, records.ACCOUNT),
        account_index=_zeros(power_of_two(2 * capacity.accounts), np.int64),
        positions=_zeros(capacity.accounts * capacity.markets, records.POSITION),
        signers=_zeros(signers, records.SIGNER),
        signer_index=_zeros(power_of_two(2 * signers), np.int64),
        free_orders=np.arange(capacity.orders - 1, -1, -1, np.int32),
        free_extents=_zeros(EXTENT_CLASSES, np.int64),
        twaps=_zeros(TWAPS_MAX, records.TWAP),
        own=_zeros(1, COMMAND),
        rank_keys=_zeros(capacity.accounts, np.int64),
        rank_rows=_zeros(capacity.accounts, np.int32),
        touched_accounts=_zeros(capacity.accounts, np.int32),
        touched_positions=_zeros(capacity.accounts * capacity.markets, np.int64),
        outcomes=outcomes,
        outcome_words=outcomes.view(np.int64).reshape(-1, records.OUTCOME_WORDS),
        acks=_zeros(capacity.commands, ACK),
    )
    state.heap["free_orders"] = capacity.orders
    return state


def _zeros(count: int, dtype: type | np.dtype) -> np.ndarray:
    """As np.zeros, but its rows begin where cache lines do."""
    dtype = np.dtype(dtype)
    memory = np.zeros(count * dtype.itemsize + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + count * dtype.itemsize].view(dtype)
