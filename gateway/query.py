"""From bodies of requests to the wire. Making a body has checked it."""

from fedattn.core.sampling import SamplingParams
from fedattn.rest.query import QueryBody, SessionBody
from fedattn.wire.convert import sampling_to_wire
from fedattn.wire.session_options import options_to_wire
from fedattn.wire.v1 import participant_pb2


def query_to_wire(body: QueryBody) -> participant_pb2.QueryRequest:
    """A query as the publisher gets it."""
    request = session_to_wire(body)
    request.question = body.question
    request.sampling.CopyFrom(sampling_to_wire(body.sampling))
    return request


def session_to_wire(body: SessionBody) -> participant_pb2.QueryRequest:
    """All of it but the question and how to choose tokens."""
    return participant_pb2.QueryRequest(
        plan=body.plan,
        publisher_plan=body.publisher_plan or "",
        sampling=sampling_to_wire(SamplingParams()),
        options=options_to_wire(body.options),
    )
