"""Machines to examine."""

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from fedattn.cli.doctor.finding import Found, State
from fedattn.cli.doctor.subject import UNNAMED, Subject
from fedattn.core.address import HostPort
from fedattn.core.errors import GatewayUnavailableError
from fedattn.core.proxies import Endpoint
from fedattn.core.report import NodeState
from services.participant.settings import ParticipantSettings


def subject(
    *flags: str, environment: Mapping[str, str] | None = None, gateway: Any = None
) -> Subject:
    """A machine whose service has these flags."""
    named = (
        flags if any("--node-id" in flag for flag in flags) else (f"--node-id={UNNAMED}", *flags)
    )
    return Subject(
        settings=ParticipantSettings.load(list(named)),
        refused="",
        source="a test",
        environment=environment or {},
        gateway=gateway,
    )


class FakeGateway:
    """Answers with a date and nodes of other fingerprints; or not at all."""

    def __init__(self, date: str = "", nodes: Iterable[tuple[str, str]] | None = ()) -> None:
        self._date, self._nodes = date, nodes
        self.endpoint = Endpoint(HostPort("10.0.0.5", 8000))

    def date(self) -> str:
        return self._date

    def participants(self) -> list[Any]:
        if self._nodes is None:
            raise GatewayUnavailableError("it cannot be reached; start it")
        return [
            SimpleNamespace(
                node_id=node_id,
                model_fingerprint=fingerprint,
                model_name="other",
                warnings=[],
                joined_for_s=3.0,
                state=NodeState.GOOD,
            )
            for node_id, fingerprint in self._nodes
        ]


def states(found: Iterable[Found]) -> list[State]:
    """How each is."""
    return [one.state for one in found]


def not_ok(found: Iterable[Found]) -> list[Found]:
    """What somebody should look at."""
    return [one for one in found if one.state in {State.WARNING, State.PROBLEM}]
