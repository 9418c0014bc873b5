"""An index finds exactly what a dict finds, after any history of entries and removals."""

import random

import numpy as np
import pytest

from shm import index, layout
from shm.constants import ADDRESS_BYTES

SLOTS = 32


def colliding(count, size):
    """Keys that all have their home in the last entry of an index of `size` words: the worst case."""
    return [key for key in range(1, 200_000) if index.mix(key) % size == size - 1][:count]


def sparse(count, size):
    chance = random.Random(3)
    return [chance.choice([chance.randrange(1, 100), chance.randrange(1, 2**40)]) for _ in range(count)]


@pytest.mark.parametrize("keys", [colliding, sparse])
@pytest.mark.parametrize("seed", range(10))
def test_orders_are_found_as_in_a_dict(keys, seed):
    chance, oids = random.Random(seed), sorted(set(keys(2 * SLOTS, 2 * SLOTS)))
    words, orders, naive = np.zeros(2 * SLOTS, layout.WORD), np.zeros(SLOTS, layout.ORDER), {}
    free = list(range(SLOTS))
    for _ in range(600):
        oid = chance.choice(oids)
        if oid in naive:
            index.remove_order(words, orders, oid)
            free.append(naive.pop(oid))
        elif free:
            slot = free.pop(chance.randrange(len(free)))
            orders["order"][slot] = naive[oid] = oid
            naive[oid] = slot
            index.add_order(words, oid, slot)
        assert {oid: index.find_order(words, orders, oid) for oid in oids} == {
            oid: naive.get(oid, layout.NO_SLOT) for oid in oids
        }
    assert np.count_nonzero(words) == len(naive), "no tombstones"


def test_a_full_index_still_answers():
    words, orders = np.zeros(4, layout.WORD), np.zeros(4, layout.ORDER)
    for slot in range(4):
        orders["order"][slot] = slot + 1
        index.add_order(words, slot + 1, slot)
    assert index.find_order(words, orders, 99) == layout.NO_SLOT
    assert index.find_order(words, orders, 3) == 2


def changed(address, at, by):
    return bytes([*address[:at], (address[at] + by) % 256, *address[at + 1 :]])


def test_accounts_are_found_by_all_twenty_bytes():
    chance, rows = random.Random(4), 100
    words, accounts = np.zeros(256, layout.WORD), np.zeros(rows, layout.ACCOUNT)
    base = chance.randbytes(ADDRESS_BYTES)
    addresses = [
        bytes([*base[: i % 20], (base[i % 20] + 1 + i) % 256, *base[i % 20 + 1 :]]) for i in range(rows)
    ]
    assert len(set(addresses)) == rows
    text = np.frombuffer(b"".join(addresses), np.uint8)
    for row in range(rows):
        assert index.find_account(words, accounts, text, row * ADDRESS_BYTES) == layout.NO_SLOT
        accounts["address"][row] = list(addresses[row])
        index.add_account(words, text, row * ADDRESS_BYTES, row)
    found = [index.find_account(words, accounts, text, row * ADDRESS_BYTES) for row in range(rows)]
    assert found == list(range(rows))
    assert index.find_account(words, accounts, np.frombuffer(base, np.uint8), 0) == layout.NO_SLOT


def test_neighbouring_keys_go_to_different_homes():
    homes = {index.mix(key) % 1024 for key in range(1_000, 1_256)}
    assert len(homes) > 150
    assert min(index.mix(key) for key in (-(2**63), -1, 0, 1, 2**63 - 1)) >= 0
    assert index.key_of(np.frombuffer(b"ab", np.uint8), 0, 1) != index.key_of(
        np.frombuffer(b"a\0", np.uint8), 0, 2
    )
