"""Asks and clocks that several tests need."""

from typing import Any

from fedattn.core.consent import Ask


def ask(**changes: Any) -> Ask:
    """The usual ask, with some of it changed."""
    usual: dict[str, Any] = {
        "publisher": "desk-1",
        "subject": "anna@ward-1",
        "purpose": "maintenance",
        "layers": (7, 9, 11),
        "num_rows": 96,
        "num_bytes": 1000,
        "session_id": "s1",
    }
    return Ask(**usual | changes)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds
