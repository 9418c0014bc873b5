"""Reads of what an exchange of our own keeps for its accounts and markets. Bounded, never torn.

The rows of an account (FUNDS, POSITION, AGENT, TWAP) are read under its bracket, those of a market (CONTRACT,
CANDLE) under the market's, as in `rows`: nothing that was read in between is believed before the second look,
no link is followed before it is known to lie inside its table, and no walk is longer than its output.

A result that is not negative is a count. TORN: the writer was met at every try. MISSING: there is no such
row. TOO_SMALL: `out` cannot hold the answer.
"""

import numpy as np

from shm import broadcast, layout, rows, seqlock
from shm.atomics import load_acquire, pause
from shm.constants import ADDRESS_BYTES
from shm.kernel import entry, inner
from shm.layout import NO_ACCOUNT, NO_SLOT
from shm.rows import MISSING, TOO_SMALL, TORN

# --- accounts ----------------------------------------------------------------------------------------------


@inner
def _copy_list(table, account, row, out):
    """Copy the account's rows of a table, a list that begins at `row`; return how many, TORN or TOO_SMALL."""
    at = 0
    while row != NO_SLOT:
        if row < 0 or row >= len(table) or table[row].account != account:
            return TORN
        if at == len(out):
            return TOO_SMALL
        out[at] = table[row]
        row, at = out[at].next, at + 1
    return at


@inner
def _copy_back(ring, slots, position, out):
    """Copy the entries of a ring that lead back from `position`, as far as they are kept; return how many."""
    for n in range(len(out)):
        item = out[n : n + 1]
        if position < 0 or not broadcast.peek(ring, slots, position, item):
            return n
        position = item[0].account_prior - 1
    return len(out)


@entry
def read_account(accounts, funds, positions, account, funds_out, out, tries):
    """Copy an account's funds into funds_out[0] and all its positions into `out` (POSITION[]), newest first.

    Both are of one moment. Returns how many positions, TORN or TOO_SMALL.
    """
    row = accounts[account]
    for _ in range(tries):
        sequence = seqlock.row_begin(row)
        if sequence != TORN:
            funds_out[0] = funds[account]
            count = _copy_list(positions, account, funds_out[0].first_position, out)
            if seqlock.row_unchanged(row, sequence) and count != TORN:
                return count
        pause()
    return TORN


@entry
def read_agents(accounts, funds, agents, account, out, tries):
    """Copy an account's agents into `out` (AGENT[]), newest first; return how many, TORN or TOO_SMALL."""
    row = accounts[account]
    for _ in range(tries):
        sequence = seqlock.row_begin(row)
        if sequence != TORN:
            count = _copy_list(agents, account, funds[account].first_agent, out)
            if seqlock.row_unchanged(row, sequence) and count != TORN:
                return count
        pause()
    return TORN


@entry
def read_agent(status, accounts, agents, address, out, tries):
    """Copy the agent with this address (u1[20]) into out[0]; return 1, MISSING or TORN.

    Rows are only ever added, and an address has one. O(agents).
    """
    count = min(load_acquire(status[0], "agent_count"), len(agents))
    for i in range(count):
        if _has_address(agents[i].address, address):
            return _copy_agent(accounts, agents, i, out, tries)
    return MISSING


@inner
def _has_address(raw, address):
    for i in range(ADDRESS_BYTES):
        if raw[i] != address[i]:
            return False
    return True


@inner
def _copy_agent(accounts, agents, i, out, tries):
    account = agents[i].account
    if account < 0 or account >= len(accounts):
        return MISSING
    row = accounts[account]
    for _ in range(tries):
        sequence = seqlock.row_begin(row)
        if sequence != TORN:
            out[0] = agents[i]
            if seqlock.row_unchanged(row, sequence):
                return 1
        pause()
    return TORN


@entry
def read_subs(accounts, funds, account, out, tries):
    """Copy the rows of an account's sub-accounts into `out` (i8[]), newest first; return how many, or TORN,
    or TOO_SMALL."""
    row = accounts[account]
    for _ in range(tries):
        sequence = seqlock.row_begin(row)
        if sequence != TORN:
            count, link = 0, funds[account].first_sub
            while link != NO_ACCOUNT and count >= 0:
                if link < 0 or link >= len(funds) or funds[link].master != account:
                    count = TORN
                elif count == len(out):
                    count = TOO_SMALL
                    break
                else:
                    out[count] = link
                    link, count = funds[link].next_sub, count + 1
            if seqlock.row_unchanged(row, sequence) and count != TORN:
                return count
        pause()
    return TORN


@entry
def read_ledger(funds, ring, slots, account, out):
    """Copy an account's newest ledger entries, newest first, as far as they are kept; return how many."""
    return _copy_back(ring, slots, load_acquire(funds[account], "last_ledger") - 1, out)


@entry
def read_running_twaps(accounts, funds, running, account, out, tries):
    """Copy an account's TWAPs that run into `out`, newest first; return how many, TORN or TOO_SMALL."""
    row = accounts[account]
    for _ in range(tries):
        sequence = seqlock.row_begin(row)
        if sequence != TORN:
            count = _copy_list(running, account, funds[account].first_twap, out)
            if seqlock.row_unchanged(row, sequence) and count != TORN:
                return count
        pause()
    return TORN


@entry
def read_twaps(funds, ring, slots, account, out):
    """Copy how an account's TWAPs began and ended, newest first, as far as that is kept; return how many."""
    return _copy_back(ring, slots, load_acquire(funds[account], "last_twap") - 1, out)


