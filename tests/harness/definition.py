"""Visibility as section 3 of the design says it, token by token: slow, obvious, and no numpy."""

from collections.abc import Mapping, Sequence

from fedattn.core.spans import SessionLayout

PUBLIC = None
"""Owner of a token of the public prefix."""
Kept = Mapping[tuple[int, int], Sequence[frozenset[int]]]
"""Tokens whose rows travelled, by (participant, layer), for each head; nothing said: all."""
EVERYTHING: Kept = {}


def owner_of(layout: SessionLayout, token: int) -> int | None:
    """Place of the participant a token belongs to; generated tokens are the publisher's."""
    if token < layout.prefix_len:
        return PUBLIC
    for place, member in enumerate(layout.members):
        if member.span.start <= token < member.span.stop:
            return place
    return len(layout.members) - 1


def dropped_tokens(layout: SessionLayout) -> set[int]:
    """Tokens that their owner does not compute."""
    spans = {token for m in layout.members for token in range(m.span.start, m.span.stop)}
    return spans - {token for m in layout.members for token in m.input_positions().tolist()}


def sees(
    layout: SessionLayout, at: tuple[int, int], query: int, key: int, kept: Kept = EVERYTHING
) -> bool:
    """Whether token `query` attends to token `key` at a layer and head, both being computed."""
    layer, head = at
    if key > query:
        return False
    participant, owner = owner_of(layout, query), owner_of(layout, key)
    if owner in {participant, PUBLIC}:
        return True
    if participant is PUBLIC:
        return False
    assert owner is not PUBLIC
    if answers := layout.members[owner].answers.layers:
        is_seen = participant == len(layout.members) - 1 and layer in answers
    else:
        is_seen = layer in layout.members[participant].plan.layers
    if not is_seen:
        return False
    return (owner, layer) not in kept or key in kept[owner, layer][head]


def naive_mask(
    layout: SessionLayout,
    layer: int,
    num_generated: int = 0,
    kept: Kept = EVERYTHING,
    head: int = 0,
) -> list[list[bool]]:
    """[S][S], rows are queries; dropped tokens see nothing and nobody sees them."""
    tokens, at = range(layout.num_tokens + num_generated), (layer, head)
    dropped = dropped_tokens(layout)
    return [
        [
            query not in dropped and key not in dropped and sees(layout, at, query, key, kept)
            for key in tokens
        ]
        for query in tokens
    ]
