"""Settings of the gateway."""

import os
from dataclasses import dataclass
from typing import Self

from pydantic import Field, field_validator, model_validator

from fedattn.core.address import HostPort
from fedattn.core.errors import (
    ConfigurationError,
    InvalidRequestError,
    PublisherUnavailableError,
)
from fedattn.core.node_id import check_node_id
from fedattn.core.proxies import AUTO, Endpoint, find_endpoint
from fedattn.core.share import Share
from fedattn.runtime.settings import (
    PROXY_MEANING,
    ListenAddress,
    ProxyChoice,
    ServiceSettings,
    service_config,
)

_SHAPE = "expected publisher=HOST:PORT,node-b=HOST:PORT"


@dataclass(frozen=True, slots=True)
class PublisherAddress:
    """Where a participant listens for its gateway."""

    node_id: str
    endpoint: Endpoint

    def __str__(self) -> str:
        return f"{self.node_id} at {self.endpoint}"

    def unreachable(self) -> PublisherUnavailableError:
        """What to raise if nobody answers there."""
        return PublisherUnavailableError(
            f"publisher {self} cannot be reached; start its participant, or correct "
            f"FEDATTN_GATEWAY_PARTICIPANTS"
        )


class GatewaySettings(ServiceSettings):
    """Environment variables FEDATTN_GATEWAY_*, overridden by flags."""

    model_config = service_config("FEDATTN_GATEWAY_", "python -m gateway")

    listen: ListenAddress = Field(
        HostPort("127.0.0.1", 8000), description="HOST:PORT to serve on; port 0 for any."
    )
    participants: str = Field(
        description="Participants that publish: publisher=HOST:PORT,node-b=HOST:PORT. "
        "A query that names none goes to the first."
    )
    proxy: ProxyChoice = Field(AUTO, description=PROXY_MEANING)
    share: Share = Field(
        Share.QUESTION,
        description="What contributors may know of questions that do not say: nothing, or question "
        "(sealed to each of them).",
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

    @field_validator("share")
    @classmethod
    def _check_share(cls, value: Share) -> Share:
        if value is Share.TOPIC:  # a topic is of one question
            raise ValueError("expected nothing or question; a topic goes with each query")
        return value

    @model_validator(mode="after")
    def _check_proxy(self) -> Self:
        assert self.publishers
        return self

    @property
    def publishers(self) -> tuple[PublisherAddress, ...]:
        """The configured publishers, in order, and how to reach them.

        Raises:
            ConfigurationError: the environment names a proxy on the way that is of no use.
        """
        return tuple(
            PublisherAddress(node_id, find_endpoint(address, os.environ, self.proxy))
            for node_id, address in parse_participants(self.participants)
        )


def parse_participants(text: str) -> tuple[tuple[str, HostPort], ...]:
    """Read "publisher=127.0.0.1:50061,node-b=[::1]:50062".

    Raises:
        ValueError: names the malformed entry.
    """
    publishers = tuple(_parse_entry(entry) for entry in text.split(","))
    names = [name for name, _ in publishers]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is named twice; {_SHAPE}")
    return publishers


def _parse_entry(entry: str) -> tuple[str, HostPort]:
    name, equals, address = entry.strip().partition("=")
    if not equals:
        raise ValueError(f"entry {entry.strip()!r} is not name=HOST:PORT; {_SHAPE}")
    try:
        return check_node_id(name), HostPort.parse(address)
    except (InvalidRequestError, ConfigurationError) as error:
        raise ValueError(f"entry {entry.strip()!r}: {error}") from error
