"""Answering as another participant than the publisher, as each does in the paper's code.

The first token follows the prompt, so it is everybody's. Later ones belong to the responder: where
the publisher synchronises they see every received row, elsewhere the responder's span instead of
the publisher's.
"""

from dataclasses import replace

from fedattn.core.spans import Member, SessionLayout
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
        is_own = (mine.positions >= responder.span.start) & (mine.positions < responder.span.stop)
        is_other = received.positions < layout.prefix_len
        if layer in layout.publisher.plan:
            positions = received.positions
            is_other = (positions < responder.span.start) | (positions >= responder.span.stop)
        layers.append(_in_order(join_rows([mine.select(is_own), received.select(is_other)])))
    cache = FederatedCache(len(layers), prefill.logits.device)
    cache.seed(layers)
    return replace(prefill, cache=cache)


def _in_order(rows: LayerCache) -> LayerCache:
    return rows.select(rows.positions.argsort())
