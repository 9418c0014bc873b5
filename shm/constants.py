"""Bounds and capacities, each with its reason. No bare number above 2 stands in a kernel."""

LINE = 128  # bytes: two 64-byte cache lines, because the prefetcher fetches them in pairs
PAGE = 4096  # bytes: what the kernel maps and seals

# decimals of a followed price or quantity: perps need 6, spot 8, and no log names the market's own
PLACES = 8
DECIMAL_DIGITS_MAX = 18  # digits of a decimal text that surely fit in an int64

BOOK_SLOTS = 4  # whole copies of a book: a reader is lapped only when it sleeps through three publications
BOOK_DEPTH = 100  # levels a side in a published book: the widest that a client may ask for
READ_TRIES = 64  # looks at another process's memory before a reader gives up and says TORN

NAME_BYTES = 48  # the longest interned text: order statuses run to 44
MARKET_NAME_BYTES = 32  # a builder dex's name, a colon and a coin
ADDRESS_BYTES = 20
CLOID_BYTES = 16
HASH_BYTES = 32

NAMES_MAX = 1024  # interned texts: statuses, order types, tifs, directions, tokens
MARKETS_MAX = 2048  # perps, spot pairs, builder dexes and outcomes of the public venue, times four
ACCOUNTS_MAX = 1 << 19
ORDERS_MAX = 1 << 21
LEVELS_MAX = 1 << 21  # price levels over all markets, with the slack of doubling extents
EVENTS_MAX = 1 << 18  # slots of the event ring: about 300 blocks of the busiest market
FILLS_MAX = 1 << 16
TRADES_MAX = 1 << 16
CLOSED_MAX = 1 << 18  # orders that ended, newest kept
REJECTED_MAX = 1 << 17  # refusals are nine of ten statuses: on a ring of their own they push out no fill
BUCKETS_MAX = 1 << 16  # heads of the chains by which an ended order is found

SIDE_LEVELS_MIN = 32  # levels in a side's first extent; it doubles when full
USER_FILLS_MAX = 2000  # fills in one answer, as on the wire
GATEWAYS_MAX = 64

# of an exchange of our own
USD_PLACES = 6  # a price x a size is whole units of 10**-6 USD, exactly
PERP_DECIMALS = 6  # a perp's price has this many less its size's decimals
EXCHANGE_MARKETS_MAX = 64
EXCHANGE_ACCOUNTS_MAX = 100_000
EXCHANGE_ORDERS_MAX = 2_000_000
AGENTS_MAX = 1 << 16
POSITIONS_MAX = 1 << 18
LEDGER_MAX = 1 << 16
CANDLES_KEPT = 5000  # of each market and interval, as on the wire
RATES_KEPT = 31 * 24  # of each market: hours of funding
TWAPS_KEPT = 1 << 14  # beginnings and ends of TWAPs, newest kept
COMMANDS_MAX = 1 << 13  # slots of a gateway's command ring, and of its ack ring
BATCH_MAX = 200  # orders of one signed action
LEVERAGE_DEFAULT = 20  # in a market where an account has not chosen, if the market allows as much
MARKET_ORDERS_MAX = ((25, 15_000_000), (20, 5_000_000), (10, 2_000_000), (1, 500_000))  # leverage from, USD
LIMIT_ORDERS_MAX_TIMES = 10  # a limit order may be worth so many times the largest market order
TRANSFER_PART = 10  # of the notional of its positions, an account keeps a tenth when money leaves it
TWAPS_MAX = 1000  # that run at the same time, of all accounts
TIERS_MAX = 4  # of margin, in a market
# of a market's open interest at its mark, in 10**-USD_PLACES USD: no product wraps
INTEREST_VALUE_MAX = 10**16
PRICE_BAND = 800  # per mille of the reference price that an order's may differ from it
IMPACT_USD = 6000  # the notional by which a market's premium is measured
FUNDING_PLACES = 10  # a premium or a rate of funding is whole units of 10**-10
TEXT_BYTES = 16  # names of agents and sub-accounts; a cloid is as long
