"""Which passages an answer was drawn from, as its publisher can tell."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedattn.core.agreement import PassageSpan
from fedattn.core.spans import Member, SessionLayout, Span
from fedattn.model.attribution import attribute_answer
from fedattn.model.exchange import AskingExchange
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult
from fedattn.model.support import copying_attention
from fedattn.wire.v1 import participant_pb2 as pb

MAX_SOURCES = 16
"""Passages that a result names, those with the most attention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPassage:
    """A passage where the session has it.

    Attributes:
        node_id: whose.
        number: its number there.
        span: its global positions.
    """

    node_id: str
    number: int
    span: Span


def place_passages(
    layout: SessionLayout,
    passages: Mapping[int, tuple[PassageSpan, ...]],
    own: tuple[PassageSpan, ...],
) -> list[PlacedPassage]:
    """All passages of a session in token order.

    Example: a contributor's span [2, 9) that begins with 2 tokens of prefix it owns, passages of 3
    and 2 tokens: [4, 7) and [7, 9).

    Args:
        layout: of the session.
        passages: of the contributors, by their places.
        own: of the publisher, which begin its span.
    """
    placed: list[PlacedPassage] = []
    for index, member in enumerate(layout.contributors):
        given = passages.get(index, ())
        begin = member.span.stop - sum(one.num_tokens for one in given)
        placed.extend(_place(member, given, begin))
    placed.extend(_place(layout.publisher, own, layout.publisher.span.start))
    return placed


def _place(member: Member, passages: tuple[PassageSpan, ...], begin: int) -> list[PlacedPassage]:
    placed: list[PlacedPassage] = []
    for one in passages:
        span = Span(begin, begin + one.num_tokens)
        placed.append(PlacedPassage(node_id=member.node_id, number=one.number, span=span))
        begin = span.stop
    return placed


def find_sources(  # noqa: PLR0913, PLR0917 - spelt out
    model: LoadedModel,
    prefill: PrefillResult,
    answer: list[int],
    placed: list[PlacedPassage],
    layout: SessionLayout,
    exchange: AskingExchange | None = None,
) -> pb.QueryResult:
    """What an answer rests on: a result with its sources, its support, the influence of every
    member in a report, and nothing else.

    Args:
        model: of the publisher.
        prefill: what the answer was decoded from.
        answer: its token ids; nothing is said of an answer without any.
        placed: all passages; nothing is said of sources and support if there is none.
        layout: of the session.
        exchange: asks members whose rows stay with them; None if there are none. Then nothing is
            said of support, and of passages only where their rows are here.
    """
    result = pb.QueryResult()
    if not answer:
        return result
    spans, members = [one.span for one in placed], [member.span for member in layout.members]
    layers = layout.publisher.plan.layers
    seen = attribute_answer(model, prefill, answer, spans, layers, members, exchange)
    for member, influence in zip(layout.members, seen.influences, strict=True):
        result.report.members.add(node_id=member.node_id, influence=min(1.0, influence))
    if not placed:
        return result
    if exchange is None:
        result.support = copying_attention(seen)
    ranked = sorted(zip(seen.shares, placed, strict=True), key=lambda pair: -pair[0])
    for share, one in ranked[:MAX_SOURCES]:
        if share > 0:
            result.sources.add(node_id=one.node_id, number=one.number, share=min(1.0, share))
    return result
