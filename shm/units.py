"""Prices and quantities are whole numbers of 10**-places units. No float holds money.

Text to integer and back happens here alone, on bytes, exactly: `digits[.digits]` in ASCII, with one leading
minus where the caller allows it. The wire's form of a whole number keeps its ".0" (`"106217.0"`).
"""

import numpy as np
from numba import njit

from shm.constants import DECIMAL_DIGITS_MAX

POWERS = tuple(10**exponent for exponent in range(DECIMAL_DIGITS_MAX + 1))
NOT_A_DECIMAL = -(2**63)  # what the kernel returns: no legal value reaches it

_POWERS = np.array(POWERS, np.int64)
_MINUS, _POINT, _ZERO, _NINE = ord("-"), ord("."), ord("0"), ord("9")


class NotADecimal(ValueError):
    """The text is not a plain decimal number, or it is finer or larger than the unit can hold."""


@njit(cache=True, nogil=True)
def parse(text, start, end, places, rounds):
    """Read text[start:end] (u1[]) as a whole number of 10**-places units, or give NOT_A_DECIMAL.

    A fraction finer than `places` is refused, unless `rounds` is true: then it is rounded half away from
    zero, which is for figures that the source itself computed in binary (a start position, a fee), never for
    a price or a size. At most DECIMAL_DIGITS_MAX significant digits before and after the point together,
    counting `places`.
    """
    at, negative = start, False
    if at < end and text[at] == _MINUS:
        negative, at = True, at + 1
    value, digits, whole = 0, 0, at
    while at < end and _ZERO <= text[at] <= _NINE:
        value = value * 10 + (text[at] - _ZERO)
        digits += value != 0
        at += 1
        if digits > DECIMAL_DIGITS_MAX:
            return NOT_A_DECIMAL
    if at == whole:
        return NOT_A_DECIMAL
    fraction = 0
    if at < end and text[at] == _POINT:
        at += 1
        point = at
        carry, tail = 0, False
        while at < end and _ZERO <= text[at] <= _NINE:
            digit = np.int64(text[at] - _ZERO)
            if fraction < places:
                value = value * 10 + digit
                digits += value != 0
                fraction += 1
                if digits > DECIMAL_DIGITS_MAX:
                    return NOT_A_DECIMAL
            else:
                if at - point == places:
                    carry = digit >= 5
                tail = tail or digit != 0
            at += 1
        if at == point or (tail and not rounds):
            return NOT_A_DECIMAL
        value += carry if rounds else 0
    if at != end:
        return NOT_A_DECIMAL
    if value > 0 and digits + places - fraction > DECIMAL_DIGITS_MAX:
        return NOT_A_DECIMAL
    value *= _POWERS[places - fraction]
    return -value if negative else value


@njit(cache=True, nogil=True)
def write(out, at, value, places, point):
    """Write `value` units of 10**-places as the shortest decimal into out[at:] (u1[]); return the end.

    point  whether a whole number keeps its ".0", as prices and sizes do on the wire
    Writes at most 21 bytes.
    """
    if value < 0:
        out[at] = _MINUS
        at, value = at + 1, -value
    scale = _POWERS[places]
    whole, fraction = value // scale, value % scale
    length = 1
    while length < DECIMAL_DIGITS_MAX and whole >= _POWERS[length]:
        length += 1
    if length == DECIMAL_DIGITS_MAX and whole >= _POWERS[length]:
        length += 1
    for i in range(length):
        out[at + length - 1 - i] = _ZERO + whole % 10
        whole //= 10
    at += length
    if fraction == 0:
        if point:
            out[at], out[at + 1] = _POINT, _ZERO
            at += 2
        return at
    out[at] = _POINT
    while fraction % 10 == 0:
        fraction, places = fraction // 10, places - 1
    for i in range(places):
        out[at + places - i] = _ZERO + fraction % 10
        fraction //= 10
    return at + 1 + places


def parse_decimal(text: bytes, places: int) -> int:
    """Read `text` as a whole number of 10**-places units, exactly. Raises NotADecimal.

    >>> parse_decimal(b"0.29", places=2)
    29
    """
    value = parse(np.frombuffer(text, np.uint8), 0, len(text), places, False)
    if value == NOT_A_DECIMAL:
        raise NotADecimal(f"expected digits with at most one point and {places} decimals")
    return int(value)


def format_decimal(value: int, places: int, point: bool = True) -> str:
    """Write `value` units of 10**-places as the wire does; parse_decimal reads it back.

    >>> format_decimal(10621700, places=2), format_decimal(10621750, places=2), format_decimal(-5, places=1)
    ('106217.0', '106217.5', '-0.5')
    """
    sign = "-" if value < 0 else ""
    whole, fraction = divmod(abs(int(value)), 10**places)
    if fraction == 0:
        return f"{sign}{whole}.0" if point else f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:0{places}d}".rstrip("0")
