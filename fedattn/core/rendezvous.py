"""Rendezvous hashing: whoever knows the same names finds the same one for a key.

Highest random weight (Thaler and Ravishankar, 1998). If a name goes, only its keys move.
"""

import hashlib
from collections.abc import Iterable


def highest(key: bytes, names: Iterable[str]) -> str:
    """The name that a key belongs to.

    Args:
        key: evenly spread over all names, whatever it is.
        names: at least one.
    """
    return max(names, key=lambda name: (_weight(key, name), name))


def _weight(key: bytes, name: str) -> bytes:
    return hashlib.sha256(len(key).to_bytes(8, "big") + key + name.encode()).digest()
