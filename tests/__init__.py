"""Tests mirror the source: the laws of x/y.py are in tests/x/test_y.py. Run them with scripts/test."""
