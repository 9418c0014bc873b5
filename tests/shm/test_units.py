"""Text to whole units and back: exactly, or not at all."""

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm import units
from shm.constants import DECIMAL_DIGITS_MAX, PLACES

WHOLE_MAX = 10**DECIMAL_DIGITS_MAX - 1
texts = st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{1,12})?", fullmatch=True)
places_of = st.integers(0, PLACES)


def parse(text, places, rounds=False):
    """What the kernel gives for `text` in the middle of other bytes."""
    around = b"9.9" + text.encode() + b"9.9"
    return units.parse(np.frombuffer(around, np.uint8), 3, 3 + len(text.encode()), places, rounds)


def written(value, places, point):
    out = np.full(64, ord("#"), np.uint8)
    end = units.write(out, 5, value, places, point)
    assert bytes(out[:5]) == b"#####" and not bytes(out[end:]).strip(b"#") and end - 5 <= 21
    return bytes(out[5:end]).decode()


def exactly(text, places):
    """The same by Decimal, or None where it is finer than the unit or has too many digits."""
    scaled = Decimal(text).scaleb(places)
    whole = scaled == scaled.to_integral_value()
    return int(scaled) if whole and abs(scaled) <= WHOLE_MAX else None


@given(texts, places_of)
def test_a_decimal_is_read_exactly_or_refused(text, places):
    value, got = exactly(text, places), parse(text, places)
    if value is not None and len(text.replace("-", "").replace(".", "").lstrip("0")) <= DECIMAL_DIGITS_MAX:
        assert got == value
    else:
        assert got in (value, units.NOT_A_DECIMAL) if value is not None else got == units.NOT_A_DECIMAL


@given(texts, places_of)
def test_a_computed_figure_is_rounded_half_away_from_zero(text, places):
    got = parse(text, places, rounds=True)
    if got != units.NOT_A_DECIMAL:
        assert got == int(Decimal(text).scaleb(places).quantize(Decimal(1), ROUND_HALF_UP))
    else:
        assert exactly(text, 0) is None or abs(Decimal(text).scaleb(places)) > WHOLE_MAX // 10


@pytest.mark.parametrize(
    "text",
    ["", "-", ".", "1.", ".5", "-.5", "+1", " 1", "1 ", "1_000", "1e3", "1,5", "0x1", "--1", "1-", "1.2.3"]
    + ["NaN", "inf", "Infinity", "１２", "١", "1\n", "1\0", "0.1-"],
)
def test_anything_but_digits_and_a_point_is_refused(text):
    for rounds in (False, True):
        assert parse(text, PLACES, rounds) == units.NOT_A_DECIMAL
    with pytest.raises(units.NotADecimal):
        units.parse_decimal(text.encode(), PLACES)


@given(st.binary(max_size=24), places_of)
def test_any_bytes_are_a_decimal_or_refused(text, places):
    got = units.parse(np.frombuffer(text + b"x", np.uint8), 0, len(text), places, False)
    plain = text.isascii() and text.removeprefix(b"-").replace(b".", b"", 1).isdigit()
    assert got == units.NOT_A_DECIMAL or (plain and got == exactly(text.decode(), places))


@pytest.mark.parametrize(
    ("text", "places", "value"),
    [("0.29", 2, 29), ("106217.0", 6, 106_217_000_000), ("0.00000001", 8, 1), ("-0.0", 8, 0), ("007", 0, 7)]
    + [("9" * 18, 0, WHOLE_MAX), ("1.50", 1, 15), ("1.5000000000000", 1, 15)],
)
def test_some_figures(text, places, value):
    assert parse(text, places) == value == units.parse_decimal(text.encode(), places)


@pytest.mark.parametrize(
    ("text", "places"),
    [("1.55", 1), ("1" * 19, 0), ("9" * 11, 8), ("0.000000001", 8)]
    + [("9" * 19, 0), ("9999999999.999999999", 8)],
)
def test_what_is_too_fine_or_too_large_is_refused(text, places):
    assert parse(text, places) == units.NOT_A_DECIMAL


@given(st.integers(-WHOLE_MAX, WHOLE_MAX), places_of, st.booleans())
def test_what_is_written_reads_back_and_is_the_shortest(value, places, point):
    text = written(value, places, point)
    assert parse(text, places) == value
    assert text == units.format_decimal(value, places, point)
    whole, _, fraction = text.partition(".")
    assert (
        fraction == "" if not point and value % 10**places == 0 else fraction == "0" or fraction[-1:] != "0"
    )
    assert whole.lstrip("-") == "0" or whole.lstrip("-")[0] != "0"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0"), (5, "0.05"), (-5, "-0.05"), (100, "1.0"), (150, "1.5"), (-1_234, "-12.34")],
)
def test_some_texts(value, text):
    assert written(value, 2, True) == units.format_decimal(value, 2) == text
