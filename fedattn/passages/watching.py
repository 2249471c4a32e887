"""Keep a store up to date while its files change."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

import structlog
from watchfiles import Change, awatch

from fedattn.passages.cannot_read import CannotReadError

LOOK_INTERVAL_S = 600.0
"""Between two looks without a notification: network disks and mounts of containers send none."""
DEBOUNCE_S = 1.0
"""Changes within so long are looked at together."""
_TICK_S = 5.0

log = structlog.get_logger(__name__)


class Refreshable(Protocol):
    """What is kept up to date: a `PassageStore`."""

    @property
    def root(self) -> Path | None: ...

    def refresh(self) -> bool: ...


async def keep_fresh(
    store: Refreshable,
    on_look: Callable[[bool], None] = lambda _changed: None,
    *,
    interval_s: float = LOOK_INTERVAL_S,
    debounce_s: float = DEBOUNCE_S,
) -> None:
    """Refresh a store at once, after each change below its root, and at least every `interval_s`.

    Refreshes run in a thread. A root that cannot be read is tried again at the next look. Runs
    until it is cancelled, or ends at once if the store has no root. A refresh that is under way
    goes on in its thread; closing the store ends it soon.

    Args:
        store: what to refresh.
        on_look: told after each look whether anything changed; a root that cannot be read: it is
            not told.
        interval_s: longest time between two looks.
        debounce_s: longest time that changes are collected before a look.
    """
    failure = ""
    while store.root is not None:
        async with aclosing(_changes(store.root, interval_s, debounce_s)) as changes:
            async for _ in changes:
                try:
                    on_look(await asyncio.to_thread(store.refresh))
                    failure = ""
                except CannotReadError as error:
                    if str(error) != failure:
                        failure = str(error)
                        log.warning("passages_unreadable", why=failure)


async def _changes(root: Path, interval_s: float, debounce_s: float) -> AsyncGenerator[None, None]:
    """Yield when a look is due; ends after an interval without a change.

    The first look is due at once, the second when the watch is open, since what changed between
    them was not seen. The watch is then opened anew, lest it be of a folder that was replaced.
    """
    yield
    is_first, due_s = True, time.monotonic() + interval_s
    try:
        async for changes in _watch(root, min(_TICK_S, interval_s), debounce_s):
            if changes or is_first:
                yield
                is_first, due_s = False, time.monotonic() + interval_s
            elif time.monotonic() >= due_s:
                return
    except OSError as error:  # no notifications here: too many watches, or no such folder
        log.info("passages_polled", why=error.strerror or str(error), every_s=interval_s)
        await asyncio.sleep(interval_s)


def _watch(
    root: Path, tick_s: float, debounce_s: float
) -> AsyncGenerator[set[tuple[Change, str]], None]:
    is_folder = root.is_dir()
    return awatch(
        root if is_folder else root.parent,
        watch_filter=None if is_folder else lambda _change, path: Path(path).name == root.name,
        debounce=max(round(debounce_s * 1000), 1),
        rust_timeout=max(round(tick_s * 1000), 1),
        yield_on_timeout=True,
        recursive=is_folder,
        ignore_permission_denied=True,
    )
