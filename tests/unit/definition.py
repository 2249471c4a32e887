"""Visibility as section 3 of the design says it, token by token: slow, obvious, and no numpy."""

from fedattn.core.spans import SessionLayout

PUBLIC = None
"""Owner of a token of the public prefix."""


def owner_of(layout: SessionLayout, token: int) -> int | None:
    """Place of the participant a token belongs to; generated tokens are the publisher's."""
    if token < layout.prefix_len:
        return PUBLIC
    for place, member in enumerate(layout.members):
        if member.span.start <= token < member.span.stop:
            return place
    return len(layout.members) - 1


def sees(layout: SessionLayout, layer: int, query: int, key: int) -> bool:
    """Whether token `query` attends to token `key` at `layer`, every row being kept."""
    if key > query:
        return False
    participant = owner_of(layout, query)
    if owner_of(layout, key) in {participant, PUBLIC}:
        return True
    return participant is not PUBLIC and layer in layout.members[participant].plan.layers


def naive_mask(layout: SessionLayout, layer: int, num_generated: int = 0) -> list[list[bool]]:
    """[S][S], rows are queries."""
    tokens = range(layout.num_tokens + num_generated)
    return [[sees(layout, layer, query, key) for key in tokens] for query in tokens]
