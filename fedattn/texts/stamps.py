"""Time stamps as logs and records have them."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_NAME = f"(?P<name>{'|'.join(_MONTHS)})"
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_MINUTES = r"(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)"
_SECONDS = r":(?P<second>[0-5]\d)(?:[.,](?P<fraction>\d{1,9}))?"
_ZONE = r"(?:\s?(?P<zone>Z|UTC|GMT|[+-]\d\d:?\d\d))?(?!\w)"
_TIME = rf"{_MINUTES}(?:{_SECONDS})?{_ZONE}"
_PREFIX = r"(?:<\d{1,3}>(?:\d )?)?(?:[\[(]?[A-Za-z]{1,9}[\])]?[ :,]{1,2})?[\[(\"']?"
"""Priority of syslog, level or day of the week, bracket."""
_PATTERNS = [
    re.compile(pattern)
    for pattern in (
        rf"{_PREFIX}{_YEAR}[-/](?P<month>\d\d)[-/](?P<day>\d\d)(?:(?:T|_|,? )\s?{_TIME}|(?!\w))",
        rf"{_PREFIX}(?P<day>\d{{1,2}})\.(?P<month>\d{{1,2}})\.{_YEAR}(?:,?\s+{_TIME}|(?!\w))",
        rf"{_PREFIX}{_NAME}\s{{1,2}}(?P<day>\d{{1,2}})\s+{_MINUTES}{_SECONDS}{_ZONE}(?:\s{_YEAR}\b)?",
        rf"(?:\S{{1,64}} ){{0,3}}\[?(?P<day>\d{{1,2}})/{_NAME}/{_YEAR}:{_TIME}\]?",
        r"\[?(?P<epoch>1\d{9}(?:\.\d{1,9})?|1\d{12})\]?(?=[\s,;:|]|$)",
        rf"{_PREFIX}\d{{1,2}}/\d{{1,2}}/\d{{2,4}},?\s+{_TIME}",  # day or month first, who knows
        rf"{_PREFIX}{_MINUTES}{_SECONDS}{_ZONE}",
        r"\[\s{0,8}\d{1,9}\.\d{6}\]",  # seconds since the start of a kernel
    )
]
_LIKELY = re.compile(r"[^\s].{0,160}?\d")
_MILLISECONDS = 10**12
_A_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Stamp:
    """A time stamp at the begin of a line; its time if that is certain, in seconds since 1970."""

    text: str
    time_s: float | None


def find_stamp(line: str, now_s: float) -> Stamp | None:
    """The time stamp that a line begins with, if it does.

    A stamp without a zone is meant in this machine's.

    Args:
        line: not indented.
        now_s: the last time it can be, which decides the year where it says none.
    """
    if not _LIKELY.match(line):
        return None
    for pattern in _PATTERNS:
        found = pattern.match(line)
        if found:
            try:
                return Stamp(found[0], _time(found.groupdict(), now_s))
            except (ValueError, OverflowError, OSError):  # a 31st of February, a year too far
                if found.groupdict().get("year"):
                    continue
                return Stamp(found[0], None)
    return None


def time_of(value: str, now_s: float) -> float | None:
    """Of a value that is nothing but a time stamp with its date."""
    stamp = find_stamp(value, now_s)
    return stamp.time_s if stamp and len(stamp.text) == len(value) else None


def _time(parts: dict[str, str | None], now_s: float) -> float | None:
    epoch = parts.get("epoch")
    if epoch:
        return float(epoch) / (1000 if float(epoch) >= _MILLISECONDS else 1)
    month = parts.get("month") or _MONTHS.get(parts.get("name") or "")
    day = parts.get("day")
    if not month or not day:
        return None
    year = parts.get("year")
    first_try = int(year or datetime.fromtimestamp(now_s + _A_DAY_S).astimezone().year)
    moment = _moment(first_try, int(month), int(day), parts)
    if not year and moment > now_s + _A_DAY_S:
        moment = _moment(first_try - 1, int(month), int(day), parts)
    return moment


def _moment(year: int, month: int, day: int, parts: dict[str, str | None]) -> float:
    moment = datetime(
        year,
        month,
        day,
        int(parts.get("hour") or 0),
        int(parts.get("minute") or 0),
        int(parts.get("second") or 0),
        int((parts.get("fraction") or "0").ljust(6, "0")[:6]),
        _zone(parts.get("zone")),
    )
    return moment.timestamp()


def _zone(text: str | None) -> timezone | None:
    if not text:
        return None
    if text[0] not in "+-":
        return UTC
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)
