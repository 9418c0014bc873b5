"""The lowest steps of reading a node's text: one known piece at a time, in place, without an object.

Each step takes the text (u1[]) and a position, and gives the position behind what it read. What it does not
recognise it declines by giving FAR, a position beyond any text: every later step declines there too, so a
caller looks once, at the end of an event. Declining is always right, since the general decode (`decode.py`)
reads the line then; reading something that the general decode would read otherwise, or refuse, never is.

Eight bytes are looked at together as one int64, the first byte lowest; the tricks with them are the usual
ones (Mycroft's zero byte, sums of neighbouring digits), each named by its function.
"""

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue, TypingError
from numba.extending import intrinsic

from shm.constants import DECIMAL_DIGITS_MAX, PLACES
from shm.units import NOT_A_DECIMAL, POWERS, parse

# The kernels of this package count no references: they neither make nor keep an array, and counting took two
# thirds of their time (an atomic addition wherever a function names an array). `_nrt` is its switch.
kernel = njit(cache=True, nogil=True, _nrt=False)
step = njit(cache=True, nogil=True, _nrt=False, forceinline=True)  # small, and called at every field

FAR = 1 << 62
WORD = 8  # bytes
DEPTH_MAX = 30  # of a value that is skipped: one bit each of an int64
SKIP_MAX = 1 << 20  # steps of such a value

QUOTE, BACKSLASH, POINT, MINUS, ZERO, NINE = (ord(sign) for sign in '"\\.-09')
SPACE, DELETE = 0x20, 0x7F
_OPENERS = (ord("{"), ord("["))
_CLOSERS = (ord("}"), ord("]"))
_COMMA, _COLON, _NEWLINE = ord(","), ord(":"), ord("\n")


def _every(byte):
    """The int64 whose eight bytes are all `byte`."""
    return np.int64(int.from_bytes(bytes([byte] * WORD), "little", signed=True))


ONES, HIGHS = _every(0x01), _every(0x80)
QUOTES, BACKSLASHES, POINTS, SPACES, DELETES = (_every(b) for b in (QUOTE, BACKSLASH, POINT, SPACE, DELETE))
ZEROS, LOW_NIBBLES, HIGH_NIBBLES, SIXES = _every(ZERO), _every(0x0F), _every(0xF0), _every(6)
LETTER_SHIFT = 0x27  # from the digit that a hex letter's value would be to the letter: "a" - ("0" + 10)
_SCALES = np.array(POWERS, np.int64)
_I64 = cgutils.intp_t
_INTEGERS = {8: types.int64, 4: types.int32, 2: types.int16, 1: types.int8}  # by their bytes
# What a year's days before each month are, and how many days a month has: no leap day in February.
_DAYS_BEFORE = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334], np.int64)
_DAYS_OF = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)
EPOCH_YEAR, YEAR_END = 1970, 2262  # in 2262 the nanoseconds since 1970 leave an int64
_LEAP_DAYS_TO_1970 = 477
_DAY_S, _HOUR_S, _MINUTE_S = 86_400, 3_600, 60
SECOND_NS = 10**9
_FRACTION_DIGITS = 9


def _pointer(context, builder, array_type, array, at):
    value = context.make_array(array_type)(context, builder, array)
    return value, cgutils.get_item_pointer(
        context, builder, array_type, value, [at], wraparound=False, boundscheck=False
    )


@intrinsic
def word(typingctx, text, at):
    """Load text[at:at+8] as one int64. The caller has looked that they exist."""

    def codegen(context, builder, signature, args):
        _, pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.load(builder.bitcast(pointer, _I64.as_pointer()), align=1)

    return types.int64(text, types.intp), codegen


@intrinsic
def first_byte(typingctx, marks):
    """Tell in which byte of `marks`, not zero, the lowest bit is set: 0 to 7."""

    def codegen(context, builder, signature, args):
        bit = builder.cttz(args[0], cgutils.true_bit)
        return builder.lshr(bit, _I64(3))

    return types.int64(types.int64), codegen


