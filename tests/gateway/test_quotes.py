"""What a market is quoted at, as text; candles and levels are compared where they are asked for."""

import numpy as np

from gateway import quotes
from shm import layout, units
from shm.constants import PLACES
from tests.world import amount


def test_a_mid_is_exact_and_falls_back_to_the_last_trade():
    book, out = np.zeros(1, layout.BOOK), np.zeros(64, np.uint8)
    book["bid_count"] = book["ask_count"] = 1
    book["bids"]["price"][0, 0], book["asks"]["price"][0, 0] = amount("2123.9"), amount("2124.0")
    end = quotes.put_mid(out, 0, book[0], PLACES)
    assert out[:end].tobytes() == b'"2123.95"'
    book["asks"]["price"][0, 0] = amount("2123.90000001")
    end = quotes.put_mid(out, 0, book[0], PLACES)
    assert out[:end].tobytes() == b'"2123.900000005"'
    book["ask_count"] = 0
    assert quotes.put_mid(out, 0, book[0], PLACES) == 0
    book["last_price"] = units.parse_decimal(b"99", PLACES)
    end = quotes.put_mid(out, 0, book[0], PLACES)
    assert out[:end].tobytes() == b'"99.0"'
