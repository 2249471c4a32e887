"""Aggregators that are given, and are fakes."""

from typing import Any


class Homes:
    """Stands for `Aggregators`: one of several is home."""

    def __init__(self, *given: Any) -> None:
        self.num_given = len(given)
        self._given = list(given)

    @property
    def home(self) -> Any:
        return self._given[0]

    def move_on(self, lost: Any) -> None:
        """The next one is home."""
        if lost is self.home:
            self._given.append(self._given.pop(0))


class OneHome(Homes):
    """There is no other."""

    def __init__(self, home: Any) -> None:
        super().__init__(home)
