"""Places of the queries that run at once, shared fairly."""

from collections import Counter
from collections.abc import Callable, Iterator

from fedattn.core.errors import NodeBusyError, RateLimitedError
from gateway.callers import Caller

_Holder = tuple[str, str]


class Places:
    """How many queries run, whose they are, and where.

    One subject holds at most half of all places, rounded up. So does one publisher while there are
    several: one that hangs leaves room for the others.

    Args:
        num_places: of all.
    """

    def __init__(self, num_places: int) -> None:
        self._num_places = num_places
        self._half = (num_places + 1) // 2
        self._held: Counter[_Holder] = Counter()
        self._num_taken = 0

    @property
    def num_taken(self) -> int:
        return self._num_taken

    def take(self, caller: Caller, publisher: str, num_publishers: int) -> Callable[[], None]:
        """Take a place; what is returned gives it free, and is to be called once.

        Args:
            caller: for whom.
            publisher: where.
            num_publishers: how many there are now.

        Raises:
            NodeBusyError: none is free.
            RateLimitedError: the caller, or the publisher, has its share.
        """
        if self._num_taken >= self._num_places:
            raise NodeBusyError(
                f"the gateway runs {self._num_taken} queries, its limit; try again shortly, "
                f"or raise FEDATTN_GATEWAY_MAX_CONCURRENT_QUERIES"
            )
        most_of_publisher = self._half if num_publishers > 1 else self._num_places
        shares = dict(self._shares(caller, publisher, most_of_publisher))
        for (kind, name), most in shares.items():
            if self._held[kind, name] >= most:
                raise RateLimitedError(
                    f"{kind} {name} has {most} queries running, its share; wait for one to end"
                )
        self._held.update(shares.keys())
        self._num_taken += 1

        def give_free() -> None:
            self._held.subtract(shares.keys())
            self._held += Counter()  # forgets those at 0
            self._num_taken -= 1

        return give_free

    def _shares(
        self, caller: Caller, publisher: str, most_of_publisher: int
    ) -> Iterator[tuple[_Holder, int]]:
        """Whom a query counts for, and the most each may have."""
        if caller.limits is not None:
            yield ("account", caller.account), caller.limits.max_concurrent
        if caller.subject:
            yield ("subject", caller.subject), self._half
        yield ("publisher", publisher), most_of_publisher
