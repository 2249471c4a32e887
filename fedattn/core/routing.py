"""Which KV rows have to travel at all.

Attention is causal, so participant n only ever needs spans before its own. Two rules follow:

1. A participant uploads a layer only if a later participant receives at it.
2. What a contributor receives at layer l can only change its KV at layers above l. So it receives
   at l only if it uploads some layer above l, and it stops computing after its last upload.

Example, 5 layers, contributors a and b sync at {1, 3}, the publisher at {2, 3}:

    publisher  uploads {}      receives {2, 3}
    b          uploads {2, 3}  receives {1}       3 is not below its last upload
    a          uploads {1,2,3} receives {}        nobody is before it

A contributor that is asked sends no rows to anybody. Where it answers, it takes the publisher's
queries and gives back what they make of its rows (`fedattn.core.asked`).

Rows that somebody still has do not travel again (`fedattn.core.reuse`): the publisher awaits none
of a member whose rows it holds, and a contributor that has kept its frames awaits nothing. If the
publisher holds a's rows and b has changed, a uploads {1}, for b alone.
"""

from dataclasses import dataclass

from fedattn.core.spans import SessionLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Layers at which one participant sends and receives, and from whom.

    Attributes:
        uploads: layers whose own rows travel.
        receives: layers at which rows of earlier spans are attended to.
        senders: places (in token order) of those whose rows arrive at every receive layer.
        cached: places of those whose rows are here already.
        answers: layers at which a contributor attends for the publisher's queries.
        asks: layers at which the publisher asks others so.
        asked: places of those it asks at every such layer.
    """

    uploads: frozenset[int]
    receives: frozenset[int]
    senders: tuple[int, ...]
    cached: tuple[int, ...] = ()
    answers: frozenset[int] = frozenset()
    asks: frozenset[int] = frozenset()
    asked: tuple[int, ...] = ()

    @property
    def needed(self) -> frozenset[int]:
        """Layers whose own rows are needed, here or elsewhere."""
        return self.uploads | self.answers

    @property
    def last_needed(self) -> int | None:
        return max(self.needed, default=None)

    @property
    def sources(self) -> tuple[int, ...]:
        """Places of those who send to this participant while it computes."""
        return tuple(sorted((*self.senders, *self.asked)))


def route_session(layout: SessionLayout, responder: int | None = None) -> tuple[Route, ...]:
    """One route a participant, in token order.

    Args:
        layout: the session.
        responder: place of a contributor that answers too: it receives wherever its plan says.
    """
    filled = tuple(i for i, member in enumerate(layout.contributors) if len(member.span) > 0)
    asked = tuple(i for i in filled if layout.members[i].is_asked)
    present = tuple(i for i in filled if i not in asked)
    cached = tuple(i for i in present if layout.members[i].is_cached_by_publisher)
    by_publisher = frozenset(layout.publisher.plan.layers if present else ())
    routes = [
        Route(
            uploads=frozenset(),
            receives=by_publisher,
            senders=tuple(i for i in present if i not in cached),
            cached=cached,
            asks=frozenset(layer for i in asked for layer in layout.members[i].answers.layers),
            asked=asked,
        )
    ]
    by_contributors: frozenset[int] = frozenset()  # layers at which one of the later receives
    for index in reversed(range(len(layout.contributors))):
        member = layout.members[index]
        if index in asked:
            answers = frozenset(member.answers.layers)
            routes.append(
                Route(uploads=frozenset(), receives=frozenset(), senders=(), answers=answers)
            )
            continue
        senders = tuple(i for i in present if i < index)
        uploads = by_contributors | (frozenset() if member.is_cached_by_publisher else by_publisher)
        if index not in present:
            uploads = frozenset()
        last = max(uploads, default=-1)
        receives = frozenset(
            layer
            for layer in member.plan.layers
            if senders and not member.is_cached_by_owner and (layer < last or index == responder)
        )
        by_contributors |= receives
        routes.append(Route(uploads=uploads, receives=receives, senders=senders))
    return tuple(reversed(routes))
