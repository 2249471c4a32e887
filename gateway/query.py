"""From bodies of requests to the wire. Making a body has checked it."""

from dataclasses import asdict, replace

from fedattn.core.sampling import SamplingParams
from fedattn.core.share import Share
from fedattn.rest.query import QueryBody
from fedattn.rest.session import SessionBody
from fedattn.wire.convert import sampling_to_wire, wish_to_wire
from fedattn.wire.enums import SHARES
from fedattn.wire.session_options import options_to_wire
from fedattn.wire.turns import turns_to_wire
from fedattn.wire.v1 import participant_pb2
from gateway.callers import Caller


def query_to_wire(
    body: QueryBody, default_share: Share, caller: Caller
) -> participant_pb2.QueryRequest:
    """A query as the publisher gets it.

    Args:
        body: as the client sent it.
        default_share: what contributors are told if it does not say.
        caller: who sent it.

    Raises:
        NotAllowedError: the body says that somebody else asks.
    """
    request = session_to_wire(body, caller)
    if body.share is None:
        request.options.share = SHARES.to_wire(default_share)
    request.topic = body.topic
    request.question = body.question
    request.turns.extend(turns_to_wire(body.turns))
    request.min_support = body.min_support
    request.sampling.CopyFrom(sampling_to_wire(body.sampling))
    return request


def session_to_wire(body: SessionBody, caller: Caller) -> participant_pb2.QueryRequest:
    """All of it but the question and how to choose tokens; raises as `query_to_wire`."""
    options = replace(body.options, subject=caller.speak_as(body.subject))
    return participant_pb2.QueryRequest(
        plan=body.plan,
        publisher_plan=body.publisher_plan or "",
        sampling=sampling_to_wire(SamplingParams()),
        compression=wish_to_wire(body.compression.value),
        options=options_to_wire(options),
        asked_plan=body.asked_plan or "",
        query_codec=body.query_codec,
        link=None if body.link is None else participant_pb2.Link(**asdict(body.link)),
    )
