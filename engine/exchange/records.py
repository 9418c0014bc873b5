"""What the exchange's core keeps of orders, accounts, positions and signers, and the outcomes it gives.

All of it is the core's own: readers see what `project` makes of the outcomes. A row holds what a command must
touch in one cache line; what is seldom needed stands apart. Money is in 10**-USD_PLACES USD, prices and
quantities in their market's own places.
"""

from enum import IntEnum

from shm import constants as c
from shm.layout import record

HEAP = record(
    ("free_orders", "i8"),  # slots on the stack of free slots
    ("levels_top", "i8"),  # levels ever handed out to extents
    ("sequence", "i8"),  # of the last command
    ("time_ns", "i8"),  # of the last command
    ("height", "i8"),  # blocks closed
    ("orders", "i8"),  # oids given
    ("digest", "i8"),  # over every outcome so far
    ("block_digest", "i8"),  # as it stood when the last block had ended
    ("diverged", "i8"),  # sequence of the first END_BLOCK that knew of another one; 0: none did
    ("diverged_digest", "i8"),  # what the block's digest was here then
    ("schedule_ms", "i8"),  # the earliest of all scheduled cancels; 0: none
    ("action_code", "i8"),  # codes.Refusal of the action under way
    ("action_account", "i8"),  # who it is for
    ("action_request", "i8"),  # by which its further commands are known
    ("action_gateway", "i8"),
    ("action_kind", "i8"),
    ("action_place", "i8"),
    ("touched_accounts", "i8"),
    ("touched_positions", "i8"),
    ("outcomes", "i8"),  # written by the call under way
    ("acks", "i8"),
    ("is_killed", "i8"),  # nobody may place an order
    ("due_ms", "i8"),  # when a block must end, also if nobody asks for anything; 0: not by itself
    ("sample_slot", "i8"),  # of the last premium sample, in SAMPLE_MS since the epoch
    ("deposited", "i8"),  # all deposits less all withdrawals
    ("marks", "i8"),  # rises when what positions come to has changed without a trade
    ("funding_hour", "i8"),  # that was paid, or begun to be, last
    ("funding_round", "i8"),
    ("funding_next", "i8"),  # account to pay next
    ("funding_left", "i8"),  # accounts to look at
    ("positions", "i8"),  # that are not empty
    ("circle_next", "i8"),  # account to look at next
    ("circle_left", "i8"),  # accounts to look at until all were seen with the marks as they are
    ("method", "i8"),  # codes.Method of the trades under way
    ("is_stopped", "i8"),  # the taker under way cannot bear more
    ("filled", "i8"),  # quantity and notional of the order under way
    ("filled_notional", "i8"),
    # the order under way, as far as its command does not say it or is not to be believed (groups.py)
    ("condition", "i8"),
    ("trigger_price", "i8"),
    ("group", "i8"),
    ("role", "i8"),
    ("is_of_position", "i8"),  # it goes with the position
    # the parent of the action under way
    ("parent", "i8"),  # oid; 0: none, or it was refused
    ("parent_is_filled", "i8"),
    ("parent_market", "i8"),
    ("parent_side", "i8"),
    ("parent_price", "i8"),
    ("triggers_left", "i8"),  # the mark has reached more orders than a block lets go
    ("twaps", "i8"),  # ids given
    ("twap_count", "i8"),  # that run
    ("twap_ms", "i8"),  # when the next slice is due; 0: none
)
STATUS = record(
    ("order_count", "i8"), ("market_count", "i8"), ("account_count", "i8"), ("signer_count", "i8")
)