def _pieces(size):
    """Cover `size` bytes by loads (offset, bytes) of a machine's widths; the last may overlap another."""
    width = next(w for w in (8, 4, 2, 1) if w <= size)
    offsets = list(range(0, size - width + 1, width))
    if offsets[-1] + width < size:
        offsets.append(size - width)
    return [(offset, width) for offset in offsets]


@intrinsic(prefer_literal=True)
def skip(typingctx, text, at, expected):
    """Give the position behind the literal `expected` (ASCII) at text[at:], or FAR if it is not there."""
    if not isinstance(expected, types.StringLiteral):
        raise RequireLiteralValue("the expected text is a literal")
    literal = expected.literal_value.encode("ascii")

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        after = builder.add(args[1], _I64(len(literal)))
        result = cgutils.alloca_once_value(builder, _I64(FAR))
        with builder.if_then(builder.icmp_signed("<=", after, array.nitems), likely=True):
            start = _pointer(context, builder, signature.args[0], args[0], args[1])[1]
            differs = _I64(0)
            for offset, width in _pieces(len(literal)):
                piece = context.get_value_type(_INTEGERS[width])
                pointer = builder.gep(start, [_I64(offset)])
                seen = builder.load(builder.bitcast(pointer, piece.as_pointer()), align=1)
                wanted = int.from_bytes(literal[offset : offset + width], "little")
                change = builder.xor(seen, piece(wanted))
                differs = builder.or_(differs, change if width == WORD else builder.zext(change, _I64))
            same = builder.icmp_signed("==", differs, _I64(0))
            builder.store(builder.select(same, after, _I64(FAR)), result)
        return builder.load(result)

    return types.int64(text, types.intp, expected), codegen


@intrinsic
def clear(typingctx, record):
    """Set every byte of a record to zero."""
    if not isinstance(record, types.Record):
        raise TypingError(f"{record} is no record")

    def codegen(context, builder, signature, args):
        cgutils.memset(builder, args[0], _I64(signature.args[0].size), 0)
        return context.get_dummy_value()

    return types.void(record), codegen


@step
def zero_bytes(value):
    """Mark by 0x80 the zero bytes of an int64. Only the lowest mark is sure."""
    return (value - ONES) & ~value & HIGHS


@step
def peek(text, at):
    """Give the byte at text[at], or 0 behind its end."""
    return np.int64(text[at]) if at < len(text) else 0


@kernel
def quote(text, at):
    """Find the quote that ends the string text[at:], which is plain: printable ASCII, nothing escaped."""
    while at + WORD <= len(text):
        look = word(text, at)
        odd = zero_bytes(look ^ BACKSLASHES) | zero_bytes(look ^ DELETES)
        odd |= ((look - SPACES) & ~look | look) & HIGHS
        end = zero_bytes(look ^ QUOTES)
        if odd | end:
            place = first_byte(odd | end)
            return at + place if peek(text, at + place) == QUOTE else FAR
        at += WORD
    while at < len(text) and SPACE <= text[at] < DELETE and text[at] != BACKSLASH:
        if text[at] == QUOTE:
            return at
        at += 1
    return FAR


@step
def same(text, first, second, length):
    """Tell whether text[first:first+length] and text[second:second+length] are equal; length >= 8."""
    if first + length > len(text) or second + length > len(text):
        return False
    differs = word(text, first + length - WORD) ^ word(text, second + length - WORD)
    for i in range(0, length - WORD, WORD):
        differs |= word(text, first + i) ^ word(text, second + i)
    return differs == 0


@step
def are_digits(look):
    """Tell whether all eight bytes are ASCII digits."""
    return (look & HIGH_NIBBLES == ZEROS) & ((look + SIXES) & HIGH_NIBBLES == ZEROS)


@step
def eight_digits(look):
    """Read eight ASCII digits as a number: neighbours are joined to pairs, pairs to fours, fours to the
    whole.
    """
    pairs = ((look & LOW_NIBBLES) * 2561) >> 8
    fours = ((pairs & 0x00FF00FF00FF00FF) * 6553601) >> 16
    return ((fours & 0x0000FFFF0000FFFF) * 42949672960001) >> 32


