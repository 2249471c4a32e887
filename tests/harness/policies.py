"""Policies for tests that need more than the default gives."""

import tempfile
from functools import cache
from pathlib import Path

from services.participant.policy import PolicyFile


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fedattn-policy-")


def every_block(*, rows_may_leave: bool = True) -> PolicyFile:
    """Leaves everything open, block 0 included, but perhaps not that rows leave."""
    path = Path(_folder().name) / f"policy-{rows_may_leave}.toml"
    path.write_text(f"lowest_block = 0\nrows_may_leave = {str(rows_may_leave).lower()}\n")
    return PolicyFile(path)
