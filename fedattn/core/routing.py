"""Which KV rows have to travel at all.

Attention is causal, so participant n only ever needs spans before its own. Two rules follow:

1. A participant uploads a layer only if a later participant receives at it.
2. What a contributor receives at layer l can only change its KV at layers above l. So it receives
   at l only if it uploads some layer above l, and it stops computing after its last upload.

Example, 5 layers, contributors a and b sync at {1, 3}, the publisher at {2, 3}:

    publisher  uploads {}      receives {2, 3}
    b          uploads {2, 3}  receives {1}       3 is not below its last upload
    a          uploads {1,2,3} receives {}        nobody is before it
"""

from dataclasses import dataclass

from fedattn.core.spans import SessionLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Layers at which one participant sends and receives, and from whom.

    Attributes:
        uploads: layers whose own rows travel.
        receives: layers at which rows of earlier spans are awaited.
        senders: places (in token order) of those whose rows arrive at every receive layer.
    """

    uploads: frozenset[int]
    receives: frozenset[int]
    senders: tuple[int, ...]

    @property
    def last_upload(self) -> int | None:
        return max(self.uploads, default=None)


def route_session(layout: SessionLayout, responder: int | None = None) -> tuple[Route, ...]:
    """One route a participant, in token order.

    Args:
        layout: the session.
        responder: place of a contributor that answers too: it receives wherever its plan says.
    """
    routes: list[Route] = []
    needed: frozenset[int] = frozenset()  # layers at which somebody later receives
    for index in reversed(range(len(layout.members))):
        member = layout.members[index]
        senders = tuple(i for i in range(index) if len(layout.members[i].span) > 0)
        uploads = needed if len(member.span) > 0 else frozenset()
        if member is layout.publisher:
            uploads, receives = frozenset(), frozenset(member.plan.layers)
        else:
            last = max(uploads, default=-1)
            receives = frozenset(
                layer for layer in member.plan.layers if layer < last or index == responder
            )
        if not senders:
            receives = frozenset()
        needed |= receives
        routes.append(Route(uploads=uploads, receives=receives, senders=senders))
    return tuple(reversed(routes))
