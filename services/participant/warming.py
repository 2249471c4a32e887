"""Fetching others' rows ahead of any question, again and again."""

import asyncio

import structlog

from fedattn.core.compression import Compression
from fedattn.core.errors import FedAttnError
from fedattn.core.sampling import SamplingParams
from fedattn.core.spans import PrefixMode
from fedattn.wire.convert import compression_to_wire, prefix_mode_to_wire, sampling_to_wire
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import participant_pb2 as pb
from services.participant.control import Membership
from services.participant.node import ParticipantNode
from services.participant.publication import Publication
from services.participant.query import check_query

log = structlog.get_logger(__name__)

_DEADLINE_S = 120.0


async def keep_warm(
    node: ParticipantNode,
    stub: AggregatorStub,
    aggregator_address: str,
    joined: Membership,
    every_s: float,
) -> None:
    """Hold the rows that a query with default settings needs; unchanged ones move no bytes.

    Args:
        node: a publisher.
        stub: of its aggregator.
        aggregator_address: for messages.
        joined: whether it can open sessions.
        every_s: seconds between two looks.
    """
    request = pb.QueryRequest(
        plan="auto",
        sampling=sampling_to_wire(SamplingParams()),
        compression=compression_to_wire(Compression()),
        prefix=prefix_mode_to_wire(PrefixMode.PUBLIC),
        min_participants=2,
        deadline_s=_DEADLINE_S,
    )
    num_layers = node.prefiller.shape.num_layers
    query = check_query(request, num_layers, node.profile, asks=False)
    while True:
        await joined.wait_joined()
        try:
            report = await Publication(node, stub, query, aggregator_address).warm()
            log.debug("warm", members=len(report.members))
        except FedAttnError as error:
            log.info("not_warm", code=error.code)
        await asyncio.sleep(every_s)