@step
def whole(text, at):
    """Read a JSON integer >= 0 of at most 18 digits: (value, the position behind it or FAR)."""
    start, value = at, 0
    if at + WORD <= len(text):
        look = word(text, at)
        if are_digits(look):
            value, at = eight_digits(look), at + WORD
    while at < len(text) and ZERO <= text[at] <= NINE:
        value = value * 10 + (np.int64(text[at]) - ZERO)
        at += 1
        if at - start > DECIMAL_DIGITS_MAX:
            return 0, FAR
    if at == start or (text[start] == ZERO and at - start > 1):
        return 0, FAR
    return value, at


@step
def decimal(text, at):
    """Read the string text[at:] of a price or a quantity as units of 10**-PLACES: (value, position behind its
    quote).

    The rule is that of units.parse, without a minus. A text of at most eight bytes with a point, as nearly
    all are, is read in one go: the point is cut out, the digits are moved to the end of a word, and zeros
    stand before them.
    """
    if at + WORD < len(text):
        look = word(text, at)
        marks, point = zero_bytes(look ^ QUOTES), zero_bytes(look ^ POINTS)
        length = first_byte(marks) if marks != 0 else WORD
        if point != 0 and (marks != 0 or text[at + WORD] == QUOTE):
            before = first_byte(point)
            places = length - before - 1
            if before > 0 and places > 0:
                low = (np.int64(1) << (before * WORD)) - 1
                digits = (look & low) | ((look >> WORD) & ~(low | (np.int64(0xFF) << 56)))
                unused = (WORD + 1 - length) * WORD
                digits = (digits << unused) | (ZEROS & ((np.int64(1) << unused) - 1))
                if are_digits(digits):
                    return eight_digits(digits) * _SCALES[PLACES - places], at + length + 1
                return 0, FAR
    return long_decimal(text, at, False)


@kernel
def long_decimal(text, at, signed):
    """Read the string text[at:] of any decimal that units.parse can: (value, position behind its quote).

    signed  whether a minus is allowed and a fraction finer than PLACES is rounded, as in what the source
            computed
    """
    end = quote(text, at)
    if end == FAR or (not signed and text[at] == MINUS):
        return 0, FAR
    value = parse(text, at, end, PLACES, signed)
    return (0, FAR) if value == NOT_A_DECIMAL else (value, end + 1)


