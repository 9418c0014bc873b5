"""What a market is quoted at, as elements of the wire's messages: levels, mids and candles.

As in `encode`, every kernel that begins with `write_` writes elements joined by commas into out[at:] and
returns the end; one takes at most encode.ELEMENT_BYTES_MAX, for which the caller makes room.

out      u1[]
markets  MARKET[], as the engine publishes them
"""

import numpy as np

from gateway.encode import ELEMENT_BYTES_MAX
from gateway.numbers import literal, put, put_decimal, put_int, put_quoted
from shm import layout, seqlock
from shm.constants import BOOK_SLOTS, READ_TRIES
from shm.kernel import entry

_MID_MAX = (2**63 - 1) // 10

_COMMA, _COLON, _CLOSE = literal(","), literal(":"), literal("}")
_PX, _SZ, _N = literal('{"px":'), literal(',"sz":'), literal(',"n":')
_CANDLE_START, _CANDLE_END, _CANDLE_COIN = literal('{"t":'), literal(',"T":'), literal(',"s":')
_INTERVAL, _OPEN_PX, _CLOSE_PX = literal(',"i":'), literal(',"o":'), literal(',"c":')
_HIGH_PX, _LOW_PX, _VOLUME = literal(',"h":'), literal(',"l":'), literal(',"v":')


# --- books --------------------------------------------------------------------------------------------------


@entry
def write_levels(out, at, levels, count, price_places, quantity_places):
    """Write levels[:count] (BOOK_LEVEL[]) as `{"px","sz","n"}`."""
    for i in range(count):
        at = put(out, at, _COMMA) if i > 0 else at
        at = put_decimal(out, put(out, at, _PX), levels[i].price, price_places, True)
        at = put_decimal(out, put(out, at, _SZ), levels[i].quantity, quantity_places, True)
        at = put_int(out, put(out, at, _N), levels[i].count)
        at = put(out, at, _CLOSE)
    return at


@entry
def put_mid(out, at, book, places):
    """Write the middle of a BOOK, else its last trade's price, quoted; return `at` when it has neither."""
    if book.bid_count > 0 and book.ask_count > 0:
        total = book.bids[0].price + book.asks[0].price
        if 0 <= total <= _MID_MAX:
            return put_decimal(out, at, total * 5, places + 1, True)
        return put_decimal(out, at, total // 2, places, True)
    if book.last_price > 0:
        return put_decimal(out, at, book.last_price, places, True)
    return at


@entry
def write_mids(out, at, heads, books, markets, count, wanted, book):
    """Write `"coin":"mid"` of each of the first `count` markets that is wanted (b1[]) and has one.

    book  BOOK[1], overwritten. A market whose book could not be read whole is left out.
    """
    begin = at
    for m in range(count):
        if not wanted[m]:
            continue
        cells = books[m * BOOK_SLOTS : (m + 1) * BOOK_SLOTS]
        if seqlock.read_book(heads[m], cells, book, 1, READ_TRIES) <= 0:
            continue
        start = at
        at = put(out, at, _COMMA) if at > begin else at
        at = put(out, put_quoted(out, at, markets[m].name), _COLON)
        end = put_mid(out, at, book[0], markets[m].price_places)
        at = start if end == at else end
    return at


# --- candles ------------------------------------------------------------------------------------------------


@entry
def write_candles(out, at, candles, ends_ms, count, market, interval):
    """Write candles[:count] (CANDLE[]) of a market (a MARKET row) as candleSnapshot tells them.

    ends_ms   i8[]: the last millisecond of each
    interval  u1[]: its name
    """
    for i in range(count):
        at = put(out, at, _COMMA) if i > 0 else at
        candle, places = candles[i], market.price_places
        at = put_int(out, put(out, at, _CANDLE_START), candle.start_ms)
        at = put_int(out, put(out, at, _CANDLE_END), ends_ms[i])
        at = put_quoted(out, put(out, at, _CANDLE_COIN), market.name)
        at = put_quoted(out, put(out, at, _INTERVAL), interval)
        at = put_decimal(out, put(out, at, _OPEN_PX), candle.open, places, True)
        at = put_decimal(out, put(out, at, _CLOSE_PX), candle.close, places, True)
        at = put_decimal(out, put(out, at, _HIGH_PX), candle.high, places, True)
        at = put_decimal(out, put(out, at, _LOW_PX), candle.low, places, True)
        at = put_decimal(out, put(out, at, _VOLUME), candle.volume, market.quantity_places, True)
        at = put_int(out, put(out, at, _N), candle.count)
        at = put(out, at, _CLOSE)
    return at


def warm() -> None:
    """Compile the entry points for memory that is mapped read-only, and for our own."""
    markets, interval = np.zeros(1, layout.MARKET), np.zeros(2, np.uint8)
    heads, books = np.zeros(1, layout.BOOK_HEAD), np.zeros(BOOK_SLOTS, layout.BOOK)
    for array in (markets, interval, heads, books):
        array.flags.writeable = False
    out = np.zeros(4 * ELEMENT_BYTES_MAX, np.uint8)
    write_levels(out, 0, np.zeros(1, layout.BOOK_LEVEL), 1, 0, 0)
    write_mids(out, 0, heads, books, markets, 1, np.zeros(1, np.bool_), np.zeros(1, layout.BOOK))
    write_candles(out, 0, np.zeros(1, layout.CANDLE), np.zeros(1, layout.WORD), 1, markets[0], interval)
