"""One aggregator of a federation, as the others name and reach it."""

from dataclasses import dataclass
from typing import Self

from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.core.node_id import check_name
from fedattn.wire.v1 import aggregator_pb2 as pb

MAX_PEERS = 64
"""Aggregators of one federation."""


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
