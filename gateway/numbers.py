"""Write what a record holds as JSON text, into bytes that the caller owns: the words of `encode`'s messages.

Every kernel here takes `out` (u1[]) and a place `at`, writes from there, and returns the end. None looks
whether there is room: the caller leaves at least what this table says.

    put          the literal's length            put_hex      2 + 2 for each byte
    put_int      20                              put_quoted   2 + 2 for each byte of the text
    put_decimal  23                              put_iso      31
"""

import numpy as np

from shm import units
from shm.kernel import inner

QUOTE, BACKSLASH, BLANK = ord('"'), ord("\\"), ord(" ")
ZERO, ZED_HEX, MINUS, TEE, COLON, POINT = ord("0"), ord("a") - 10, ord("-"), ord("T"), ord(":"), ord(".")
EX = ord("x")
_UNPRINTABLE = ord("?")
_ASCII_MAX = 126
_NS = 1_000_000_000
_SECONDS_A_DAY, _SECONDS_AN_HOUR, _SECONDS_A_MINUTE = 86_400, 3_600, 60
_MICROSECONDS, _MILLISECONDS = 1_000, 1_000_000

# The Gregorian calendar by eras of 400 years, whose years begin in March (Hinnant, civil_from_days).
_DAYS_AN_ERA, _YEARS_AN_ERA, _EPOCH_DAY = 146_097, 400, 719_468


def literal(text: str) -> np.ndarray:
    """ASCII text as the array that `put` takes; a global of this kind is a constant of the kernel."""
    return np.frombuffer(text.encode("ascii"), np.uint8)


@inner
def put(out, at, text):
    """Write all of `text` (u1[])."""
    for i in range(len(text)):
        out[at + i] = text[i]
    return at + len(text)


@inner
def put_int(out, at, value):
    """Write an int64 in decimal."""
    if value < 0:
        out[at] = MINUS
        at, value = at + 1, -value
    length, rest = 1, value // 10
    while rest > 0:
        length, rest = length + 1, rest // 10
    for i in range(length):
        out[at + length - 1 - i] = ZERO + value % 10
        value //= 10
    return at + length


@inner
def put_padded(out, at, value, width):
    """Write the last `width` digits of a value that is not negative, with zeros before it."""
    for i in range(width):
        out[at + width - 1 - i] = ZERO + value % 10
        value //= 10
    return at + width


@inner
def put_decimal(out, at, value, places, point):
    """Write `value` units of 10**-places, quoted. point: whether a whole number keeps its `.0`."""
    out[at] = QUOTE
    at = units.write(out, at + 1, value, places, point)
    out[at] = QUOTE
    return at + 1


@inner
def put_hex(out, at, raw):
    """Write `"0x<hex>"`, quoted, lower case, of the bytes `raw` (u1[])."""
    out[at], out[at + 1], out[at + 2] = QUOTE, ZERO, EX
    at += 3
    for i in range(len(raw)):
        high, low = raw[i] >> 4, raw[i] & 15
        out[at] = high + (ZERO if high < 10 else ZED_HEX)
        out[at + 1] = low + (ZERO if low < 10 else ZED_HEX)
        at += 2
    out[at] = QUOTE
    return at + 1


@inner
def put_text(out, at, text):
    """Write the zero-filled ASCII `text` (u1[]) so that it may stand between quotes."""
    for i in range(len(text)):
        byte = text[i]
        if byte == 0:
            break
        if byte == QUOTE or byte == BACKSLASH:
            out[at] = BACKSLASH
            at += 1
        out[at] = byte if BLANK <= byte <= _ASCII_MAX else _UNPRINTABLE
        at += 1
    return at


@inner
def put_quoted(out, at, text):
    """Write `"<text>"`."""
    out[at] = QUOTE
    at = put_text(out, at + 1, text)
    out[at] = QUOTE
    return at + 1


@inner
def put_iso(out, at, time_ns):
    """Write `"2025-06-24T02:56:36.172847427"`: UTC without a zone, with 0, 3, 6 or 9 digits of the second.

    time_ns  0 or later
    """
    seconds, fraction = time_ns // _NS, time_ns % _NS
    days, second = seconds // _SECONDS_A_DAY, seconds % _SECONDS_A_DAY
    out[at] = QUOTE
    at = _put_date(out, at + 1, days)
    out[at] = TEE
    at = put_padded(out, at + 1, second // _SECONDS_AN_HOUR, 2)
    out[at] = COLON
    at = put_padded(out, at + 1, second // _SECONDS_A_MINUTE % 60, 2)
    out[at] = COLON
    at = put_padded(out, at + 1, second % _SECONDS_A_MINUTE, 2)
    if fraction != 0:
        width = 9
        if fraction % _MILLISECONDS == 0:
            fraction, width = fraction // _MILLISECONDS, 3
        elif fraction % _MICROSECONDS == 0:
            fraction, width = fraction // _MICROSECONDS, 6
        out[at] = POINT
        at = put_padded(out, at + 1, fraction, width)
    out[at] = QUOTE
    return at + 1


@inner
def _put_date(out, at, days):
    """Write the date that is `days` after 1970-01-01, as YYYY-MM-DD."""
    shifted = days + _EPOCH_DAY
    era, day_of_era = shifted // _DAYS_AN_ERA, shifted % _DAYS_AN_ERA
    year_of_era = (
        day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // (_DAYS_AN_ERA - 1)
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    march_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * march_month + 2) // 5 + 1
    month = march_month + 3 if march_month < 10 else march_month - 9
    year = year_of_era + era * _YEARS_AN_ERA + (1 if month <= 2 else 0)
    at = put_padded(out, at, year, 4)
    out[at] = MINUS
    at = put_padded(out, at + 1, month, 2)
    out[at] = MINUS
    return put_padded(out, at + 1, day, 2)
