"""What a check found."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from fedattn.cli.doctor.subject import Subject


class State(StrEnum):
    """How it is; the exit code is 0 unless something is a problem."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        check: which check says so.
        state: how it is.
        found: what was found, for people.
        remedy: what to do; empty if nothing is to be done.
    """

    check: str
    state: State
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Found:
    """What a check yields: a finding that does not yet say of which check it is."""

    state: State
    found: str
    remedy: str = ""


def ok(found: str) -> Found:
    """All is well."""
    return Found(State.OK, found)


def warning(found: str, remedy: str) -> Found:
    """The node works, but not as well or as safely as it could."""
    return Found(State.WARNING, found, remedy)


def problem(found: str, remedy: str) -> Found:
    """The node does not work like that."""
    return Found(State.PROBLEM, found, remedy)


def skipped(found: str, remedy: str = "") -> Found:
    """Could not be looked at, or is none of this node's business."""
    return Found(State.SKIPPED, found, remedy)


Check = Callable[[Subject], Iterator[Found]]
"""Looks at one matter; yields what it finds, and may raise what a service would raise."""
