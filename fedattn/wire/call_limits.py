"""How many calls one peer may have at a server at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedattn.core.errors import NodeBusyError
from fedattn.wire.security import caller_names

MAX_CALLS_PER_PEER = 256
"""A node has one for its membership, and two for each session it takes part in."""


class CallLimits:
    """Counts the running calls of each peer, by the name in its certificate.

    Args:
        most: calls of one peer at once.
    """

    def __init__(self, most: int = MAX_CALLS_PER_PEER) -> None:
        self._most = most
        self._calls: Counter[frozenset[str]] = Counter()

    @contextmanager
    def within(self, context: Any) -> Iterator[None]:
        """For the time of one call; in plaintext nobody can tell peers apart.

        Raises:
            NodeBusyError: the peer has too many already.
        """
        names = caller_names(context)
        if names is None:
            yield
            return
        if self._calls[names] >= self._most:
            raise NodeBusyError(
                f"{', '.join(sorted(names))} has {self._most} calls here, which is the limit for "
                f"one peer; try again when one of them has ended"
            )
        self._calls[names] += 1
        try:
            yield
        finally:
            self._calls[names] -= 1
            if not self._calls[names]:
                del self._calls[names]
