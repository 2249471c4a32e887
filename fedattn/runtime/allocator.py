"""What glibc's allocator holds back of freed memory.

Each thread that allocates gets an arena of its own, up to eight a CPU, and pages that are freed in
one are of use to nobody else. A node computes in many threads and frees hundreds of MiB after each
session, so its memory would grow with its threads. Other C libraries are left alone.
"""

import ctypes
from functools import cache

_M_ARENA_MAX = -8
_NUM_ARENAS = 2


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
    except (OSError, TypeError):  # not on every platform
        return None


def share_arenas() -> None:
    """Let threads to come share two arenas."""
    if (library := _glibc()) is not None:
        library.mallopt(_M_ARENA_MAX, _NUM_ARENAS)


def give_back() -> None:
    """Return freed pages to the system; takes some milliseconds."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)
