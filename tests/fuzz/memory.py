"""How much memory an action takes at its peak."""

import tracemalloc
from collections.abc import Callable


def peak_bytes(action: Callable[[], object], tries: int = 1) -> int:
    """Most bytes held at once while `action` runs, beyond those held before.

    Of several tries the least: at times the interpreter's own tables grow by megabytes.
    """
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    try:
        return min(_peak(action) for _ in range(tries))
    finally:
        if not was_tracing:
            tracemalloc.stop()


def _peak(action: Callable[[], object]) -> int:
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    action()
    return tracemalloc.get_traced_memory()[1] - before
