"""Answering as another participant than the publisher, as each does in the paper's code.

The first token follows the prompt, so it is everybody's. Later ones belong to the responder: where
the publisher synchronises they see every received row, elsewhere the responder's span instead of
the publisher's.
"""

from dataclasses import replace

import torch

from fedattn.core.spans import Member, SessionLayout, Span
from fedattn.model.cache import FederatedCache, LayerCache, join_rows
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
        is_other = received.positions < layout.prefix_len
        if layer in layout.publisher.plan:
            is_other = ~_is_inside(received, responder.span)
        rows = [mine.select(_is_inside(mine, responder.span)), received.select(is_other)]
        layers.append(_in_order(join_rows(rows)))
    cache = FederatedCache(len(layers), prefill.logits.device)
    cache.seed(layers)
    return replace(prefill, cache=cache)


def _is_inside(rows: LayerCache, span: Span) -> torch.Tensor:
    """[S] bool: which rows are of the span."""
    return (rows.positions >= span.start) & (rows.positions < span.stop)


def _in_order(rows: LayerCache) -> LayerCache:
    return rows.select(rows.positions.argsort())
