"""A small network over real sockets, and queries to it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from fedattn.core.codecs import codec_by_name
from fedattn.core.errors import FedAttnError, InternalError
from fedattn.core.node_id import AGGREGATOR, GATEWAY
from fedattn.core.profile import CompressionWish
from fedattn.core.request import SessionOptions
from fedattn.core.sampling import SamplingParams
from fedattn.model.loading import LoadedModel
from fedattn.wire.convert import sampling_to_wire, wish_to_wire
from fedattn.wire.security import Certificates
from fedattn.wire.session_options import options_to_wire
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import ParticipantStub
from fedattn.wire.v1 import participant_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.aggregator.settings import AggregatorSettings
from services.participant.node import ParticipantNode
from tests.harness.channels import way_to
from tests.harness.identities import certificates_of
from tests.harness.runners import make_node, running_aggregator, running_participant
from tests.harness.tiny import words

NUM_NEW_TOKENS = 5
LOSSLESS = CompressionWish(codec=codec_by_name("fp32"), keep_ratio=1.0)
OPTION_NAMES = set(session_pb2.SessionOptions.DESCRIPTOR.fields_by_name)


@dataclass(frozen=True, slots=True)
class Network:
    """Two contributors and a publisher, as a gateway reaches it."""

    aggregator: str
    publisher: ParticipantStub
    nodes: dict[str, ParticipantNode]
    contexts: dict[str, Path]


@asynccontextmanager
async def running_network(
    model: LoadedModel,
    folder: Path,
    settings: AggregatorSettings | None = None,
    registry: CollectorRegistry | None = None,
    *,
    is_sealed: bool = False,
    max_sessions: int = 4,
) -> AsyncIterator[Network]:
    """Two contributors and a publisher; with certificates if rows are to be sealed."""

    def own(name: str) -> Certificates | None:
        return certificates_of(name) if is_sealed else None

    def make(name: str, context: Path | None) -> ParticipantNode:
        return make_node(name, model, context, certificates=own(name), max_sessions=max_sessions)

    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(
            running_aggregator(settings, own(AGGREGATOR), registry)
        )
        nodes, contexts = {}, {}
        for index, node_id in enumerate(("node-0", "node-1")):
            contexts[node_id] = folder / f"{node_id}.txt"
            contexts[node_id].write_text(words(11 * index + 5, 6 + index))
            nodes[node_id] = make(node_id, contexts[node_id])
            await stack.enter_async_context(running_participant(nodes[node_id], address))
        nodes["publisher"] = make("publisher", None)
        nodes["publisher"].publishes = True
        await stack.enter_async_context(running_participant(nodes["publisher"], address))
        way = await stack.enter_async_context(way_to("publisher", address, own(GATEWAY)))
        yield Network(address, way.stub, nodes, contexts)


def query(**changes: object) -> pb.QueryRequest:
    request = pb.QueryRequest(
        question=words(60, 4),
        plan="all",
        sampling=sampling_to_wire(SamplingParams.most_likely(NUM_NEW_TOKENS)),
        compression=wish_to_wire(LOSSLESS),
        options=options_to_wire(SessionOptions(deadline_s=30)),
    )
    for name, value in changes.items():
        target: Any = request.options if name in OPTION_NAMES else request
        if isinstance(value, list):
            getattr(target, name).extend(value)
        elif name in {"sampling", "compression", "budget"}:
            getattr(target, name).CopyFrom(value)
        else:
            setattr(target, name, value)
    return request


async def ask(network: Network, **changes: object) -> list[pb.QueryEvent]:
    return [event async for event in network.publisher.Query(query(**changes))]


async def failure(network: Network, **changes: object) -> FedAttnError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(network, **changes)
    return error_from_rpc(caught.value, InternalError("unreachable"))