MARKET = record(
    ("order_count", "i8"),
    ("price_unit", "i8"),  # 10**price_places: a whole dollar
    ("size_decimals", "i8"),
    ("max_leverage", "i8"),
    ("maker_rate", "i8"),
    ("taker_rate", "i8"),
    ("reference_price", "i8"),
    ("open_interest", "i8"),
    ("value_max", "i8"),  # of one limit order
    ("is_touched", "i8"),  # told at the end of the block under way
    ("name", "u1", c.TEXT_BYTES),
    ("mode", "i8"),  # codes.Trading
    ("mark", "i8"),
    ("mark_ms", "i8"),  # when it last changed
    ("sound_mark", "i8"),  # at which everyone was last looked at, and nothing had to be done
    ("first_holder", "i4"),  # account + 1
    ("holders", "i4"),
    ("oracle", "i8"),
    ("oracle_ms", "i8"),
    ("oracle_state", "i8"),  # codes.Oracle
    ("external", "i8"),
    ("book_ms", "i8"),  # when the two means that follow were given their last sample
    ("basis", "i8"),  # mean of (mid - oracle) over minutes, in thousandths
    ("basis_weight", "i8"),  # of that mean, in ms; 0: no sample yet
    ("smooth", "i8"),  # mean of the book's own price over half a minute, in thousandths
    ("smooth_weight", "i8"),
    ("impact_bid", "i8"),
    ("impact_ask", "i8"),
    ("premium", "i8"),  # the last sample, 10**-FUNDING_PLACES
    ("premiums", "i8"),  # the sum of this hour's
    ("samples", "i8"),
    ("funding_price", "i8"),  # of the last round of funding, as are the next two
    ("funding_rate", "i8"),
    ("funding_samples", "i8"),  # 0: nothing was due
    ("interest_cap", "i8"),
    ("price_band", "i8"),
    ("mark_step", "i8"),
    ("impact_notional", "i8"),  # USD
    ("tier_count", "i8"),
    ("tier_from", "i8", c.TIERS_MAX),
    ("tier_leverage", "i8", c.TIERS_MAX),
    ("tier_deduction", "i8", c.TIERS_MAX),
)
ORDER = record(
    ("order", "i8"),  # oid
    ("price", "i8"),
    ("quantity", "i8"),  # what remains
    ("original", "i8"),
    ("prior", "i4"),  # in its level's queue
    ("next", "i4"),
    ("account", "i4"),
    ("account_prior", "i4"),  # among its account's orders
    ("account_next", "i4"),
    ("market", "i4"),
    ("state", "u1"),  # codes.OrderState
    ("side", "u1"),
    ("tif", "u1"),  # codes.Tif
    ("flags", "u1"),  # codes.Flag
    (
        "condition",
        "u1",
    ),  # codes.Condition: ABOVE or BELOW, also when it was triggered; NONE: no trigger order
    ("role", "u1"),  # Role
    ("reserved", "u2"),  # zero
)
assert ORDER.itemsize == 64
ORDER_FACTS = record(  # of the same slot
    ("placed_ms", "i8"),
    ("cloid", "u1", c.CLOID_BYTES),
    ("builder", "u1", c.ADDRESS_BYTES),
    ("builder_fee", "i4"),
    ("trigger_price", "i8"),  # 0: no trigger order
    ("group", "i8"),  # of a parent and its children: the oid of the first parent; 0: none
)
assert ORDER_FACTS.itemsize == 64
ACCOUNT = record(
    ("cash", "i8"),
    # what its positions come to, valid while `marks` is the heap's (margin.py):
    ("used", "i8"),
    ("profit", "i8"),  # not taken, of cross positions
    ("maintenance", "i8"),  # of cross positions
    ("notional", "i8"),
    ("marks", "i8"),
    ("first_held", "i4"),  # market + 1, ascending by market; 0: none
    ("order_count", "i4"),
    ("first_order", "i4"),
    ("last_order", "i4"),
    # the second line: what a trade and a block's end need
    ("fees", "i8"),
    ("realised", "i8"),
    ("deposited", "i8"),
    ("volume", "i8"),
    ("actions", "i8"),
    ("reduce_count", "i4"),  # open orders that are reduce-only
    ("is_touched", "u1"),  # in the block under way
    ("is_killed", "u1"),  # it may not place orders
    ("reserved", "u2"),  # zero
    ("schedule_ms", "i8"),
    ("funding_round", "i8"),  # the last that it has paid
    # the third
    ("created_ms", "i8"),
    ("schedule_day", "i8"),  # on which schedule_count schedules have fired
    ("schedule_count", "i8"),
    ("partial_ms", "i8"),  # when a part of a large position was last sold for it
    ("name", "u1", c.TEXT_BYTES),
    ("master", "i4"),  # or NO_ACCOUNT
    ("padding", "u1", 12),  # zero
    # the fourth
    ("address", "u1", c.ADDRESS_BYTES),
    ("signer", "i4"),  # its own row of signers
    ("first_agent", "i4"),  # row of signers, newest first
    ("subs", "i4"),
    ("funding", "i8"),  # received since ever, less paid
    ("spare", "u1", 24),  # zero
)
assert ACCOUNT.itemsize == 256
POSITION = record(  # of account a in market m: row a * markets + m
    ("size", "i8"),
    ("entry", "i8"),
    ("buys", "i8"),  # price x remaining of its open buys that are not reduce-only
    ("sells", "i8"),
    ("isolated", "i8"),
    ("realised", "i8"),
    ("leverage", "u1"),  # 0: not used yet
    ("is_isolated", "u1"),
    ("is_touched", "u1"),
    ("is_held", "u1"),  # in its account's list: there is a position or an order
    ("next_held", "i4"),  # market + 1 of the account's next
    ("prior_holder", "i4"),  # account + 1: those with a position in the market, in no order
    ("next_holder", "i4"),
)
assert POSITION.itemsize == 64
NONCES_KEPT = 100
SIGNER = record(
    ("account", "i4"),
    ("next", "i4"),  # agents of the same account
    ("is_agent", "i4"),
    ("is_live", "i4"),
    ("valid_until_ms", "i8"),  # 0: for good
    ("nonce_count", "i8"),
    ("address", "u1", c.ADDRESS_BYTES),
    # from here on only for those who sign each action
    ("name", "u1", c.TEXT_BYTES),
    ("reserved", "u1", 28),  # zero
    ("nonces", "i8", NONCES_KEPT),  # the highest, ascending
)
assert SIGNER.itemsize == 896


