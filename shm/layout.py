"""Every record that crosses a process boundary: its fields, its size, and who writes which line.

These dtypes are the only description of shared memory. Writer, reader and test all import them; nobody
computes an offset. Words are int64: counters never wrap and never mix signs. A record's `sequence` is its
first word: odd while it is being written (rows, books), or the position it holds plus one (rings). All times
are since the Unix epoch.
"""

import hashlib

import numpy as np

from shm import constants as c
from shm.constants import LINE


def record(*fields) -> np.dtype:
    """Lay out `fields` as a C struct without holes: a hole is copied, but unnamed."""
    dtype = np.dtype(list(fields), align=True)
    named = sum(dtype[name].itemsize for name in dtype.names)
    assert dtype.itemsize == named, f"name the {dtype.itemsize - named} bytes of padding"
    return dtype


def lines(*owners: list) -> np.dtype:
    """Lay out one group of fields per owner, each group on lines of its own.

    An owner is the one party that writes the group, so no two parties ever write the same line.
    """
    names, formats, offsets, start = [], [], [], 0
    for fields in owners:
        group = record(*fields)
        names += group.names
        formats += [group[name] for name in group.names]
        offsets += [start + group.fields[name][1] for name in group.names]
        start += -(-group.itemsize // LINE) * LINE
    fields = {"names": names, "formats": formats, "offsets": offsets, "itemsize": start}
    return np.dtype(fields, align=True)


# --- regions ----------------------------------------------------------------------------------------------

SECTION = record(("name", "S24"), ("offset", "i8"), ("count", "i8"), ("itemsize", "i8"))
SECTIONS_MAX = 40
HEADER = record(
    ("magic", "S8"),
    ("version", "i8"),
    ("digest", "S32"),  # of every dtype in the region, as hex
    ("epoch", "i8"),  # one incarnation of the region's writer
    ("pid", "i8"),
    ("start_time", "i8"),  # of that process, in clock ticks since boot: with the pid, who it is
    ("heartbeat_ns", "i8"),  # CLOCK_MONOTONIC of the writer's last sign of life
    ("section_count", "i8"),
    ("sections", SECTION, SECTIONS_MAX),
)
assert HEADER.itemsize <= c.PAGE, "the header is one page"

# --- rings ------------------------------------------------------------------------------------------------

RING = lines(
    [("tail", "i8"), ("head_seen", "i8")],  # the producer's: items ever pushed
    [("head", "i8"), ("tail_seen", "i8")],  # the consumer's: items ever popped
    [("epoch", "i8"), ("capacity", "i8")],  # the creator's: fixed before anyone attaches
)
assert RING.itemsize == 3 * LINE

BROADCAST = lines(
    [("tail", "i8")],  # the writer's: items ever published
    [("epoch", "i8"), ("capacity", "i8")],
)
KEEPER = lines([("is_full", "i8")])  # the keeper's: 1 while it cannot make sure of room for what will come
BELL = lines([("sleeping", "i8")])  # the sleeper's: 1 while it may not see a new tail by itself

# --- the world: what the engine writes and everyone reads -------------------------------------------------

WORLD_STATUS = lines(
    [
        ("sequence", "i8"),  # odd while a block is being applied: look-ups by oid or address try again
        ("state", "i8"),  # codes.Feed
        ("mode", "i8"),  # codes.Mode
        ("height", "i8"),  # last block applied
        ("time_ns", "i8"),  # that block's time
        ("applied_ns", "i8"),  # wall clock when it was applied
        ("seen_height", "i8"),  # newest block seen in any stream
        ("market_count", "i8"),
        ("account_count", "i8"),
        ("order_count", "i8"),  # orders known: resting and untriggered
        ("name_count", "i8"),
        ("stale_count", "i8"),  # markets in doubt
        ("checked_height", "i8"),  # last block at which a full comparison agreed
        ("command_sequence", "i8"),  # exchange: the last command of that block
        ("agent_count", "i8"),
        ("position_count", "i8"),
    ]
)

NAME = record(("text", "u1", c.NAME_BYTES))  # ASCII, zero filled

MARKET = lines(
    [
        ("sequence", "i8"),  # odd while a block changes its levels and orders
        ("height", "i8"),  # last block that changed it
        ("epoch", "i8"),  # rises when its book was rebuilt
        ("stale", "i8"),  # codes.Stale
        ("order_count", "i8"),  # resting
        ("last_trade", "i8"),  # position in the trades ring of its newest trade, plus one; 0: none
        ("last_price", "i8"),  # of that trade
        ("name", "u1", c.MARKET_NAME_BYTES),  # the wire's coin, ASCII, zero filled
        ("kind", "i4"),  # codes.MarketKind
        ("size_decimals", "i4"),  # the wire's szDecimals: told by the node, else the most decimals seen
        ("price_places", "i4"),  # a price is whole units of 10**-price_places
        ("quantity_places", "i4"),
    ]
)

SIDE = record(
    ("offset", "i8"),  # of its extent in `levels`
    ("count", "i8"),  # levels[offset:offset+count], worst first: the touch is at the end
    ("capacity", "i8"),
    ("order_count", "i8"),
)
LEVEL = record(
    ("price", "i8"),
    ("quantity", "i8"),  # the sum of its orders
    ("head", "i4"),  # first order in the queue
    ("tail", "i4"),
    ("count", "i4"),  # orders
    ("reserved", "i4"),  # zero
)
assert LEVEL.itemsize == 32, "two levels a cache line"

ORDER = record(
    ("order", "i8"),  # the wire's oid
    ("price", "i8"),
    ("quantity", "i8"),  # what remains
    ("original", "i8"),  # what it came with
    ("trigger_price", "i8"),  # 0: none
    ("timestamp_ms", "i8"),  # when it was placed
    ("group", "i8"),  # of an exchange: what a parent and its children share; 0: none
    ("cloid", "u1", c.CLOID_BYTES),
    ("market", "i4"),
    ("account", "i4"),
    ("prior", "i4"),  # slots, or NO_SLOT: in a level's queue, or among a market's untriggered
    ("next", "i4"),
    ("account_prior", "i4"),  # among its account's orders
    ("account_next", "i4"),
    ("state", "u1"),  # codes.OrderState
    ("side", "u1"),
    ("condition", "u1"),
    ("flags", "u1"),
    ("tif", "u2"),  # rows of `names`
    ("order_type", "u2"),
)
assert ORDER.itemsize == 104

ACCOUNT = record(
    ("sequence", "i8"),  # odd while a block changes its orders
    ("last_fill", "i8"),  # position plus one of its newest in the fills ring; 0: none
    ("last_closed", "i8"),  # likewise in `closed`
    ("last_rejected", "i8"),
    ("order_count", "i4"),
    ("first_order", "i4"),  # slot
    ("last_order", "i4"),
    ("address", "u1", c.ADDRESS_BYTES),
)
assert ACCOUNT.itemsize == 64

BOOK_LEVEL = record(("price", "i8"), ("quantity", "i8"), ("count", "i8"))
BOOK_HEAD = lines([("latest", "i8")])  # publications of a book; the newest is in slot (latest - 1) % 4
BOOK = lines(
    [
        ("sequence", "i8"),
        ("height", "i8"),
        ("time_ms", "i8"),
        ("epoch", "i8"),
        ("stale", "i8"),
        ("last_price", "i8"),  # of the last trade; 0: none
        ("bid_count", "i8"),  # levels filled below
        ("ask_count", "i8"),
        ("bids", BOOK_LEVEL, c.BOOK_DEPTH),  # best first
        ("asks", BOOK_LEVEL, c.BOOK_DEPTH),
    ]
)
assert BOOK.fields["bids"][1] == 64, "what every reader needs is one line, the touch begins the next"

_ORDER_FACTS = (
    ("height", "i8"),
    ("time_ns", "i8"),  # of the status; of the block elsewhere
    ("order", "i8"),  # the wire's oid; for TRADE and FILL the position in their ring
    ("price", "i8"),
    ("quantity", "i8"),
    ("original", "i8"),  # STATUS: original size; UPDATE: the size before
    ("trigger_price", "i8"),
    ("timestamp_ms", "i8"),
    ("cloid", "u1", c.CLOID_BYTES),
    ("address", "u1", c.ADDRESS_BYTES),
    ("market", "i4"),  # NO_MARKET: all of them
    ("account", "i4"),
    ("kind", "u1"),  # codes.EventKind
    ("side", "u1"),
    ("condition", "u1"),
    ("flags", "u1"),
    ("status", "u2"),  # row of `names`; for STALE a codes.Stale
    ("tif", "u2"),
    ("order_type", "u2"),
    ("reserved", "u2"),  # zero
)
EVENT = record(("sequence", "i8"), *_ORDER_FACTS)
assert EVENT.itemsize == LINE, "an event is one pair of lines"

ENDED = record(  # an order's last word, in `closed` or `rejected`
    ("sequence", "i8"),
    ("account_prior", "i8"),  # position plus one of the account's entry before; 0: none
    ("bucket_prior", "i8"),  # likewise of the one before in its bucket (by oid)
    ("cloid_prior", "i8"),  # likewise in its bucket by cloid
    *_ORDER_FACTS,
)

TRADE = record(
    ("sequence", "i8"),
    ("market_prior", "i8"),  # position plus one of the market's trade before; 0: none
    ("height", "i8"),
    ("time_ms", "i8"),
    ("trade", "i8"),  # the wire's tid
    ("price", "i8"),
    ("quantity", "i8"),
    ("hash", "u1", c.HASH_BYTES),
    ("buyer", "u1", c.ADDRESS_BYTES),
    ("seller", "u1", c.ADDRESS_BYTES),
    ("market", "i4"),
    ("side", "i4"),  # the taker's
)

FILL = record(
    ("sequence", "i8"),
    ("account_prior", "i8"),  # position plus one of the account's fill before; 0: none
    ("height", "i8"),
    ("time_ms", "i8"),
    ("order", "i8"),
    ("trade", "i8"),
    ("price", "i8"),
    ("quantity", "i8"),
    ("start_position", "i8"),  # signed, 10**-quantity_places, before this fill
    ("closed_pnl", "i8"),  # 10**-PLACES of the quote token
    ("fee", "i8"),  # 10**-PLACES of the fee token; negative: a rebate
    ("builder_fee", "i8"),
    ("twap", "i8"),  # -1: none
    ("liquidation_price", "i8"),  # the mark price
    ("hash", "u1", c.HASH_BYTES),
    ("cloid", "u1", c.CLOID_BYTES),
    ("address", "u1", c.ADDRESS_BYTES),
    ("liquidated", "u1", c.ADDRESS_BYTES),
    ("market", "i4"),
    ("account", "i4"),
    ("side", "u1"),
    ("flags", "u1"),
    ("direction", "u2"),  # rows of `names`
    ("fee_token", "u2"),
    ("liquidation_method", "u2"),
)

# --- an exchange of our own: its accounts and contracts, for readers ----------------------------------------
# Prices and sizes are in the market's own places, amounts of money in 10**-USD_PLACES USD.

CONTRACT = lines(  # 1 a market, under its bracket
    [
        ("max_leverage", "i8"),
        ("maker_rate", "i8"),  # of a notional, in 10**-6; negative: a rebate
        ("taker_rate", "i8"),
        ("reference_price", "i8"),  # of the last trade; the first price until there is one
        ("open_interest", "i8"),
        ("trade_count", "i8"),
        ("mark", "i8"),  # what positions are valued at
        ("oracle", "i8"),  # 0: none was ever heard of
        ("external", "i8"),  # a perp's price elsewhere, as the oracle last told it; 0: none
        ("oracle_ms", "i8"),  # when it was last heard of
        ("oracle_state", "i8"),  # codes.Oracle
        ("mode", "i8"),  # codes.Trading
        ("impact_bid", "i8"),  # of the last sample; 0: the side was too thin
        ("impact_ask", "i8"),
        ("premium", "i8"),  # of the last sample, in 10**-FUNDING_PLACES
        ("samples", "i8"),  # of the hour under way
        ("funding_rate", "i8"),  # of an hour, in 10**-FUNDING_PLACES, were it over now
        ("interest_cap", "i8"),  # in 10**-USD_PLACES USD; 0: none
        ("price_band", "i8"),  # per mille of the oracle that an order may differ from it
        ("mark_step", "i8"),  # per mille that the mark moves at once, at most; 0: any
        ("impact_notional", "i8"),  # USD
        ("tier_count", "i8"),  # margin tiers, the first one included
        ("tier_from", "i8", c.TIERS_MAX),  # notional, in 10**-USD_PLACES USD
        ("tier_leverage", "i8", c.TIERS_MAX),
        ("tier_deduction", "i8", c.TIERS_MAX),  # from a notional / (2 x leverage): the maintenance margin
        ("rate_count", "i8"),  # hours of funding; the newest is in slot (rate_count - 1) % RATES_KEPT
    ]
)
RATE = record(  # an hour of funding, under the market's bracket
    ("time_ms", "i8"),
    ("rate", "i8"),  # in 10**-FUNDING_PLACES
    ("premium", "i8"),  # the mean of its samples, likewise
    ("price", "i8"),  # the oracle, by which positions were valued
    ("samples", "i8"),
)
FUNDS = record(  # 1 an account, under its bracket
    ("cash", "i8"),
    ("used", "i8"),  # margin of positions and open orders, as the marks were when it was told
    ("volume", "i8"),  # traded since ever
    ("fees", "i8"),  # paid since ever, less rebates
    ("realised", "i8"),  # by closing positions, before fees
    ("deposited", "i8"),  # by ledger entries: in less out
    ("actions", "i8"),  # signed actions that were taken
    ("schedule_ms", "i8"),  # when all its orders are cancelled; 0: never
    ("last_ledger", "i8"),  # position in the ledger ring of its newest entry, plus one; 0: none
    ("master", "i4"),  # account row that leads this sub-account, or NO_ACCOUNT
    ("first_sub", "i4"),  # account rows: its sub-accounts, newest first
    ("next_sub", "i4"),
    ("first_agent", "i4"),  # row of `agents`, newest first
    ("first_position", "i4"),  # row of `positions`
    ("first_twap", "i4"),  # row of `running_twaps`, newest first
    ("name", "u1", c.TEXT_BYTES),  # of a sub-account, ASCII, zero filled
    ("created_ms", "i8"),
    ("last_twap", "i8"),  # position in the ring of TWAPs of its newest entry, plus one; 0: none
)
POSITION = record(  # one account in one market, under the account's bracket
    ("account", "i4"),
    ("market", "i4"),
    ("next", "i4"),  # of the account
    ("leverage", "i4"),
    ("is_cross", "i8"),
    ("size", "i8"),  # signed
    ("entry", "i8"),  # signed notional at which it was opened
    ("isolated", "i8"),  # money set aside for it; less than nothing only while profit covers it
    ("used", "i8"),  # margin of the position and its market's open orders, as the mark was when it was told
    ("realised", "i8"),
    ("buys", "i8"),  # price x remaining of its market's open buys that are not reduce-only
    ("sells", "i8"),
    ("funding", "i8"),  # paid for it, less received: ever
    ("funding_open", "i8"),  # since it was opened
    ("funding_change", "i8"),  # since its size changed
)
AGENT = record(  # who may trade for an account, under the account's bracket
    ("account", "i4"),
    ("next", "i4"),
    ("is_live", "i8"),
    ("valid_until_ms", "i8"),  # 0: for good
    ("address", "u1", c.ADDRESS_BYTES),
    ("reserved", "i4"),  # zero
    ("name", "u1", c.TEXT_BYTES),  # zeros: the unnamed one
)
LEDGER = record(
    ("sequence", "i8"),
    ("account_prior", "i8"),  # position plus one of the account's entry before this one; 0: none
    ("height", "i8"),
    ("time_ms", "i8"),
    ("amount", "i8"),  # signed, what the account's cash changed by
    ("nonce", "i8"),
    ("price", "i8"),  # FUNDING: the oracle. TAKEN: what the account, or the bucket, was worth, in USD
    ("size", "i8"),  # FUNDING: of the position. TAKEN: the notional of all of them, in USD
    ("rate", "i8"),  # FUNDING: of the hour, in 10**-FUNDING_PLACES
    ("hash", "u1", c.HASH_BYTES),
    ("address", "u1", c.ADDRESS_BYTES),
    ("other", "u1", c.ADDRESS_BYTES),  # the other account of a transfer; TAKEN: the insurance account
    ("account", "i4"),
    ("kind", "i4"),  # codes.Ledger
    ("market", "i4"),  # FUNDING, TAKEN: of the position; NO_MARKET: all cross ones
    ("samples", "i4"),  # FUNDING: premiums of that hour
)
TWAP = record(  # an order in slices over time, as it stood; of one that runs: under the account's bracket
    ("sequence", "i8"), ("account_prior", "i8"),  # position plus one of the account's entry before; 0: none
    ("height", "i8"), ("time_ms", "i8"),  # when it was last told of
    ("order", "i8"),  # its id; 0: no TWAP is in this row
    ("quantity", "i8"), ("executed", "i8"), ("notional", "i8"),  # what is wanted; what of it was executed
    ("began_ms", "i8"), ("minutes", "i4"), ("account", "i4"), ("market", "i4"),
    ("next", "i4"),  # of the account's that run, or NO_SLOT
    ("side", "u1"), ("flags", "u1"), ("state", "u1"), ("is_randomized", "u1"),  # codes.Flag, codes.Twap
    ("address", "u1", c.ADDRESS_BYTES),
)  # fmt: skip
CANDLE = record(  # under the market's bracket
    ("start_ms", "i8"),
    ("open", "i8"),
    ("high", "i8"),
    ("low", "i8"),
    ("close", "i8"),
    ("volume", "i8"),  # base
    ("notional", "i8"),
    ("count", "i8"),  # trades
)
CANDLE_HEAD = record(("count", "i8"))  # candles ever begun; the newest is in slot (count - 1) % CANDLES_KEPT

# --- what gateways ask of the engine, and what it answers ---------------------------------------------------

COMMAND = record(
    ("sequence", "i8"),  # given by the engine, as is `time_ns`
    ("time_ns", "i8"),
    ("request", "i8"),  # the gateway's own number, given back in every ACK
    ("nonce", "i8"),
    ("expires_ms", "i8"),  # 0: never
    ("price", "i8"),  # ADD_MARKET: where trading begins; ORACLE; LIMITS: the mark's largest step
    ("quantity", "i8"),  # ADD_MARKET: maker rate; LIMITS: price band; TIER: from which notional
    ("trigger_price", "i8"),  # of a trigger order; ORACLE: a perp's price elsewhere
    ("order", "i8"),  # an oid, a TWAP's id; ADD_MARKET: taker rate; LIMITS: impact notional
    # leverage, money, a time in ms, minutes; ADD_MARKET: most leverage; ORDER: the builder's fee; MODE; KILL
    ("amount", "i8"),
    ("signer", "u1", c.ADDRESS_BYTES),
    ("vault", "u1", c.ADDRESS_BYTES),  # the sub-account that the signer acts for (HAS_VAULT)
    ("other", "u1", c.ADDRESS_BYTES),  # destination, agent, new sub-account, builder
    ("text", "u1", c.TEXT_BYTES),  # the order's cloid, a name
    ("of", "u1", c.CLOID_BYTES),  # CANCEL_CLOID, MODIFY: the cloid of the order that is meant
    ("market", "i4"),
    ("signer_row", "i4"),  # where the gateway believes the signer to stand; the engine looks before it leaps
    ("gateway", "i4"),
    ("kind", "u1"),  # codes.Command
    ("side", "u1"),  # ADD_MARKET: size decimals
    ("tif", "u1"),  # codes.Tif
    ("flags", "u1"),  # codes.Ask
    ("place", "u2"),  # in its action: 0 .. count-1, all of them one after the other
    ("count", "u2"),
    ("builder", "u1", c.ADDRESS_BYTES),
    ("condition", "u1"),  # codes.Condition, of a trigger order: ABOVE or BELOW
    ("grouping", "u1"),  # codes.Grouping, of an ORDER
    ("reserved", "u2"),  # zero
)
ACK = record(
    ("request", "i8"),
    ("sequence", "i8"),  # of the command
    ("order", "i8"),  # the wire's oid
    ("quantity", "i8"),  # filled; POST_ONLY: the best bid
    ("notional", "i8"),  # filled; POST_ONLY: the best ask
    ("gateway", "i4"),
    ("place", "u2"),
    ("count", "u2"),
    ("code", "u2"),  # codes.Refusal
    ("outcome", "u2"),  # codes.Ack
    ("market", "i4"),
    ("time_ms", "i8"),
)
assert ACK.itemsize == 64

WORD = np.dtype("i8")
NO_SLOT = -1
NO_MARKET = -1
NO_ACCOUNT = -1

WORLD = {  # section -> its dtype; how many of each is the configuration's
    "status": WORLD_STATUS,
    "names": NAME,
    "markets": MARKET,
    "sides": SIDE,  # 2 a market: buy, sell
    "levels": LEVEL,
    "orders": ORDER,
    "order_index": WORD,  # oid -> slot + 1, open addressing, a power of two, at most half full
    "accounts": ACCOUNT,
    "account_index": WORD,  # address -> row + 1
    "book_heads": BOOK_HEAD,  # 1 a market
    "books": BOOK,  # BOOK_SLOTS a market
    "event_ring": BROADCAST,
    "events": EVENT,
    "trade_ring": BROADCAST,
    "trades": TRADE,
    "fill_ring": BROADCAST,
    "fills": FILL,
    "closed_ring": BROADCAST,
    "closed": ENDED,
    "rejected_ring": BROADCAST,
    "rejected": ENDED,
    "closed_buckets": WORD,  # position plus one of the newest entry of each bucket, by oid
    "rejected_buckets": WORD,
    "cloid_buckets": WORD,  # likewise by cloid, over `closed`
    # of an exchange of our own; where a node is followed, one of each and nothing in it
    "contracts": CONTRACT,
    "funds": FUNDS,
    "positions": POSITION,
    "agents": AGENT,
    "ledger_ring": BROADCAST,
    "ledger": LEDGER,
    "candle_heads": CANDLE_HEAD,  # len(INTERVALS_MS) a market
    "candles": CANDLE,  # CANDLES_KEPT for each of those
    "rates": RATE,  # RATES_KEPT a market
    "twap_ring": BROADCAST,
    "twaps": TWAP,  # as they began and as they ended
    "running_twaps": TWAP,
}

DOOR = {  # between one gateway and the engine, both ways
    "command_ring": RING,
    "commands": COMMAND,
    "ack_ring": RING,
    "acks": ACK,
}

JOURNAL = {  # between the engine and who keeps its commands
    "command_ring": RING,
    "commands": COMMAND,
    "durable": BROADCAST,  # the keeper's `tail`: the last sequence that is safe, and all before it
    "keeper": KEEPER,
}


def digest(sections: dict[str, np.dtype]) -> str:
    """Name a set of sections by what they look like: 32 hex digits that change with any field."""
    text = repr([(name, dtype.itemsize, dtype.descr) for name, dtype in sections.items()])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
