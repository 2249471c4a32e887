"""Hours and days at which a node takes part, in the node's local time."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Self

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""In the order of `datetime.weekday`."""

_WINDOW = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)", re.ASCII)
_DAY_MIN = 24 * 60


@dataclass(frozen=True, slots=True)
class OpeningWindow:
    """A half-open stretch of a day, in minutes after midnight; it may go on into the next day."""

    start_min: int
    stop_min: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a window such as 08:00-18:00, or 22:00-06:00 into the next morning.

        Raises:
            ValueError: it is none.
        """
        found = _WINDOW.fullmatch(text)
        if not found:
            raise ValueError(f"{text[:40]!r} is no HH:MM-HH:MM")
        hours = (int(found[1]), int(found[3]))
        minutes = (int(found[2]), int(found[4]))
        start, stop = (60 * hour + minute for hour, minute in zip(hours, minutes, strict=True))
        if max(minutes) > 59 or start >= _DAY_MIN or stop > _DAY_MIN:
            raise ValueError(f"{text!r} is no time of a day; 24:00 is its end")
        if start == stop:
            raise ValueError(f"{text!r} has no length; leave it out for the whole day")
        return cls(start, stop)

    def contains(self, weekday: int, minute: int, days: Collection[str]) -> bool:
        """Whether it is open then, if it opens on `days`.

        Example: 22:00-06:00 on fri is open on Friday at 23:00 and on Saturday at 05:00.
        """
        if self.start_min < self.stop_min:
            return self.start_min <= minute < self.stop_min and DAYS[weekday] in days
        if minute >= self.start_min:
            return DAYS[weekday] in days
        return minute < self.stop_min and DAYS[weekday - 1] in days


def is_open(moment: datetime, hours: str | None, days: Collection[str]) -> bool:
    """Whether `moment` is within the hours, None for the whole day, of the days."""
    window = OpeningWindow(0, _DAY_MIN) if hours is None else OpeningWindow.parse(hours)
    return window.contains(moment.weekday(), 60 * moment.hour + moment.minute, days)
