"""From bodies of requests to the wire. Making a body has checked it."""

from fedattn.core.codecs import DEFAULT_CODEC
from fedattn.core.sampling import SamplingParams
from fedattn.rest.query import QueryBody, SessionBody
from fedattn.wire.convert import compression_to_wire, sampling_to_wire
from fedattn.wire.enums import PREFIX_MODES
from fedattn.wire.v1 import aggregator_pb2, participant_pb2


def query_to_wire(body: QueryBody) -> participant_pb2.QueryRequest:
    """A query as the publisher gets it."""
    request = session_to_wire(body)
    request.question = body.question
    request.sampling.CopyFrom(sampling_to_wire(body.sampling))
    request.no_reuse = not body.reuse
    request.timeline = body.timeline
    return request


def session_to_wire(body: SessionBody) -> participant_pb2.QueryRequest:
    """All of it but the question and what goes with one."""
    return participant_pb2.QueryRequest(
        contributors=body.contributors,
        plan=body.plan,
        publisher_plan=body.publisher_plan or "",
        sampling=sampling_to_wire(SamplingParams()),
        compression=compression_to_wire(body.compression.value),
        budget=_budget_to_wire(body),
        prefix=PREFIX_MODES.to_wire(body.prefix),
        min_participants=body.min_participants,
        deadline_s=body.deadline_s,
        independent=body.independent,
    )


def _budget_to_wire(body: SessionBody) -> aggregator_pb2.ByteBudget | None:
    budget = body.budget
    if budget is None:
        return None
    return aggregator_pb2.ByteBudget(
        kv_bytes=budget.kv_bytes or 0,
        link_bytes=budget.link_bytes or 0,
        may_choose_codec=body.compression.codec == DEFAULT_CODEC,
    )
