"""What has happened, kept as long as its ring holds it: fills, trades, and the last word on each order.

Every entry carries the position of the one before it with the same key (its account, its market, its bucket),
so that "the newest of this account" is a walk from a head, and an entry that has been overwritten ends the
walk.
"""

from shm import atomics, broadcast, index
from shm.bulk import copy_bytes
from shm.codes import Flag
from shm.constants import CLOID_BYTES
from shm.kernel import inner
from shm.layout import NO_ACCOUNT


@inner
def end_order(state, status, refused, scratch):
    """Keep `status` (an EVENT), the last word on an order. scratch: ENDED[1]."""
    entry = scratch[0]
    _copy_facts(entry, status)
    account = status.account
    if refused:
        ring, slots, buckets = (
            state.history.rejected_ring,
            state.history.rejected,
            state.history.rejected_buckets,
        )
    else:
        ring, slots, buckets = state.history.closed_ring, state.history.closed, state.history.closed_buckets
    position = broadcast.tail(ring)
    bucket = index.mix(status.order) & (len(buckets) - 1)
    entry.bucket_prior = buckets[bucket]
    entry.account_prior, entry.cloid_prior = 0, 0
    named = status.flags & Flag.HAS_CLOID and not refused
    cloid_bucket = index.key_of(status.cloid, 0, CLOID_BYTES) & (len(state.history.cloid_buckets) - 1)
    if named:
        entry.cloid_prior = state.history.cloid_buckets[cloid_bucket]
    if account != NO_ACCOUNT:
        row = state.rows.accounts[account]
        entry.account_prior = row.last_rejected if refused else row.last_closed
    broadcast.publish(ring, slots, scratch, 1)
    atomics.store_release_at(buckets, bucket, position + 1)
    if named:
        atomics.store_release_at(state.history.cloid_buckets, cloid_bucket, position + 1)
    if account != NO_ACCOUNT:
        if refused:
            atomics.store_release(state.rows.accounts[account], "last_rejected", position + 1)
        else:
            atomics.store_release(state.rows.accounts[account], "last_closed", position + 1)


@inner
def _copy_facts(entry, status):
    entry.height, entry.time_ns, entry.order = status.height, status.time_ns, status.order
    entry.price, entry.quantity, entry.original = status.price, status.quantity, status.original
    entry.trigger_price, entry.timestamp_ms = status.trigger_price, status.timestamp_ms
    copy_bytes(entry.cloid, status.cloid)
    copy_bytes(entry.address, status.address)
    entry.market, entry.account = status.market, status.account
    entry.kind, entry.side, entry.condition = status.kind, status.side, status.condition
    entry.flags, entry.status, entry.tif = status.flags, status.status, status.tif
    entry.order_type, entry.reserved = status.order_type, 0


@inner
def keep_fill(state, fills, i):
    """Keep fills[i]; return its position in the fills ring."""
    fill = fills[i]
    position = broadcast.tail(state.history.fill_ring)
    fill.account_prior = 0
    if fill.account != NO_ACCOUNT:
        fill.account_prior = state.rows.accounts[fill.account].last_fill
    broadcast.publish(state.history.fill_ring, state.history.fills, fills[i : i + 1], 1)
    if fill.account != NO_ACCOUNT:
        atomics.store_release(state.rows.accounts[fill.account], "last_fill", position + 1)
    return position


@inner
def are_a_trade(one, other):
    """Whether two adjacent fills are the two sides of one execution."""
    return one.trade == other.trade and one.market == other.market and one.side != other.side


@inner
def keep_trade(state, one, other, scratch):
    """Keep the trade whose two sides are the fills `one` and `other`; return its position.

    scratch  TRADE[1]
    """
    trade = scratch[0]
    taker = one if one.flags & Flag.CROSSED else other
    trade.height, trade.time_ms, trade.trade = taker.height, taker.time_ms, taker.trade
    trade.price, trade.quantity = taker.price, taker.quantity
    trade.market, trade.side = taker.market, taker.side
    copy_bytes(trade.hash, taker.hash)
    if one.side == 0:
        copy_bytes(trade.buyer, one.address)
        copy_bytes(trade.seller, other.address)
    else:
        copy_bytes(trade.buyer, other.address)
        copy_bytes(trade.seller, one.address)
    market = state.rows.markets[trade.market]
    trade.market_prior = market.last_trade
    position = broadcast.tail(state.history.trade_ring)
    broadcast.publish(state.history.trade_ring, state.history.trades, scratch, 1)
    atomics.store_release(market, "last_trade", position + 1)
    market.last_price = trade.price
    return position


@inner
def point(event, kind, execution, position, height, time_ns):
    """Write into `event` that the fill or trade (`execution`) at `position` of its ring happened."""
    event.kind, event.order, event.height, event.time_ns = kind, position, height, time_ns
    event.market, event.side = execution.market, execution.side
    event.price, event.quantity = execution.price, execution.quantity
