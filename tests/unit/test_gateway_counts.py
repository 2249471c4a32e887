"""What gateways tell each other of what callers have had."""

import pytest

from fedattn.cluster.shared_key import SharedKey
from fedattn.core.errors import RateLimitedError
from gateway.callers import Caller, Limits
from gateway.cluster.counts import Counts
from gateway.quotas import Count, Counted, Quotas

KEY = SharedKey(bytes(32))
ANNA = Caller(
    subject="anna",
    account="key 1",
    limits=Limits(queries_per_minute=3, kv_bytes_per_day=100),
)


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def told_by(counts: Counts) -> list[Count]:
    heard: list[Count] = []
    counts.hear = heard.append
    return heard


def test_what_was_had_elsewhere_counts_here(clock: Clock) -> None:
    told: list[Count] = []
    one, other = Quotas(clock), Quotas(clock)
    one.tell = told.append
    for _ in range(2):
        one.count_request(ANNA)
        one.count_listing(ANNA)
    for count in told:
        other.hear(count)
    other.count_request(ANNA)
    other.count_listing(ANNA)
    with pytest.raises(RateLimitedError, match="3 requests a minute"):
        other.count_request(ANNA)
    with pytest.raises(RateLimitedError):
        other.count_listing(ANNA)
    clock.now_s += 61
    other.count_request(ANNA)


def test_bytes_that_moved_elsewhere_count_here(clock: Clock) -> None:
    told: list[Count] = []
    one, other = Quotas(clock), Quotas(clock)
    one.tell = told.append
    one.add_bytes(ANNA, 100)
    other.hear(*told)
    with pytest.raises(RateLimitedError, match="100 bytes of KV moved today"):
        other.count_request(ANNA)


def test_a_count_is_taken_once_and_not_late_and_not_by_who_told_it(clock: Clock) -> None:
    one, other = Counts("one", KEY, clock), Counts("other", KEY, clock)
    own, heard = told_by(one), told_by(other)
    count = Count("key 1", Counted.KV_BYTES, 7)
    first, second = one.write("counts", count), one.write("counts", count)
    for content in (first, first, second, first):
        other.take("counts", content)
        one.take("counts", content)
    assert (heard, own) == ([count, count], [])
    late = one.write("counts", count)
    clock.now_s += 61
    other.take("counts", late)
    assert len(heard) == 2


def test_counts_of_who_lacks_the_key_are_dropped(clock: Clock) -> None:
    one, other = Counts("one", SharedKey(bytes([1] * 32)), clock), Counts("other", KEY, clock)
    heard = told_by(other)
    other.take("counts", one.write("counts", Count("key 1", Counted.QUERY)))
    other.take("counts", b"")
    other.take("counts", KEY.seal("counts", b"[]"))
    other.take("counts", KEY.seal("counts", b'["one", 1, 1000.0, "key 1", "nonsense", 1]'))
    assert heard == []
