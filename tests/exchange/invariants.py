"""What must hold between any two commands, whatever they were: of the engine's arrays, scanned from scratch.

Each law is a loop over whole tables, with no memory of an earlier scan and none of the engine's own sums; it
raises AssertionError with what does not hold as its text. Compiled, all of them take some fifty microseconds
in a swarm's world, so `check_all` is called after every command and not now and then.
"""

import numpy as np
from numba import njit

from engine.exchange import cloids
from engine.exchange.records import NONCES_KEPT, Role
from engine.exchange.state import State
from shm import index
from shm.codes import Condition, Flag, OrderState, Side, Tif
from shm.constants import SIDE_LEVELS_MIN
from shm.layout import NO_ACCOUNT, NO_SLOT
from tests.exchange.interpreted import state_for_kernels

LEVERAGE_DEFAULT = 20
CASH_MOST = 10**18  # far from 2**63, and far above what anybody is ever given
VALUES_MOST = (
    10**12,
    10**15,
)  # a price times a quantity: of one order at most 150,000,000 USD; a size or price
ORDERS_LEAST, ORDERS_MOST, ORDER_VOLUME = 1000, 5000, 5 * 10**12
FIGURES = 10**5

# A wrong link is an IndexError, and not the end of the process.
scan = njit(cache=True, boundscheck=True)
law = njit(boundscheck=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def check_all(state: State) -> int:
    """Every law, of everything. Return a sum over the open orders: of the same orders, the same sum."""
    return int(_scan(state_for_kernels(state))) % 2**64


def mark_of(oid, account, market, side, price, quantity):
    """What an open order adds to that sum, which is taken modulo 2**64."""
    return (
        oid * 0x9E3779B97F4A7C1 ^ price * 0x2545F4914F6CDD1 ^ quantity * 0x5851F42D4C957F2
        ^ (account << 20 | market << 1 | side)
    )  # fmt: skip


_mark_of = njit(mark_of)


@scan
def _scan(state):
    _check_positions(state)
    _check_accounts(state)
    _check_margin(state)
    _check_slots(state)
    _check_books(state)
    _check_extents(state)
    _check_lists_of_accounts(state)
    _check_indexes(state)
    _check_signers(state)
    return _check_orders(state)


# --- money --------------------------------------------------------------------------------------------------


@law
def _check_positions(state):
    """Positions of a market cancel out; an account realises and uses what its positions do."""
    markets, entries, realised_by_all = len(state.markets), 0, 0
    sizes, longs = np.zeros(markets, np.int64), np.zeros(markets, np.int64)
    for account in range(len(state.accounts)):
        realised = 0
        for market in range(markets):
            held = state.positions[account * markets + market]
            sizes[market] += held.size
            longs[market] += max(held.size, 0)
            realised += held.realised
            entries += held.entry
            if held.size == 0:
                assert held.entry == 0, "no position, no entry"
                assert held.isolated == 0, "no position, no money set aside"
            else:
                assert (held.entry > 0) == (held.size > 0) and held.entry != 0, (
                    "an entry is on its position's side"
                )
        assert realised == state.accounts[account].realised, "an account realises what its positions do"
        realised_by_all += realised
    for market in range(markets):
        assert sizes[market] == 0, "positions of a market sum to zero"
        assert longs[market] == state.markets[market].open_interest, "open interest is the sum of longs"
    assert realised_by_all == entries, "what one side won the other lost or owes"


@law
def _check_accounts(state):
    """An account's money is what it was given, won and paid. The fee account has all fees, no debt."""
    fees, funded, given, markets = 0, 0, 0, len(state.markets)
    for account in range(state.status[0].account_count):
        fees += state.accounts[account].fees
    assert fees >= 0, "rebates never exceed fees"
    next_ms = state.heap[0].schedule_ms
    for account in range(state.status[0].account_count):
        row = state.accounts[account]
        aside = 0
        for market in range(markets):
            aside += state.positions[account * markets + market].isolated
        due = row.deposited + row.realised + row.funding - row.fees + (fees if account == 0 else 0)
        assert row.cash + aside == due, "money is what came in, was won and was paid in fees and funding"
        funded, given = funded + row.funding, given + row.deposited
        assert -CASH_MOST < row.cash < CASH_MOST, "no sum comes near the end of its word"
        limit = min(ORDERS_MOST, ORDERS_LEAST + row.volume // ORDER_VOLUME)
        assert row.order_count <= limit and row.reduce_count <= row.order_count, "open orders have a limit"
        if row.schedule_ms > 0:
            assert 0 < next_ms <= row.schedule_ms, "the next schedule is known"
    assert funded == 0, "what one pays for funding another gets"
    assert given == state.heap[0].deposited, "all deposits are known"


@law
def _check_margin(state):
    """Each position counts its open orders, and the margin of both."""
    markets = len(state.markets)
    buys, sells = np.zeros(len(state.positions), np.int64), np.zeros(len(state.positions), np.int64)
    for slot in range(len(state.orders)):
        order = state.orders[slot]
        if order.state == OrderState.RESTING and order.flags & Flag.REDUCE_ONLY == 0:
            at = order.account * markets + order.market
            if order.side == Side.BUY:
                buys[at] += order.price * order.quantity
            else:
                sells[at] += order.price * order.quantity
    for at in range(len(state.positions)):
        held = state.positions[at]
        assert held.buys == buys[at] and held.sells == sells[at], "a position knows the orders beside it"
    for account in range(state.status[0].account_count):
        _check_sums(state, account)
    for market in range(markets):
        _check_holders(state, market)


@law
def _check_sums(state, account):
    """What an account's positions come to, where its sums are said to be those of the marks as they are."""
    markets, row, following = len(state.markets), state.accounts[account], state.accounts[account].first_held
    used, profit, notional, maintenance = 0, 0, 0, 0
    for market in range(state.status[0].market_count):
        held, contract = state.positions[account * markets + market], state.markets[market]
        is_held = held.size != 0 or held.buys != 0 or held.sells != 0
        assert (held.is_held != 0) == is_held, "what is held is known to be"
        if not is_held:
            continue
        assert following == market + 1, "an account lists its positions and orders by market"
        following = held.next_held
        leverage, value = np.int64(held.leverage), held.size * contract.mark
        if leverage == 0:
            leverage = min(LEVERAGE_DEFAULT, contract.max_leverage)
        margin = -(-max(value + held.buys, held.sells - value) // leverage)
        if held.is_isolated:
            used += margin + (-abs(value)) // leverage
            continue
        used, profit, notional = used + margin, profit + value - held.entry, notional + abs(value)
        tier = 0
        while tier + 1 < contract.tier_count and contract.tier_from[tier + 1] <= abs(value):
            tier += 1
        maintenance += -(-abs(value) // (2 * contract.tier_leverage[tier])) - contract.tier_deduction[tier]
    assert following == 0, "and no others"
    if row.marks == state.heap[0].marks:
        assert row.used == used and row.profit == profit, "margin in use and profit, from scratch"
        assert row.notional == notional and row.maintenance == maintenance, "notional and maintenance"


@law
def _check_holders(state, market):
    """A market lists who has a position in it, once, and links them both ways."""
    markets, count, prior, at = len(state.markets), 0, 0, state.markets[market].first_holder
    while at != 0:
        held = state.positions[(at - 1) * markets + market]
        assert held.size != 0 and held.prior_holder == prior, "a holder holds"
        prior, at, count = at, held.next_holder, count + 1
    holders = 0
    for account in range(len(state.accounts)):
        holders += state.positions[account * markets + market].size != 0
    assert count == holders == state.markets[market].holders, "a market lists all of its holders"


# --- orders -------------------------------------------------------------------------------------------------


@law
def _check_orders(state):
    """Every open order is one that may be open. Return the sum of their marks."""
    markets, count, marks = len(state.markets), 0, 0
    for slot in range(len(state.orders)):
        order = state.orders[slot]
        if order.state == OrderState.FREE:
            continue
        count += 1
        assert 0 < order.order <= state.heap[0].orders, "an oid that was given"
        assert _is_legal(order.price, state.markets[order.market].price_unit), "a price of five figures"
        most = state.markets[order.market].value_max // order.price
        assert order.original <= min(most, VALUES_MOST[1]), "not too large"
        if order.state == OrderState.RESTING:
            assert 0 < order.quantity <= order.original, "what remains"
            assert order.tif == Tif.GTC or order.tif == Tif.ALO, "only Gtc and Alo rest"
            assert (
                order.flags & Flag.IS_TRIGGER == 0 and order.role != Role.UNBORN and order.role != Role.CHILD
            )
        else:
            _check_waiting(state, slot)
        if order.flags & Flag.REDUCE_ONLY and order.role != Role.UNBORN:
            size = state.positions[order.account * markets + order.market].size
            assert (size < 0) if order.side == Side.BUY else (size > 0), (
                "a reduce-only order has something to reduce"
            )
        marks += _mark_of(order.order, order.account, order.market, order.side, order.price, order.quantity)
    assert count == state.status[0].order_count, "all orders are counted"
    return marks


@law
def _check_waiting(state, slot):
    """A trigger order that waits is none that trades; a child has a parent as long as it waits for that."""
    order, facts = state.orders[slot], state.facts[slot]
    assert order.state == OrderState.UNTRIGGERED and order.flags & Flag.IS_TRIGGER, "what waits is triggered"
    assert order.tif == Tif.GTC or order.tif == Tif.MARKET
    assert order.condition == Condition.ABOVE or order.condition == Condition.BELOW
    assert _is_legal(facts.trigger_price, state.markets[order.market].price_unit)
    of_position = order.flags & Flag.POSITION_TPSL != 0
    assert 0 <= order.quantity == order.original and (order.quantity > 0 or of_position), "it is whole"
    parents, other = 0, state.accounts[order.account].first_order
    while other != NO_SLOT:
        parents += state.orders[other].role == Role.PARENT and state.facts[other].group == facts.group
        other = state.orders[other].account_next
    if order.role == Role.UNBORN:
        assert parents == 1, "who waits for a parent's fill has one"
    else:
        assert order.role == Role.ALONE or parents == 0, "who does not has none any more"


@law
def _is_legal(price, unit):
    step = 1
    while price >= FIGURES * step:
        step *= 10
    return 0 < price <= VALUES_MOST[1] and (price % unit == 0 or price % step == 0)


@law
def _check_slots(state):
    """A slot is free or used, once."""
    seen, free = np.zeros(len(state.orders), np.uint8), state.heap[0].free_orders
    assert 0 <= free <= len(state.orders)
    for at in range(free):
        seen[state.free_orders[at]] += 1
    for slot in range(len(state.orders)):
        seen[slot] += state.orders[slot].state != OrderState.FREE
        assert seen[slot] == 1, "a slot is free or used, once"


@law
def _check_books(state):
    """Sides stand in order and are not crossed; each order waits in one queue; counts and sums are theirs."""
    seen, unborn = 0, 0
    for market in range(len(state.markets)):
        in_market = _check_side(state, market, Side.BUY) + _check_side(state, market, Side.SELL)
        assert in_market == state.markets[market].order_count, "a market counts its orders"
        seen += in_market
        shelf = len(state.markets) + market
        seen += _check_side(state, shelf, Side.BUY) + _check_side(state, shelf, Side.SELL)
        bids, asks = state.sides[2 * market + Side.BUY], state.sides[2 * market + Side.SELL]
        if bids.count > 0 and asks.count > 0:
            bid = state.levels[bids.offset + bids.count - 1].price
            assert bid < state.levels[asks.offset + asks.count - 1].price, "a book is not crossed"
    for slot in range(len(state.orders)):
        unborn += state.orders[slot].state != OrderState.FREE and state.orders[slot].role == Role.UNBORN
    assert seen + unborn == state.status[0].order_count, "every open order stands in one queue"


@law
def _check_side(state, book, side):
    """Return how many orders wait on this side of a market's book, or of what waits for its mark."""
    row, in_side = state.sides[2 * book + side], 0
    for at in range(row.offset, row.offset + row.count):
        in_side += _walk_queue(state, state.levels[at], book, side)
        if at > row.offset:
            rises = state.levels[at].price > state.levels[at - 1].price
            same = state.levels[at].price == state.levels[at - 1].price
            assert not same and rises == (side == Side.BUY), "levels stand in order, the touch last"
    assert in_side == row.order_count, "a side counts its orders"
    return in_side


@law
def _walk_queue(state, level, book, side):
    """Return how many orders wait at the level."""
    prior, slot, total, count, oid = NO_SLOT, level.head, 0, 0, 0
    while slot != NO_SLOT:
        order = state.orders[slot]
        assert order.prior == prior, "a queue is linked both ways"
        if book < len(state.markets):
            assert order.price == level.price and order.market == book and order.side == side
            assert order.state == OrderState.RESTING
        else:
            assert order.state == OrderState.UNTRIGGERED and order.role != Role.UNBORN
            assert state.facts[slot].trigger_price == level.price and order.market == book - len(
                state.markets
            )
            assert (order.condition == Condition.ABOVE) == (side == Side.SELL)
        if order.condition == Condition.NONE:
            assert order.order > oid, "first come, first in the queue"
            oid = order.order
        total, count = total + order.quantity, count + 1
        prior, slot = slot, order.next
    assert level.tail == prior and level.quantity == total and level.count == count, "a level sums its orders"
    assert count > 0, "no level is empty"
    return count


@law
def _check_extents(state):
    """Every extent of levels belongs to one side or is free; together they are all that was handed out."""
    taken = np.zeros(state.heap[0].levels_top // SIDE_LEVELS_MIN + 1, np.uint8)
    for row in range(len(state.sides)):
        side = state.sides[row]
        assert 0 <= side.count <= side.capacity
        _take(taken, side.offset, side.capacity)
    for size_class in range(len(state.free_extents)):
        first = state.free_extents[size_class]
        while first > 0:
            _take(taken, first - 1, SIDE_LEVELS_MIN << size_class)
            first = state.levels[first - 1].price
    assert taken.sum() == len(taken) - 1, "extents leave no holes"


@law
def _take(taken, offset, size):
    assert offset >= 0 and offset % SIDE_LEVELS_MIN == 0 and size % SIDE_LEVELS_MIN == 0, (
        "extents fit together"
    )
    for at in range(offset // SIDE_LEVELS_MIN, (offset + size) // SIDE_LEVELS_MIN):
        assert taken[at] == 0 and at < len(taken) - 1, "extents do not overlap"
        taken[at] = 1


# --- who and where ------------------------------------------------------------------------------------------


@law
def _check_lists_of_accounts(state):
    """Each account lists its own orders, oldest first, and counts them."""
    seen = 0
    for account in range(state.status[0].account_count):
        row = state.accounts[account]
        prior, slot, count, reducing, oid = NO_SLOT, row.first_order, 0, 0, 0
        while slot != NO_SLOT:
            order = state.orders[slot]
            assert order.account == account and order.account_prior == prior
            count += 1
            if order.condition == Condition.NONE:
                assert order.order > oid, "an account's orders stand oldest first"
                oid = order.order
            reducing += order.flags & Flag.REDUCE_ONLY != 0
            prior, slot = slot, order.account_next
        assert row.last_order == prior and row.order_count == count, "an account knows its orders"
        assert row.reduce_count == reducing, "and how many of them only reduce"
        seen += count
    assert seen == state.status[0].order_count, "every open order is in its account's list"


@law
def _check_indexes(state):
    """Each index finds what is there, and holds nothing else."""
    status, named = state.status[0], 0
    for slot in range(len(state.orders)):
        order = state.orders[slot]
        if order.state == OrderState.FREE:
            continue
        found = index.find_order(state.order_index, state.orders, order.order)
        assert found == slot, "an open order is found by its oid, and is the only one"
        if order.flags & Flag.HAS_CLOID:
            named += 1
            found = cloids.find(state, order.account, state.facts[slot].cloid)
            assert found == slot, "and by its cloid"
    assert np.count_nonzero(state.order_index) == status.order_count, "the index of oids holds no other"
    assert np.count_nonzero(state.cloid_index) == named, "nor does the index of cloids"
    assert np.count_nonzero(state.account_index) == status.account_count
    assert np.count_nonzero(state.signer_index) == status.signer_count
    for row in range(status.account_count):
        address = state.accounts[row].address
        assert index.find_account(state.account_index, state.accounts, address, 0) == row, (
            "an address has one account"
        )
    for row in range(status.signer_count):
        address = state.signers[row].address
        assert index.find_account(state.signer_index, state.signers, address, 0) == row, "and one signer"


@law
def _check_signers(state):
    """Nonces rise; live agents are listed, once; sub-accounts are counted by their master."""
    status = state.status[0]
    subs, listed = np.zeros(len(state.accounts), np.int64), np.zeros(len(state.signers), np.uint8)
    for row in range(status.signer_count):
        signer = state.signers[row]
        assert 0 <= signer.nonce_count <= NONCES_KEPT
        for at in range(1, signer.nonce_count):
            assert signer.nonces[at] > signer.nonces[at - 1], "nonces rise"
    for account in range(status.account_count):
        row = state.accounts[account]
        own = state.signers[row.signer]
        assert own.account == account and own.is_agent == 0, "an account signs for itself"
        for at in range(len(row.address)):
            assert own.address[at] == row.address[at]
        if row.master != NO_ACCOUNT:
            assert row.subs == 0, "a sub-account has none of its own"
            subs[row.master] += 1
        agent = row.first_agent
        while agent != NO_SLOT:
            assert state.signers[agent].account == account and state.signers[agent].is_agent != 0
            assert listed[agent] == 0, "an agent is listed once"
            listed[agent] = 1
            agent = state.signers[agent].next
    for account in range(status.account_count):
        assert state.accounts[account].subs == subs[account], "sub-accounts are counted"
    for row in range(status.signer_count):
        signer = state.signers[row]
        assert listed[row] == (signer.is_agent != 0 and signer.is_live != 0), "live agents are listed"
