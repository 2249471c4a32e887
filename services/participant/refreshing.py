"""Bringing a store up to date without anybody waiting longer than it may."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitOverError

import structlog

from fedattn.passages.store import PassageStore

log = structlog.get_logger(__name__)


class Refresher:
    """Refreshes a store in a thread of its own; whoever needs it waits a while.

    A first look at a large folder takes minutes: what is there by then is used meanwhile.

    Args:
        store: to be kept up to date.
    """

    def __init__(self, store: PassageStore) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._next: Future[bool] | None = None
        self._lock = threading.Lock()

    def look(self, wait_s: float) -> None:
        """See all changes made before this call, or as many as can be seen in `wait_s` seconds.

        Raises:
            CannotReadError: as `PassageStore.refresh`.
        """
        with self._lock:
            if self._next is None:  # one that runs already may have passed what has changed
                self._next = self._pool.submit(self._refresh)
            looking = self._next
        try:
            looking.result(wait_s)
        except WaitOverError:
            log.info("still_indexing", passages=self._store.counts.num_passages)

    def close(self) -> None:
        """End the store; a look under way ends early."""
        self._store.close()
        self._pool.shutdown(wait=True)

    def _refresh(self) -> bool:
        with self._lock:
            self._next = None
        return self._store.refresh()
