"""What readers see of accounts: who there is, their money, positions, agents, TWAPs, and what has moved
their money.

`project` shows outcomes; these are the ones of accounts, and what it needs for every one of them.
"""

from engine import publish
from engine.exchange.state import INSURANCE
from shm import atomics, broadcast, index
from shm.bulk import clear_bytes, copy_bytes
from shm.codes import EventKind, Ledger, Twap
from shm.kernel import inner
from shm.layout import NO_ACCOUNT, NO_SLOT

WORD_BYTES, BYTE_BITS, BYTE = 8, 8, 255


@inner
def height(world):
    """The height of the block under way."""
    return world.state.rows.status[0].height + 1


@inner
def tell(world, kind, outcome):
    """Return the next event, of this kind, time, market and account; the rest of it is blank."""
    state = world.state
    event = publish.emit(state)
    event.kind, event.height, event.time_ns = kind, height(world), outcome.time_ns
    event.market, event.account = outcome.market, outcome.account
    copy_bytes(event.address, state.rows.accounts[outcome.account].address)
    return event


@inner
def name_action(to, height, sequence):
    """Write the 32 bytes that clients know a command by."""
    clear_bytes(to)
    _put_word(to, 0, index.mix(sequence))
    _put_word(to, WORD_BYTES, height)
    _put_word(to, 2 * WORD_BYTES, sequence)


@inner
def _put_word(to, at, word):
    for i in range(WORD_BYTES):
        to[at + i] = (word >> (BYTE_BITS * (WORD_BYTES - 1 - i))) & BYTE


@inner
def on_account(world, outcome):
    state, row = world.state, outcome.account
    publish.touch_account(state, row)
    copy_bytes(state.rows.accounts[row].address, outcome.address)
    index.add_account(state.account_index, outcome.address, 0, row)
    funds = world.funds[row]
    funds.master, funds.first_sub, funds.next_sub = outcome.other, NO_ACCOUNT, NO_ACCOUNT
    funds.first_agent, funds.first_position, funds.first_twap = NO_SLOT, NO_SLOT, NO_SLOT
    if outcome.other != NO_ACCOUNT:
        publish.touch_account(state, outcome.other)
        funds.next_sub = world.funds[outcome.other].first_sub
        world.funds[outcome.other].first_sub = row
    status = state.rows.status[0]
    atomics.store_release(status, "account_count", status.account_count + 1)


@inner
def on_agent(world, outcome):
    """An agent of the account is new, renewed or revoked: the account lists those that are live."""
    status, funds = world.state.rows.status[0], world.funds[outcome.account]
    publish.touch_account(world.state, outcome.account)
    row = world.agent_rows[outcome.order] - 1
    if row == NO_SLOT:
        if status.agent_count == len(world.agents):
            world.state.rows.heap[0].full += 1
            return
        row = status.agent_count
        world.agent_rows[outcome.order] = row + 1
        agent = world.agents[row]
        agent.account, agent.next = outcome.account, funds.first_agent
        copy_bytes(agent.address, outcome.address)
        copy_bytes(agent.name, outcome.text)
        funds.first_agent = row
        atomics.store_release(status, "agent_count", status.agent_count + 1)
    agent = world.agents[row]
    agent.is_live, agent.valid_until_ms = 1 - outcome.done, outcome.placed_ms
    if outcome.done:
        _unlist_agent(world, funds, row)


@inner
def _unlist_agent(world, funds, row):
    """Take the agent out of its account's list."""
    following = world.agents[row].next
    if funds.first_agent == row:
        funds.first_agent = following
        return
    prior = funds.first_agent
    while world.agents[prior].next != row:
        prior = world.agents[prior].next
    world.agents[prior].next = following


@inner
def _begin_entry(world, outcome, kind):
    """Return the next entry of the account's ledger, blank but for what every entry has."""
    entry = world.entry[0]
    publish.touch_account(world.state, outcome.account)
    entry.account_prior, entry.height = world.funds[outcome.account].last_ledger, height(world)
    entry.time_ms = outcome.time_ns // publish.NS_PER_MS
    entry.amount, entry.nonce, entry.price, entry.size, entry.rate = 0, 0, 0, 0, 0
    name_action(entry.hash, entry.height, outcome.sequence)
    copy_bytes(entry.address, world.state.rows.accounts[outcome.account].address)
    clear_bytes(entry.other)
    entry.account, entry.kind, entry.market, entry.samples = outcome.account, kind, outcome.market, 0
    return entry


@inner
def _keep_entry(world, outcome):
    """Keep the entry that was begun. What the account has after it comes as FUNDS."""
    position = broadcast.publish(world.ledger_ring, world.ledger, world.entry, 1)
    world.funds[outcome.account].last_ledger = position + 1
    tell(world, EventKind.LEDGER, outcome).order = position


@inner
def on_money(world, outcome):
    entry = _begin_entry(world, outcome, outcome.code)
    entry.amount, entry.nonce = outcome.amount, outcome.order
    if outcome.other != NO_ACCOUNT:
        copy_bytes(entry.other, world.state.rows.accounts[outcome.other].address)
    _keep_entry(world, outcome)


