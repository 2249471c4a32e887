"""One aggregator of a federation, as the others name and reach it."""

import re
from dataclasses import dataclass
from typing import Self

from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.wire.v1 import aggregator_pb2 as pb

MAX_PEERS = 64
"""Aggregators of one federation."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_name(name: str) -> str:
    """Return the name of an aggregator or a federation, or raise InvalidRequestError."""
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"name {name[:80]!r}: expected 1 to 63 characters of a-z 0-9 -, with none at an end"
        )
    return name


@dataclass(frozen=True, slots=True)
class Peer:
    """An aggregator of a federation.

    Attributes:
        name: unique in the federation.
        address: HOST:PORT under which nodes and gateways reach it.
    """

    name: str
    address: str

    @classmethod
    def from_wire(cls, message: pb.AggregatorAddress) -> Self:
        """Check and convert; raises InvalidRequestError."""
        try:
            return cls(check_name(message.name), str(HostPort.parse(message.address)))
        except ConfigurationError as error:
            raise InvalidRequestError(f"aggregator {message.name}: {error}") from None

    def to_wire(self) -> pb.AggregatorAddress:
        """As a message."""
        return pb.AggregatorAddress(name=self.name, address=self.address)
