"""gRPC transport of a participant that publishes: its own gateway calls it."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from fedattn.core.errors import AggregatorUnavailableError
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2, participant_pb2_grpc
from fedattn.wire.v1 import participant_pb2 as pb
from services.participant.node import ParticipantNode
from services.participant.publication import Publication
from services.participant.query import check_query

_LIST_TIMEOUT_S = 10.0


class ParticipantServicer(participant_pb2_grpc.ParticipantServiceServicer):
    """The three calls of a participant."""

    def __init__(
        self,
        node: ParticipantNode,
        stub: AggregatorStub,
        aggregator_address: str,
    ) -> None:
        self._node = node
        self._stub = stub
        self._aggregator_address = aggregator_address

    async def Query(self, request: pb.QueryRequest, context: Any) -> AsyncIterator[pb.QueryEvent]:
        """Publish a query and stream what happens."""
        query = check_query(request, self._node.prefiller.shape.num_layers, self._node.profile)
        publication = Publication(self._node, self._stub, query, self._aggregator_address)
        async with aclosing(publication.run()) as events:
            async for event in events:
                yield event

    async def Warm(self, request: pb.QueryRequest, context: Any) -> pb.WarmResponse:
        """Fetch the contributors' rows ahead of any question."""
        num_layers = self._node.prefiller.shape.num_layers
        query = check_query(request, num_layers, self._node.profile, asks=False)
        publication = Publication(self._node, self._stub, query, self._aggregator_address)
        return pb.WarmResponse(report=await publication.warm())

    async def ListParticipants(
        self, request: pb.ListParticipantsRequest, context: Any
    ) -> pb.ListParticipantsResponse:
        """This node, and all nodes joined at its aggregator; a gateway that looks will ask."""
        self._node.prepare_decoder()
        try:
            answer = await self._stub.ListNodes(
                aggregator_pb2.ListNodesRequest(), timeout=_LIST_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            unreachable = AggregatorUnavailableError(
                f"{self._node.node_id} cannot reach its aggregator at {self._aggregator_address}"
            )
            raise error_from_rpc(error, unreachable) from None
        return pb.ListParticipantsResponse(node_id=self._node.node_id, nodes=answer.nodes)
