"""Whose texts take part if not all of them fit the tokens that a query allows."""

from collections.abc import Collection, Sequence

NODE_SHARE = 3
"""One node may fill a third of the tokens, where it knows what is asked: few nodes know much."""
WHOLE_PASSAGE = 128
"""Tokens that hold most passages: one whole passage is worth more than three cut ones."""


def node_tokens(
    max_tokens: int, num_nodes: int, *, knows_question: bool, least_nodes: int = 1
) -> int:
    """Most tokens of one node's text, at least 1.

    Args:
        max_tokens: of all nodes together.
        num_nodes: how many there are, at least 1.
        knows_question: whether nodes can tell how well their texts fit; else all share evenly, as
            far as that leaves a whole passage to each.
        least_nodes: so many must be able to take part.
    """
    share = max_tokens // (min(NODE_SHARE, num_nodes) if knows_question else num_nodes)
    return max(1, min(max(share, WHOLE_PASSAGE), max_tokens // max(1, least_nodes)))


def take_best(
    texts: Sequence[tuple[int, float]], max_tokens: int | None, certain: Collection[int] = ()
) -> set[int]:
    """Places of the texts that take part: the best first, as many as fit.

    As soon as one fits what is asked, those that do not fit it at all stay out: a small model
    answers from whatever it is given.

    Example: texts of (100, 0.2), (200, 0.9) and (100, 0.5) tokens and fit, 300 tokens: the second
    and the third.

    Args:
        texts: tokens of each, and how well it fits what is asked, 0 to 1; 0 for all if nobody
            knows what is asked.
        max_tokens: of all that take part; None for no limit.
        certain: places of texts that come first, whatever their fit.
    """
    some_fit = any(fit for _, fit in texts)
    taken: set[int] = set()
    room = max_tokens
    for place in sorted(
        range(len(texts)), key=lambda place: (place not in certain, -texts[place][1])
    ):
        size, fit = texts[place]
        if some_fit and not fit and place not in certain:
            continue
        if room is None or size <= room:
            taken.add(place)
            room = None if room is None else room - size
    return taken
