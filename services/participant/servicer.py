"""gRPC transport of a participant that publishes: gateways call it."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fedattn.wire.aggregators import Aggregators
from fedattn.wire.protocol import BEAT_S
from fedattn.wire.streams import with_beats
from fedattn.wire.v1 import participant_pb2 as pb
from fedattn.wire.v1 import participant_pb2_grpc
from services.participant import query as queries
from services.participant.node import ParticipantNode
from services.participant.publication import Publication
from services.participant.warming import warm


class ParticipantServicer(participant_pb2_grpc.ParticipantServiceServicer):
    """The two calls of a participant."""

    def __init__(self, node: ParticipantNode, aggregators: Aggregators) -> None:
        self._node = node
        self._aggregators = aggregators

    async def Query(self, request: pb.QueryRequest, context: Any) -> AsyncIterator[pb.QueryEvent]:
        """Publish a query and stream what happens."""
        publication = Publication(self._node, self._aggregators, self._read(request, asks=True))
        alive = pb.QueryEvent(alive=pb.Alive())
        async with aclosing(with_beats(publication.run(), BEAT_S, alive)) as events:
            async for event in events:
                yield event

    async def Warm(self, request: pb.QueryRequest, context: Any) -> pb.WarmResponse:
        """Fetch the contributors' rows ahead of any question."""
        report = await warm(self._node, self._aggregators, self._read(request, asks=False))
        return pb.WarmResponse(report=report)

    def _read(self, request: pb.QueryRequest, *, asks: bool) -> queries.Query:
        num_layers = self._node.prefiller.shape.num_layers
        return queries.query_from_wire(request, num_layers, self._node.profile, asks=asks)
