"""Settings of the gateway."""

from dataclasses import dataclass

from pydantic import Field, field_validator

from fedattn.core.errors import InvalidRequestError, PublisherUnavailableError
from fedattn.runtime.settings import ServiceSettings, service_config
from fedattn.wire.protocol import check_node_id

_SHAPE = "expected publisher=host:port,node-b=host:port"


@dataclass(frozen=True, slots=True)
class PublisherAddress:
    """Where a participant listens for its gateway."""

    node_id: str
    address: str

    def __str__(self) -> str:
        return f"{self.node_id} at {self.address}"

    def unreachable(self) -> PublisherUnavailableError:
        """What to raise if nobody answers there."""
        return PublisherUnavailableError(
            f"publisher {self} cannot be reached; start its participant, or correct "
            f"FEDATTN_GATEWAY_PARTICIPANTS"
        )


class GatewaySettings(ServiceSettings):
    """Environment variables FEDATTN_GATEWAY_*, overridden by flags."""

    model_config = service_config("FEDATTN_GATEWAY_", "python -m gateway")

    host: str = Field("127.0.0.1", description="Address to serve on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to serve on; 0 for any.")
    participants: str = Field(
        description="Participants that publish: publisher=host:port,node-b=host:port. "
        "A query that names none goes to the first."
    )
    max_concurrent_queries: int = Field(
        32, ge=1, le=1000, description="Queries at once; more are refused with 429."
    )
    grace_s: int = Field(10, ge=0, description="Time for running queries at a stop, seconds.")

    @field_validator("participants")
    @classmethod
    def _check_participants(cls, value: str) -> str:
        parse_participants(value)
        return value

    @property
    def publishers(self) -> tuple[PublisherAddress, ...]:
        """The configured publishers, in order."""
        return parse_participants(self.participants)


def parse_participants(text: str) -> tuple[PublisherAddress, ...]:
    """Read "publisher=127.0.0.1:50061,node-b=[::1]:50062".

    Raises:
        ValueError: names the malformed entry.
    """
    publishers = tuple(_parse_entry(entry) for entry in text.split(","))
    names = [publisher.node_id for publisher in publishers]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is named twice; {_SHAPE}")
    return publishers


def _parse_entry(entry: str) -> PublisherAddress:
    name, equals, address = entry.strip().partition("=")
    host, colon, port = address.rpartition(":")
    if not (equals and host and colon):
        raise ValueError(f"entry {entry.strip()!r} is not name=host:port; {_SHAPE}")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"entry {entry.strip()!r}: the port must be 1 to 65535; {_SHAPE}")
    try:
        return PublisherAddress(check_node_id(name), address)
    except InvalidRequestError as error:
        raise ValueError(f"entry {entry.strip()!r}: {error}") from error
