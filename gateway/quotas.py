"""How often accounts ask, and how many bytes they move."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from cachetools import LRUCache

from fedattn.core.errors import RateLimitedError
from gateway.callers import Caller, Limits

MAX_ACCOUNTS = 10_000
"""Accounts that are remembered; who asked longest ago is forgotten first."""
MAX_HEARD = 100_000
"""Times of one account that others tell of are kept up to so many."""
_MINUTE_S = 60.0
_DAY_S = 86_400.0


class Counted(StrEnum):
    """What is counted of an account."""

    QUERY = "query"
    LISTING = "listing"
    KV_BYTES = "kv_bytes"


@dataclass(frozen=True, slots=True)
class Count:
    """What an account has had at some gateway.

    Attributes:
        account: whose, as `Caller.account`.
        what: was had.
        amount: of it.
    """

    account: str
    what: Counted
    amount: int = 1


@dataclass(slots=True)
class _Account:
    """What one account has had.

    Attributes:
        asked_at: times of queries within the last minute.
        looked_at: the same of listings.
        day: the day of UTC that `kv_bytes` is of, counted from the epoch.
        kv_bytes: moved on that day.
    """

    asked_at: deque[float] = field(default_factory=deque)
    looked_at: deque[float] = field(default_factory=deque)
    day: int = 0
    kv_bytes: int = 0


class Quotas:
    """Counts for each account, in memory: a gateway that starts anew has forgotten.

    Args:
        clock: seconds since the epoch.

    Attributes:
        tell: has other gateways `hear` what is counted here.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.tell: Callable[[Count], None] = lambda _count: None
        self._accounts: LRUCache[str, _Account] = LRUCache(MAX_ACCOUNTS)

    def count_request(self, caller: Caller) -> None:
        """Count a request, unless the caller has had enough.

        Raises:
            RateLimitedError: it asked too often, or its bytes of the day are used up.
        """
        if caller.limits is None:
            return
        account, now = self._account(caller.account), self._clock()
        _check_bytes(account, caller.limits, now)
        _count(account.asked_at, caller.limits, now)
        self.tell(Count(caller.account, Counted.QUERY))

    def count_listing(self, caller: Caller) -> None:
        """Count a look at who is joined: as often as queries, and apart from them.

        Whoever watches the network would have no queries left.

        Raises:
            RateLimitedError: it looked too often.
        """
        if caller.limits is not None:
            _count(self._account(caller.account).looked_at, caller.limits, self._clock())
            self.tell(Count(caller.account, Counted.LISTING))

    def add_bytes(self, caller: Caller, num_bytes: int) -> None:
        """Count what a query moved; it is known at its end, so the last one may go beyond."""
        self._add_bytes(caller.account, num_bytes)
        if caller.limits is not None:
            self.tell(Count(caller.account, Counted.KV_BYTES, num_bytes))

    def hear(self, count: Count) -> None:
        """Count what was had at another gateway, now."""
        account, now = self._account(count.account), self._clock()
        match count.what:
            case Counted.QUERY:
                _note(account.asked_at, now)
            case Counted.LISTING:
                _note(account.looked_at, now)
            case Counted.KV_BYTES:
                self._add_bytes(count.account, count.amount)
            case _:
                assert_never(count.what)

    def _add_bytes(self, name: str, num_bytes: int) -> None:
        account, day = self._account(name), int(self._clock() // _DAY_S)
        if account.day != day:
            account.day, account.kv_bytes = day, 0
        account.kv_bytes += num_bytes

    def _account(self, name: str) -> _Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account()
        return account


def _check_bytes(account: _Account, limits: Limits, now: float) -> None:
    most = limits.kv_bytes_per_day
    is_today = account.day == int(now // _DAY_S)
    if most is not None and is_today and account.kv_bytes >= most:
        raise RateLimitedError(
            f"{account.kv_bytes} bytes of KV moved today, {most} are allowed; go on after "
            f"midnight UTC, or ask for a larger budget",
            retry_after_s=_DAY_S - now % _DAY_S,
        )


def _count(times: deque[float], limits: Limits, now: float) -> None:
    """A moving window: at most so many requests in any minute."""
    most = limits.queries_per_minute
    _forget(times, now)
    if len(times) >= most:
        raise RateLimitedError(
            f"{most} requests a minute are allowed; ask later, or for a higher rate",
            retry_after_s=times[0] + _MINUTE_S - now,
        )
    times.append(now)


def _note(times: deque[float], now: float) -> None:
    """One more, at another gateway, which has held it to the limits."""
    _forget(times, now)
    if len(times) < MAX_HEARD:
        times.append(now)


def _forget(times: deque[float], now: float) -> None:
    while times and times[0] <= now - _MINUTE_S:
        times.popleft()
