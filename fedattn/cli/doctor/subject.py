"""Who is examined: the settings a participant would use here, and the gateway it is behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedattn.client import Client

if TYPE_CHECKING:
    from services.participant.settings import ParticipantSettings

UNNAMED = "unnamed"
"""Stands for a node id where none is set: a machine that is no node yet can be examined too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What every check is given.

    Attributes:
        settings: as the service would read them; those it would refuse are at their defaults.
        refused: what the service would refuse to start with, for people; empty if nothing.
        source: where the settings come from, for people.
        environment: of the service.
        gateway: client of the gateway the node is behind; None if none was named.
    """

    settings: "ParticipantSettings"
    refused: str
    source: str
    environment: Mapping[str, str]
    gateway: Client | None = None

    @property
    def node_id(self) -> str | None:
        """None if it has none yet."""
        return None if self.settings.node_id == UNNAMED else self.settings.node_id

    @property
    def is_described(self) -> bool:
        """Whether anything says how a node here would reach its aggregator."""
        given = self.settings.model_fields_set & {"aggregator", "certificates", "plaintext"}
        return self.node_id is not None or bool(given)
