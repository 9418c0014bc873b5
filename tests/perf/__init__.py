"""Tests of the measure, not measurements."""
