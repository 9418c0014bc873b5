"""What the kernels write, read back by Python's own JSON and calendar."""

import json
from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway import numbers
from shm.kernel import entry

OUT = np.zeros(256, np.uint8)


@entry
def put_int(out, at, value):
    return numbers.put_int(out, at, value)


@entry
def put_hex(out, at, text):
    return numbers.put_hex(out, at, text)


@entry
def put_quoted(out, at, text):
    return numbers.put_quoted(out, at, text)


@entry
def put_iso(out, at, time_ns):
    return numbers.put_iso(out, at, time_ns)


@entry
def put_decimal(out, at, value, places, point):
    return numbers.put_decimal(out, at, value, places, point)


def text(end):
    return OUT[:end].tobytes().decode()


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_integers_are_json(value):
    assert text(put_int(OUT, 0, value)) == str(value)


@given(st.binary(min_size=1, max_size=32))
def test_hex_is_lower_case_and_whole(raw):
    assert text(put_hex(OUT, 0, np.frombuffer(raw, np.uint8))) == f'"0x{raw.hex()}"'


@given(st.binary(max_size=48))
def test_any_text_is_a_json_string(raw):
    field = np.zeros(48, np.uint8)
    field[: len(raw)] = np.frombuffer(raw, np.uint8)
    told = raw.split(b"\0")[0]
    expected = "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in told)
    end = put_quoted(OUT, 0, field)
    assert json.loads(text(end)) == expected
    assert end <= 2 + 2 * 48


@given(st.integers(0, 9_223_372_035), st.integers(0, 999_999_999))
def test_times_are_those_of_the_calendar(seconds, fraction):
    end = put_iso(OUT, 0, seconds * 10**9 + fraction)
    told, _, digits = json.loads(text(end)).partition(".")
    assert told == datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    assert int((digits or "0").ljust(9, "0")) == fraction
    assert len(digits) in (0, 3, 6, 9)
    assert end <= 31


def test_times_have_the_digits_that_the_peers_write():
    for time_ns, expected in [
        (1_750_733_796_172_847_427, '"2025-06-24T02:56:36.172847427"'),
        (1_750_733_796_172_847_000, '"2025-06-24T02:56:36.172847"'),
        (1_750_733_796_172_000_000, '"2025-06-24T02:56:36.172"'),
        (1_750_733_796_000_000_000, '"2025-06-24T02:56:36"'),
        (951_782_400_000_000_000, '"2000-02-29T00:00:00"'),
    ]:
        assert text(put_iso(OUT, 0, time_ns)) == expected


def test_decimals_keep_their_point_where_asked():
    assert text(put_decimal(OUT, 0, 10621700, 2, True)) == '"106217.0"'
    assert text(put_decimal(OUT, 0, 10621700, 2, False)) == '"106217"'
    assert text(put_decimal(OUT, 0, -5, 1, True)) == '"-0.5"'
