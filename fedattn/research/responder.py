"""Answering as another participant than the publisher, as each does in the paper's code.

The first token follows the prompt, so it is everybody's. Later ones belong to the responder: where
the publisher synchronises they see every received row, elsewhere the responder's span instead of
the publisher's.
"""

from dataclasses import replace

from fedattn.core.spans import Member, SessionLayout, Span
from fedattn.model.cache import FederatedCache
from fedattn.model.layer_cache import PositionTest, join_rows
from fedattn.model.prefill import PrefillResult


def answer_as(
    responder: Member, own: FederatedCache, prefill: PrefillResult, layout: SessionLayout
) -> PrefillResult:
    """What a contributor decodes from.

    Args:
        responder: the contributor.
        own: its rows of every block.
        prefill: the publisher's.
        layout: the session.
    """
    layers = []
    for layer, (mine, received) in enumerate(zip(own.layers, prefill.cache.layers, strict=True)):
        is_received = _outside(responder.span)
        if layer not in layout.publisher.plan:
            is_received = _outside(Span(layout.prefix_len, layout.num_tokens))
        rows = join_rows([mine.where(_inside(responder.span)), received.where(is_received)])
        layers.append(rows.select(rows.positions.argsort()))
    cache = FederatedCache(prefill.cache.windows, prefill.logits.device)
    cache.seed(layers)
    return replace(prefill, cache=cache)


def _inside(span: Span) -> PositionTest:
    """Says which positions are of the span."""
    return lambda positions: (positions >= span.start) & (positions < span.stop)


def _outside(span: Span) -> PositionTest:
    """Says which positions are not of the span."""
    return lambda positions: ~_inside(span)(positions)
