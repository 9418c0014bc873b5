"""A reader that knows no names gets every figure; buckets are lengths in bits."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from shm import region, stats


def read_elsewhere(of):
    return stats.read(stats.attach(os.dup(of.region.fd)))


def test_figures_are_read_by_name_from_the_region_alone():
    ours = stats.Stats(counters=["lines", "bytes"], histograms=["parse_ns", "delay_ns"], epoch=3)
    ours.add("lines")
    ours.add(1, 1_000)
    ours.add("bytes", -1)
    ours.set("lines", 9)
    ours.observe("delay_ns", 5)
    ours.observe(1, 1_000)
    told = read_elsewhere(ours)
    assert told["counters"] == {"lines": 9, "bytes": 999}
    assert [told["histograms"]["delay_ns"][key] for key in ("count", "total")] == [2, 1_005]
    assert told["histograms"]["parse_ns"] == {"count": 0, "total": 0, "buckets": [0] * stats.BUCKETS}
    assert stats.attach(os.dup(ours.region.fd)).epoch == 3


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_a_value_falls_in_the_bucket_of_its_length_in_bits(values):
    histograms = np.zeros(2 * stats.HISTOGRAM_WORDS, np.int64)
    expected = [0] * stats.BUCKETS
    for value in values:
        stats.observe(histograms, 1, value)
        expected[max(value, 0).bit_length()] += 1
    assert histograms[stats.HISTOGRAM_WORDS :][: stats.BUCKETS].tolist() == expected
    assert not histograms[: stats.HISTOGRAM_WORDS].any()


@njit
def count_in_a_kernel(counters, histograms):
    for _ in range(1_000):
        stats.add(counters, 0, 2)
        stats.observe(histograms, 0, 3)


def test_kernels_count_in_the_same_words():
    ours = stats.Stats(["calls"], ["ns"])
    count_in_a_kernel(ours.counters, ours.histograms)
    told = read_elsewhere(ours)
    assert told["counters"] == {"calls": 2_000}
    assert (told["histograms"]["ns"]["total"], told["histograms"]["ns"]["buckets"][2]) == (3_000, 1_000)


def test_a_process_without_figures_still_has_a_bell():
    ours = stats.Stats()
    assert read_elsewhere(ours) == {"counters": {}, "histograms": {}}
    assert len(ours.bell) == 1


def test_others_cannot_write_the_figures():
    ours = stats.Stats(["calls"])
    with pytest.raises(region.Refused, match="sealed"):
        region.attach(ours.region.fd, stats.STATS, writable=True)


@pytest.mark.parametrize("names", [["n" * 49], ["twice", "twice"], ["nul\0"]])
def test_a_name_that_cannot_be_read_back_is_an_error(names):
    with pytest.raises(ValueError):
        stats.Stats(counters=names)
