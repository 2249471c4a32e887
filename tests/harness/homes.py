"""Aggregators of which there is one, and a fake."""

from typing import Any


class OneHome:
    """Stands for `Aggregators`."""

    num_given = 1

    def __init__(self, home: Any) -> None:
        self.home = home

    def move_on(self, lost: Any) -> None:
        """There is no other."""