@step
def hexadecimal(text, at, out, size):
    """Read 2 * size lower-case hex digits into out[:size] (u1[]); `size` is a multiple of 4."""
    if at + 2 * size > len(text):
        return FAR
    wrong = np.int64(0)
    for i in range(size // 4):
        look = word(text, at + i * WORD)
        letter = (look >> 6) & ONES
        nibbles = (look & LOW_NIBBLES) + letter * 9
        wrong |= ((nibbles + ZEROS + letter * LETTER_SHIFT) ^ look) | (nibbles & HIGH_NIBBLES)
        wrong |= (((nibbles + SIXES) >> 4) & LOW_NIBBLES) ^ letter
        pairs = ((nibbles << 4) | (nibbles >> WORD)) & 0x00FF00FF00FF00FF
        fours = (pairs | (pairs >> WORD)) & 0x0000FFFF0000FFFF
        four = fours | (fours >> (2 * WORD))
        for byte in range(4):
            out[4 * i + byte] = np.uint8((four >> (WORD * byte)) & 0xFF)
    return FAR if wrong else at + 2 * size


@kernel
def two_digits(text, at):
    """Read two ASCII digits that exist; a value above 99 says that they are something else."""
    tens, ones = np.int64(text[at]) - ZERO, np.int64(text[at + 1]) - ZERO
    return tens * 10 + ones if (0 <= tens <= 9) & (0 <= ones <= 9) else 100


@kernel
def days_since_1970(year, month, day):
    """Count days in the Gregorian calendar, or give -1 where there is no such day."""
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    if not (EPOCH_YEAR <= year < YEAR_END and 1 <= month <= 12):
        return -1
    if not 1 <= day <= _DAYS_OF[month - 1] + (leap and month == 2):
        return -1
    past = year - 1
    days = (year - EPOCH_YEAR) * 365 + past // 4 - past // 100 + past // 400 - _LEAP_DAYS_TO_1970
    return days + _DAYS_BEFORE[month - 1] + (leap and month > 2) + day - 1


@kernel
def moment(text, at):
    """Read the string "2026-05-05T17:39:13.024084407" (0 to 9 decimals): (ns since 1970, position behind its
    quote).
    """
    if at + len("2026-05-05T17:39:13") + 1 > len(text):
        return 0, FAR
    if not (text[at + 4] == text[at + 7] == MINUS and text[at + 10] == ord("T")):
        return 0, FAR
    if not text[at + 13] == text[at + 16] == _COLON:
        return 0, FAR
    century, year = two_digits(text, at), two_digits(text, at + 2)
    days = days_since_1970(century * 100 + year, two_digits(text, at + 5), two_digits(text, at + 8))
    hour, minute, second = two_digits(text, at + 11), two_digits(text, at + 14), two_digits(text, at + 17)
    if (century > 99) | (year > 99) | (days < 0) | (hour > 23) | (minute > 59) | (second > 59):
        return 0, FAR
    at += len("2026-05-05T17:39:13")
    value = days * _DAY_S + hour * _HOUR_S + minute * _MINUTE_S + second
    places = 0
    if text[at] == POINT:
        at += 1
        while at < len(text) and ZERO <= text[at] <= NINE and places < _FRACTION_DIGITS:
            value = value * 10 + (np.int64(text[at]) - ZERO)
            at, places = at + 1, places + 1
        if places == 0:
            return 0, FAR
    return value * _SCALES[_FRACTION_DIGITS - places], skip(text, at, '"')


@kernel
def number_end(text, at):
    """Skip a plain JSON number: no leading zero, no exponent."""
    at += peek(text, at) == MINUS
    start = at
    while ZERO <= peek(text, at) <= NINE:
        at += 1
    if at == start or (at - start > 1 and text[start] == ZERO):
        return FAR
    if peek(text, at) == POINT:
        at += 1
        start = at
        while ZERO <= peek(text, at) <= NINE:
            at += 1
    return FAR if at == start else at


@kernel
def scalar_end(text, at):
    """Skip a string, a number, true, false or null."""
    sign = peek(text, at)
    if sign == QUOTE:
        return quote(text, at + 1) + 1
    if sign == ord("n"):
        return skip(text, at, "null")
    if sign == ord("t"):
        return skip(text, at, "true")
    if sign == ord("f"):
        return skip(text, at, "false")
    return number_end(text, at)


@kernel
def key_end(text, at):
    """Skip a key, its quotes and its colon."""
    return skip(text, quote(text, skip(text, at, '"')), '":')


@kernel
def value_end(text, at):
    """Skip a whole JSON value without white space; containers at most DEPTH_MAX deep, of which `open_as`
    remembers one bit each.
    """
    depth, open_as = 0, 0
    for _ in range(SKIP_MAX):
        sign = peek(text, at)
        if sign in _OPENERS and peek(text, at + 1) != sign + 2:
            is_list = np.int64(sign == _OPENERS[1])
            open_as, depth, at = (open_as << 1) | is_list, depth + 1, at + 1
            if depth > DEPTH_MAX:
                return FAR
            at = at if is_list else key_end(text, at)
            continue
        at = at + 2 if sign in _OPENERS else scalar_end(text, at)
        while depth > 0 and peek(text, at) == _CLOSERS[open_as & 1]:
            open_as, depth, at = open_as >> 1, depth - 1, at + 1
        if depth == 0 or at >= len(text):
            return at if at < len(text) else FAR
        at = skip(text, at, ",")
        at = at if open_as & 1 else key_end(text, at)
    return FAR


@kernel
def newline(text, at):
    """Find the newline at or after text[at:], or the end of the text."""
    while at + WORD <= len(text) and zero_bytes(word(text, at) ^ _NEWLINES) == 0:
        at += WORD
    while at < len(text) and text[at] != _NEWLINE:
        at += 1
    return at


_NEWLINES = _every(_NEWLINE)
