"""Names of nodes, from the paths of their texts."""

import re
import unicodedata
from collections.abc import Collection
from itertools import count
from pathlib import Path

from fedattn.core.errors import InvalidRequestError
from fedattn.core.node_id import is_service

_MAX_LENGTH = 60
"""Of a name that is made here; leaves room for a number."""


def check_own_name(name: str) -> str:
    """A name that a node may have beside an aggregator and a gateway.

    Raises:
        InvalidRequestError: it is no id, or that of another part.
    """
    from fedattn.authority.issuing import check_name  # needs an extra that other commands do not

    if is_service(name):
        raise InvalidRequestError(f"node id {name!r} is that of another part; choose another")
    return check_name(name)


def name_after(path: Path, taken: Collection[str]) -> str:
    """A node's name: that of its file without suffix, or of its folder, made an id in lower case.

    Where that is taken, the next free number from 2 on is added.

    Args:
        path: of the text.
        taken: names of others, in lower case.
    """
    whole = path.resolve()
    name = whole.name if whole.is_dir() else whole.stem
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9._-]+", "-", letters)[:_MAX_LENGTH].strip("-._") or "node"
    numbered = (base if number == 1 else f"{base}-{number}" for number in count(1))
    return next(name for name in numbered if name not in taken and _is_allowed(name))


def _is_allowed(name: str) -> bool:
    try:
        return bool(check_own_name(name))
    except InvalidRequestError:
        return False