@inner
def on_funding(world, outcome):
    entry = _begin_entry(world, outcome, Ledger.FUNDING)
    entry.amount, entry.price, entry.size = outcome.amount, outcome.price, outcome.quantity
    entry.rate, entry.samples = outcome.trade, outcome.order
    _keep_entry(world, outcome)
    row = _position_row(world, outcome)
    if row != NO_SLOT:
        position = world.positions[row]
        position.funding -= outcome.amount
        position.funding_open -= outcome.amount
        position.funding_change -= outcome.amount


@inner
def on_liquidated(world, outcome):
    entry = _begin_entry(world, outcome, Ledger.TAKEN)
    entry.price, entry.size = outcome.price, outcome.quantity
    copy_bytes(entry.other, world.state.rows.accounts[INSURANCE].address)
    _keep_entry(world, outcome)


@inner
def on_funds(world, outcome):
    publish.touch_account(world.state, outcome.account)
    funds = world.funds[outcome.account]
    funds.cash, funds.used, funds.volume = outcome.price, outcome.quantity, outcome.original
    funds.fees, funds.realised, funds.deposited = outcome.fee, outcome.amount, outcome.trade
    funds.actions, funds.schedule_ms, funds.created_ms = outcome.order, outcome.placed_ms, outcome.start
    copy_bytes(funds.name, outcome.text)
    tell(world, EventKind.FUNDS, outcome)


@inner
def _position_row(world, outcome):
    """The row of an account's position in a market, which is made at need; NO_SLOT: there is no room."""
    status, funds = world.state.rows.status[0], world.funds[outcome.account]
    place = outcome.account * len(world.state.rows.markets) + outcome.market
    row = world.position_rows[place] - 1
    if row != NO_SLOT:
        return row
    if status.position_count == len(world.positions):
        world.state.rows.heap[0].full += 1
        return NO_SLOT
    row = status.position_count
    world.position_rows[place] = row + 1
    position = world.positions[row]
    position.account, position.market = outcome.account, outcome.market
    position.next = funds.first_position
    funds.first_position = row
    atomics.store_release(status, "position_count", status.position_count + 1)
    return row


@inner
def on_position(world, outcome):
    publish.touch_account(world.state, outcome.account)
    row = _position_row(world, outcome)
    if row == NO_SLOT:
        return
    position, size = world.positions[row], outcome.price
    if size != position.size:
        position.funding_change = 0
    if (size > 0) != (position.size > 0) or size == 0:
        position.funding_open = 0
    position.leverage, position.is_cross = outcome.amount, outcome.fee
    position.size, position.entry, position.isolated = size, outcome.quantity, outcome.placed_ms
    position.used, position.realised = outcome.original, outcome.trade
    position.buys, position.sells = outcome.order, outcome.start


# --- orders in slices over time -----------------------------------------------------------------------------


@inner
def on_twap(world, outcome):
    """One has begun, gone on or ended: those that run are listed; beginnings and ends are kept."""
    publish.touch_account(world.state, outcome.account)
    row, before = _find_twap(world, outcome)
    begins, ends = row == NO_SLOT, outcome.done != Twap.ACTIVATED
    if begins and not ends:
        row = _take_twap_row(world, outcome)
    if row != NO_SLOT:
        _describe_twap(world, world.running_twaps[row], outcome)
        if ends:
            _unlist_twap(world, outcome, row, before)
    if begins or ends:
        _keep_twap(world, outcome)


@inner
def _find_twap(world, outcome):
    """Return the row of a TWAP that runs, and of the one before it in its account's list; or NO_SLOT."""
    row, before = world.funds[outcome.account].first_twap, NO_SLOT
    while row != NO_SLOT and world.running_twaps[row].order != outcome.order:
        row, before = world.running_twaps[row].next, row
    return row, before


@inner
def _take_twap_row(world, outcome):
    """Return a row for a new one, first of its account's list; NO_SLOT: there is no room."""
    funds = world.funds[outcome.account]
    for row in range(len(world.running_twaps)):
        if world.running_twaps[row].order == 0:
            world.running_twaps[row].next = funds.first_twap
            funds.first_twap = row
            return row
    world.state.rows.heap[0].full += 1
    return NO_SLOT


@inner
def _unlist_twap(world, outcome, row, before):
    following = world.running_twaps[row].next
    if before == NO_SLOT:
        world.funds[outcome.account].first_twap = following
    else:
        world.running_twaps[before].next = following
    world.running_twaps[row].order = 0


@inner
def _describe_twap(world, twap, outcome):
    """Write what an outcome says of a TWAP: all but its links."""
    twap.height, twap.time_ms = height(world), outcome.time_ns // publish.NS_PER_MS
    twap.order, twap.quantity = outcome.order, outcome.quantity
    twap.executed, twap.notional = outcome.original, outcome.amount
    twap.began_ms, twap.minutes = outcome.placed_ms, outcome.trade
    twap.account, twap.market, twap.side = outcome.account, outcome.market, outcome.side
    copy_bytes(twap.address, world.state.rows.accounts[outcome.account].address)
    twap.flags, twap.state, twap.is_randomized = outcome.flags, outcome.done, outcome.code


@inner
def _keep_twap(world, outcome):
    entry, funds = world.twap_entry[0], world.funds[outcome.account]
    _describe_twap(world, entry, outcome)
    entry.account_prior, entry.next = funds.last_twap, NO_SLOT
    position = broadcast.publish(world.twap_ring, world.twaps, world.twap_entry, 1)
    funds.last_twap = position + 1
    tell(world, EventKind.TWAP, outcome).order = position