TWAP = record(  # an order that is placed in slices; those that run, oldest first
    ("order", "i8"),  # its id
    ("quantity", "i8"),
    ("executed", "i8"),
    ("notional", "i8"),  # of what was executed
    ("minutes", "i8"),
    ("began_ms", "i8"),
    ("slices", "i8"),  # that were due so far
    ("account", "i4"),
    ("market", "i4"),
    ("side", "u1"),
    ("flags", "u1"),  # codes.Flag
    ("is_random", "u1"),
    ("reserved", "u1", 5),  # zero
)


class Role(IntEnum):
    """What an order is in its group (`facts.group`)."""

    ALONE = 0
    PARENT = 1  # it has children
    UNBORN = 2  # a child whose parent is not filled: no mark triggers it
    CHILD = 3


class Kind(IntEnum):
    """What an outcome tells. `status` is a row of codes.NAMES."""

    OPENED = 1  # an order rests: `quantity` of `original`
    FILLED = 2  # one side of a trade: `quantity` at `price`; `remaining` is left of the order
    ENDED = 3  # an open order ends, or one that never rested (CROSSED; also when it was filled): see `status`
    REFUSED = 4  # an order that never was; `code` and `status` say why
    MONEY = 5  # cash has moved: `amount`, `code` is a codes.Ledger, `other` the other account or NO_ACCOUNT
    MARKET = 6  # a market was added; with its first facts
    ACCOUNT = 7  # an account was made: its address; `other` is its master
    AGENT = (
        8  # a signer may trade for `account` until `placed_ms`: `order` is its row, `done` 1 if it is revoked
    )
    # at the end of a block, absolute, for all that the block has touched:
    FUNDS = 9
    POSITION = 10
    BLOCK = (
        11  # the block is whole: `order` is its height, `price` its last sequence, `amount` the digest before
    )
    PRICES = 12  # what a market's oracle, mark and premium are from here on
    TIER = 13  # a margin tier was added: `order` is its number
    RATE = 14  # an hour is over: what is paid in a market
    FUNDING = 15  # one position has paid, or was paid
    LIQUIDATED = 16  # what was told of the account just before was done because its margin did not suffice
    WAITING = 17  # a trigger order waits: `quantity` 0: all of the position; `code` 1: its parent's fill, too
    TRIGGERED = 18  # it waits no more: what its order comes to follows
    TWAP = 19  # a TWAP has begun, gone on, or ended: as it stands; `done` is a codes.Twap
    SLICE = 20  # a TWAP (`trade`) places this order: what that comes to follows


# Of an order (OPENED, ENDED, REFUSED, WAITING, TRIGGERED), `start` is its trigger price, `done` its
# codes.Condition (ABOVE or BELOW, also when it has been triggered), `amount` its group; IS_TRIGGER only while
# it waits. Of a TWAP: `order` its id, `quantity` and `original` what is wanted and executed, `amount` the
# notional executed, `placed_ms` when it began, `trade` its minutes, `code` 1 if it is randomised.
OUTCOME = record(
    #                           FILLED           FUNDS        POSITION    MARKET         PRICES       TIER
    ("sequence", "i8"),  # of the command
    ("time_ns", "i8"),  # of the command
    ("order", "i8"),  # oid                      actions                  size decimals  samples      number
    ("price", "i8"),  #                          cash         size        last price     mark         notional
    ("quantity", "i8"),  #      executed         used         entry       open interest  oracle
    ("original", "i8"),  #      remaining        volume       used        maker rate     external
    ("placed_ms", "i8"),  #                      schedule     isolated    taker rate     oracle's
    ("trade", "i8"),  #         tid              deposited    realised    most leverage  rate         leverage
    (
        "amount",
        "i8",
    ),  #        pnl              realised     leverage    interest cap   premium      deduction
    ("start", "i8"),  #         start position   created                  price band     impact bid
    ("fee", "i8"),  #           fee              fees         is cross    mark step      impact ask
    ("text", "u1", c.TEXT_BYTES),  # cloid       name                     name
    ("address", "u1", c.ADDRESS_BYTES),  # ACCOUNT, AGENT: whose; else zeros
    ("account", "i4"),
    ("market", "i4"),
    ("other", "i4"),  # FILLED: the account on the other side; MARKET: impact notional
    ("status", "u2"),
    ("kind", "u1"),
    ("side", "u1"),
    ("flags", "u1"),  # codes.Flag: REDUCE_ONLY, HAS_CLOID; FILLED, ENDED: CROSSED, the order has not rested
    ("tif", "u1"),
    ("done", "u1"),  # FILLED: nothing remains of the order; FUNDS: it is killed; MARKET: the oracle's state
    ("code", "u1"),  # MARKET: its mode
)
assert OUTCOME.itemsize == 144
OUTCOME_WORDS = OUTCOME.itemsize // 8
