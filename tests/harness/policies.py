"""Policies for tests that need more than the default gives."""

import tempfile
from functools import cache
from pathlib import Path

from services.participant.policy import PolicyFile


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fedattn-policy-")


def every_block() -> PolicyFile:
    """Leaves everything open, block 0 included."""
    path = Path(_folder().name) / "policy.toml"
    path.write_text("lowest_block = 0\n")
    return PolicyFile(path)
