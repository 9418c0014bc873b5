"""The lowest steps of reading a text, each against a slower way to say the same."""

import json
import re
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.follow import scan
from engine.follow.scan import FAR
from shm import units
from shm.constants import PLACES

TAILS = ("", '"', '",', '","sz":"0.5","oid":1')
decimals = st.from_regex(r"-?[0-9]{0,12}\.?[0-9]{0,10}", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("ab}]{[,:0", max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("ab}]", max_size=9), inner, max_size=4)
    ),
    max_leaves=30,
)


def bytes_of(text):
    """An array of exactly these bytes."""
    raw = np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8)
    raw.flags.writeable = False
    return raw


@given(decimals, st.sampled_from(TAILS))
@example("81308.0", TAILS[3])
@example("0.00000001", TAILS[3])
@example("1000000.5", TAILS[2])
@example("123456.7", TAILS[1])
@example("1234567.", TAILS[3])
@example(".1234567", TAILS[3])
@example("12345678", TAILS[3])
def test_a_price_is_read_as_units_does(text, tail):
    value, after = scan.decimal(bytes_of(text + tail), 0)
    try:
        expected = units.parse_decimal(text.encode(), PLACES)
    except units.NotADecimal:
        expected = None
    if expected is None or text.startswith("-") or not tail:
        assert after == FAR
    else:
        assert (value, after) == (expected, len(text) + 1)


@given(st.binary(min_size=8, max_size=8))
@example(b"12345678")
@example(b"1234567:")
@example(b"/2345678")
def test_eight_digits_are_told_and_read(raw):
    word = int.from_bytes(raw, "little", signed=True)
    digits = re.fullmatch(rb"[0-9]{8}", raw) is not None
    assert bool(scan.are_digits(word)) == digits
    if digits:
        assert scan.eight_digits(word) == int(raw)


@given(st.from_regex(r"[0-9]{0,20}", fullmatch=True), st.sampled_from(["", "}", ",", "x"]))
def test_whole_numbers_have_at_most_18_digits_and_no_leading_zero(text, tail):
    value, after = scan.whole(bytes_of(text + tail), 0)
    if not text or len(text) > 18 or (text[0] == "0" and len(text) > 1):
        assert after == FAR
    else:
        assert (value, after) == (int(text), len(text))


@pytest.mark.parametrize("place", range(8))
def test_hex_is_lower_case_and_nothing_else(place):
    out = np.zeros(4, np.uint8)
    for byte in range(256):
        raw = bytearray(b"0189abef")
        raw[place] = byte
        after = scan.hexadecimal(bytes_of(bytes(raw)), 0, out, 4)
        if byte in b"0123456789abcdef":
            assert (after, bytes(out)) == (8, bytes.fromhex(raw.decode()))
        else:
            assert after == FAR
    assert scan.hexadecimal(bytes_of(b"0189abe"), 0, out, 4) == FAR


@given(st.binary(max_size=40))
@example(b'12345678"')
@example(b'1234567"')
@example(b'1234567\\"')
@example(b'a\x7fbcdefgh"')
@example(b'abcdefgh\x1f"')
@example(b'abcdefgh\x80"')
def test_a_string_ends_at_its_quote_if_it_is_plain(raw):
    plain = re.match(rb'[ !#-\[\]-~]*"', raw)
    assert scan.quote(bytes_of(raw), 0) == (plain.end() - 1 if plain else FAR)


@given(json_values, st.sampled_from(["", ",", "}", "] "]))
def test_a_whole_value_is_skipped(value, tail):
    text = json.dumps(value, separators=(",", ":"))
    after = scan.value_end(bytes_of(text + tail), 0)
    assert after == (len(text) if tail else FAR)


@given(json_values, st.data())
def test_a_value_that_is_not_json_is_never_skipped(value, data):
    """What is skipped of a damaged text is a value by itself."""
    text = json.dumps(value, separators=(",", ":"))
    at = data.draw(st.integers(0, len(text) - 1))
    text = (
        text[:at]
        + data.draw(st.sampled_from(["", '"', ",", ":", "[", "]", "{", "}", "0", "-", "."]))
        + text[at + 1 :]
    )
    after = scan.value_end(bytes_of(text + ","), 0)
    if after != FAR:
        json.loads(text[:after])


def test_values_nest_to_a_bound():
    for depth, skipped in ((scan.DEPTH_MAX, True), (scan.DEPTH_MAX + 1, False), (10_000, False)):
        text = "[" * depth + "1" + "]" * depth
        assert (scan.value_end(bytes_of(text + ","), 0) == len(text)) == skipped


@given(st.datetimes(datetime(1970, 1, 1), datetime(2261, 12, 31)), st.integers(0, 9))
def test_a_time_is_read_to_the_nanosecond(moment, places):
    fraction = f".{moment.microsecond:06d}789"[: places + 1] if places else ""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") + fraction
    ns = int(moment.replace(microsecond=0, tzinfo=UTC).timestamp()) * 10**9 + int(fraction[1:].ljust(9, "0"))
    assert scan.moment(bytes_of(text + '",'), 0) == (ns, len(text) + 1)


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T00:00:00", "2100-02-29T00:00:00", "2026-13-01T00:00:00", "2026-00-01T00:00:00",
        "2026-04-31T00:00:00", "2026-01-00T00:00:00", "2026-01-01T24:00:00", "2026-01-01T00:60:00",
        "2026-01-01T00:00:60", "1969-12-31T23:59:59", "2262-01-01T00:00:00", "2026-01-01 00:00:00",
        "2026-01-01T00:00:00.", "2026-01-01T00:00:00.1234567891", "2026-01-01T00:00:00Z",
        "2026-1-01T00:00:000", "2O26-01-01T00:00:00", "", "2026-01-01T00:00",
    ],
)  # fmt: skip
def test_what_is_no_time_is_declined(text):
    assert scan.moment(bytes_of(text + '",'), 0)[1] == FAR


def test_leap_days_are_days():
    for text in ("2024-02-29T00:00:00", "2000-02-29T00:00:00"):
        ns = int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9
        assert scan.moment(bytes_of(text + '"'), 0) == (ns, len(text) + 1)


@given(st.binary(max_size=30), st.integers(0, 30))
def test_the_next_newline_or_the_end(raw, at):
    found = raw.find(b"\n", at)
    assert scan.newline(bytes_of(raw), at) == max(at, len(raw) if found < 0 else found)
