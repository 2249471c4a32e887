"""Which kept frames count."""

from collections import OrderedDict


class CleanKeys:
    """Cache keys of sessions in which nobody missed anything; the newest so many.

    A contributor does not know whether those before it computed on all they should have, so the
    frames it kept count only if its aggregator knows.
    """

    def __init__(self, limit: int = 1 << 14) -> None:
        self._keys: OrderedDict[bytes, None] = OrderedDict()
        self._limit = limit

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def add(self, key: bytes) -> None:
        """Remember a key; the oldest is forgotten for it."""
        if key:
            self._keys[key] = None
            self._keys.move_to_end(key)
        if len(self._keys) > self._limit:
            self._keys.popitem(last=False)
