from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.rendezvous import highest

NAMES = st.sets(st.text("abc-1", min_size=1, max_size=6), min_size=2, max_size=8)


@given(st.binary(), NAMES)
def test_the_order_of_names_does_not_matter(key: bytes, names: set[str]) -> None:
    assert highest(key, sorted(names)) == highest(key, sorted(names, reverse=True))


@given(st.binary(), NAMES)
def test_only_keys_of_a_name_that_goes_move(key: bytes, names: set[str]) -> None:
    chosen = highest(key, names)
    gone = next(name for name in sorted(names) if name != chosen)
    assert highest(key, names - {gone}) == chosen


def test_keys_are_spread() -> None:
    counts = Counter(highest(number.to_bytes(4, "big"), "abcd") for number in range(4000))
    assert all(abs(counts[name] - 1000) < 120 for name in "abcd")  # four standard deviations
