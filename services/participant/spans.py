"""Spans of what a node does for one question, named as OpenTelemetry names generative AI."""

from collections.abc import Iterator
from contextlib import contextmanager

from fedattn.core.sampling import SamplingParams
from fedattn.runtime.tracing import NODE, SESSION, Span, Value, span
from fedattn.wire.v1 import participant_pb2 as pb
from services.participant.exchange import GrpcKvExchange
from services.participant.node import ParticipantNode

_FINISH_REASONS = {
    pb.FINISH_REASON_END: "stop",
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
}


@contextmanager
def query_span(node: ParticipantNode, sampling: SamplingParams) -> Iterator[Span]:
    """A query from its arrival at the publisher to its result."""
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "fedattn",
        "gen_ai.request.model": node.model_name,
        "gen_ai.request.max_tokens": sampling.max_new_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        NODE: node.node_id,
    }
    with span(f"chat {node.model_name}", attributes) as query:
        yield query


def tell_result(query: Span, result: pb.QueryResult) -> None:
    """The numbers of an answer."""
    query.set("gen_ai.usage.input_tokens", result.prompt_tokens)
    query.set("gen_ai.usage.output_tokens", result.num_tokens)
    query.set("gen_ai.response.time_to_first_chunk", result.time_to_first_token_s)
    query.set("gen_ai.response.finish_reasons", [_FINISH_REASONS[result.finish_reason]])


@contextmanager
def prefill_span(node_id: str, exchange: GrpcKvExchange) -> Iterator[None]:
    """A member's forward pass; its events are the rows that came, and how long they let it wait."""
    names: dict[str, Value] = {NODE: node_id, SESSION: exchange.terms.session_id}
    with span("prefill", names) as prefill:
        try:
            yield
        finally:
            prefill.set("fedattn.wait.duration", exchange.wait_s)
