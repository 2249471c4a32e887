"""Two contributors and a publisher, with certificates, at a hostile aggregator."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from structlog.testing import capture_logs

from fedattn.core.errors import InternalError
from fedattn.core.node_id import GATEWAY
from fedattn.model.loading import LoadedModel
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import ParticipantStub
from fedattn.wire.v1 import participant_pb2, session_pb2
from services.aggregator.settings import AggregatorSettings
from services.participant.node import ParticipantNode
from tests.harness.channels import way_to
from tests.harness.hostile import HostileAggregator, Tricks, hostile_aggregator
from tests.harness.identities import certificates_of
from tests.harness.networks import query
from tests.harness.runners import make_node, running_participant
from tests.harness.tiny import words

PUBLISHER = "publisher"
SETTINGS = AggregatorSettings(
    listen="127.0.0.1:0", grace_s=0, progress_timeout_s=2, stall_timeout_s=0.2
)
Report = session_pb2.SessionReport


@dataclass(slots=True)
class Victims:
    """Nodes that do their part honestly."""

    hostile: HostileAggregator
    publisher: ParticipantStub
    nodes: list[ParticipantNode]
    logs: list[dict[str, object]] = field(default_factory=list)

    async def answer(self, tricks: Tricks, **changes: object) -> participant_pb2.QueryResult:
        """The result of a query while the aggregator plays its tricks.

        Raises:
            FedAttnError: the query failed.
        """
        self.hostile.tricks = tricks
        changes = {"no_reuse": True, "plan": "1,2,3", **changes}
        try:
            with capture_logs() as logs:
                events = [event async for event in self.publisher.Query(query(**changes))]
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, InternalError("unreachable")) from None
        finally:
            self.logs = list(map(dict, logs))
        return events[-1].result

    async def ask(self, tricks: Tricks, **changes: object) -> Report:
        """The report of a query; as `answer`."""
        return (await self.answer(tricks, **changes)).report

    def said(self, event: str) -> str:
        """All that nodes wrote in their logs of one kind."""
        return " ".join(str(entry) for entry in self.logs if entry["event"] == event)


@asynccontextmanager
async def running_victims(model: LoadedModel, folder: Path) -> AsyncIterator[Victims]:
    """The nodes a and b, whose texts lie in the folder, and a publisher without one."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        address, hostile = await enter(hostile_aggregator(SETTINGS))
        nodes = []
        for index, name in enumerate(("a", "b")):
            context = folder / f"{name}.txt"
            context.write_text(words(11 * index + 5, 6))
            node = make_node(name, model, context, certificates=certificates_of(name))
            await enter(running_participant(node, address))
            nodes.append(node)
        node = make_node(PUBLISHER, model, None, certificates=certificates_of(PUBLISHER))
        node.publishes = True
        await enter(running_participant(node, address))
        way = await enter(way_to(PUBLISHER, address, certificates_of(GATEWAY)))
        await way.connect()  # what aggregators then see is of queries
        yield Victims(hostile, way.stub, nodes)


def outcomes(report: Report) -> dict[str, str]:
    """How each node's part ended, by id."""
    names = session_pb2.Outcome.Name
    return {one.node_id: names(one.state).removeprefix("OUTCOME_") for one in report.members}


def reason(report: Report, node_id: str) -> str:
    """Why a node's part ended so."""
    return next(one.detail for one in report.members if one.node_id == node_id)
