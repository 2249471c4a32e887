"""Logs that services write as JSON: followed by programs, and shown to people."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JSON_LOG = "--log-format=json"
_AROUND = ("event", "level", "timestamp", "service")


@dataclass(slots=True)
class LogTail:
    """The events of a log that grows."""

    path: Path
    _offset: int = 0

    def new_events(self) -> Iterator[dict[str, Any]]:
        """Those of whole lines that came since the last call; libraries write no events."""
        with self.path.open("rb") as log:
            log.seek(self._offset)
            whole, newline, _ = log.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            if (event := _event(line)) is not None:
                yield event


def readable(line: str) -> str:
    """A line of such a log for people; any other line as it is."""
    event = _event(line)
    if event is None:
        return line
    values = (f"{key}={value}" for key, value in event.items() if key not in _AROUND)
    return " ".join([str(event.get("level", "")), str(event.get("event", "")), *values])


def _event(line: str | bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    return None
