"""How long queries hold their places, as measured."""

from cachetools import LRUCache

_MAX_PUBLISHERS = 1000
_WEIGHT = 0.2
"""Of the latest query in the mean."""


class Durations:
    """Exponentially weighted means of recent queries, by publisher and of all, seconds."""

    def __init__(self) -> None:
        self._means: LRUCache[str, float] = LRUCache(_MAX_PUBLISHERS)
        self._of_all: float | None = None

    def add(self, publisher: str, seconds: float) -> None:
        """A query was answered in this time, waiting not counted."""
        self._means[publisher] = _mean(self._means.get(publisher), seconds)
        self._of_all = _mean(self._of_all, seconds)

    def of(self, publisher: str) -> float | None:
        """Of one publisher; of all, if it has answered none; None if nobody has."""
        return self._means.get(publisher, self._of_all)


def _mean(before: float | None, latest: float) -> float:
    return latest if before is None else before + _WEIGHT * (latest - before)
