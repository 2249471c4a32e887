"""Hypothesis draws the same examples in every run, and never fails for being slow."""

from hypothesis import settings

settings.register_profile(
    "unit", deadline=None, derandomize=True, database=None, print_blob=False, max_examples=100
)
settings.load_profile("unit")