# --- markets -----------------------------------------------------------------------------------------------


@entry
def read_contract(markets, contracts, market, out, tries):
    """Copy a market's contract into out[0]; return 1 or TORN."""
    row = markets[market]
    for _ in range(tries):
        sequence = seqlock.row_begin(row)
        if sequence != TORN:
            out[0] = contracts[market]
            if seqlock.row_unchanged(row, sequence):
                return 1
        pause()
    return TORN


@entry
def read_rates(markets, contracts, rates, market, out, tries):
    """Copy a market's newest hours of funding into `out` (RATE[]), newest first; return how many, or TORN."""
    row, kept = markets[market], len(rates) // len(contracts)
    for _ in range(tries):
        sequence = seqlock.row_begin(row)
        if sequence != TORN:
            begun = contracts[market].rate_count
            found = min(max(begun, 0), kept, len(out))
            for n in range(found):
                out[n] = rates[market * kept + (begun - 1 - n) % kept]
            if seqlock.row_unchanged(row, sequence):
                return found
        pause()
    return TORN


@entry
def read_candles(markets, heads, candles, market, series, start_ms, end_ms, out, tries):
    """Copy the newest candles of a series that begin within start_ms..end_ms into `out`, newest first.

    series  one of the market's intervals: row of `heads`
    out     CANDLE[]

    Returns how many, or TORN. O(candles newer than start_ms).
    """
    row, kept = markets[market], len(candles) // len(heads)
    for _ in range(tries):
        sequence = seqlock.row_begin(row)
        if sequence != TORN:
            begun = heads[series].count
            found = 0
            for n in range(begun - 1, max(begun - kept, 0) - 1, -1):
                candle = candles[series * kept + n % kept]
                if found == len(out) or candle.start_ms < start_ms:
                    break
                if candle.start_ms <= end_ms:
                    out[found] = candle
                    found += 1
            if seqlock.row_unchanged(row, sequence):
                return found
        pause()
    return TORN


@entry
def read_day(markets, heads, candles, market, series, since_ms, out, tries):
    """Add up the candles of a series that begin at `since_ms` or later into out[0] (CANDLE[1]).

    Its volume, notional and count are sums, its `close` is the newest; its `open` is the price at `since_ms`:
    the last close before it, else the first open after it. Returns how many candles, or TORN.
    """
    row, kept = markets[market], len(candles) // len(heads)
    for _ in range(tries):
        sequence = seqlock.row_begin(row)
        if sequence != TORN:
            begun = heads[series].count
            day = out[0]
            day.start_ms, day.open, day.close, day.volume, day.notional, day.count = since_ms, 0, 0, 0, 0, 0
            day.high, day.low = 0, 0
            found = 0
            for n in range(begun - 1, max(begun - kept, 0) - 1, -1):
                candle = candles[series * kept + n % kept]
                if found == 0:
                    day.close = candle.close
                if candle.start_ms < since_ms:
                    day.open = candle.close
                    break
                day.open = candle.open
                day.volume += candle.volume
                day.notional += candle.notional
                day.count += candle.count
                found += 1
            if seqlock.row_unchanged(row, sequence):
                return found
        pause()
    return TORN


def warm():
    """Compile the entry points for memory that is mapped read-only."""
    status, accounts, markets = (
        np.zeros(1, dtype) for dtype in (layout.WORLD_STATUS, layout.ACCOUNT, layout.MARKET)
    )
    funds, positions, agents = (np.zeros(1, dtype) for dtype in (layout.FUNDS, layout.POSITION, layout.AGENT))
    contracts, rates, heads, candles = (
        np.zeros(1, dtype) for dtype in (layout.CONTRACT, layout.RATE, layout.CANDLE_HEAD, layout.CANDLE)
    )
    ring, ledger, address = np.zeros(1, layout.BROADCAST), np.zeros(2, layout.LEDGER), np.zeros(20, np.uint8)
    twaps = np.zeros(2, layout.TWAP)
    mapped = (status, accounts, markets, funds, positions, agents, contracts, rates, heads, candles)
    for array in (*mapped, ring, ledger, twaps, address):
        array.flags.writeable = False
    funds_out, position, words = np.zeros(1, layout.FUNDS), np.zeros(1, layout.POSITION), np.zeros(2, "i8")
    agent, candle = np.zeros(1, layout.AGENT), np.zeros(1, layout.CANDLE)
    read_account(accounts, funds, positions, 0, funds_out, position, 1)
    read_agents(accounts, funds, agents, 0, agent, 1)
    read_agent(status, accounts, agents, address, agent, 1)
    read_subs(accounts, funds, 0, words, 1)
    read_ledger(funds, ring, ledger, 0, np.zeros(1, layout.LEDGER))
    read_running_twaps(accounts, funds, twaps, 0, np.zeros(1, layout.TWAP), 1)
    read_twaps(funds, ring, twaps, 0, np.zeros(1, layout.TWAP))
    read_contract(markets, contracts, 0, np.zeros(1, layout.CONTRACT), 1)
    read_rates(markets, contracts, rates, 0, np.zeros(1, layout.RATE), 1)
    read_candles(markets, heads, candles, 0, 0, 0, 0, candle, 1)
    read_day(markets, heads, candles, 0, 0, 0, candle, 1)
    events, links = np.zeros(1, layout.EVENT), np.full(1, -1, np.int32)
    rows.gather(ring, ledger, events, links, 0, 0, np.zeros(1, layout.LEDGER))
    rows.gather(ring, twaps, events, links, 0, 0, np.zeros(1, layout.TWAP))
