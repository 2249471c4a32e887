"""Timelines on the wire."""

from collections.abc import Iterable, Sequence

from fedattn.core.timeline import Slice, max_slices
from fedattn.wire.convert import require_range
from fedattn.wire.enums import ACTIVITIES
from fedattn.wire.v1 import session_pb2 as pb

MAX_TIME_S = 86_400.0
"""More than any member can have spent on a session."""


def timeline_to_wire(slices: Iterable[Slice]) -> list[pb.Slice]:
    """As messages, in the same order."""
    return [
        pb.Slice(
            activity=ACTIVITIES.to_wire(piece.activity),
            layer=piece.layer,
            begin_s=piece.begin_s,
            duration_s=piece.duration_s,
        )
        for piece in slices
    ]


def timeline_from_wire(messages: Sequence[pb.Slice], num_layers: int) -> list[Slice]:
    """Check and convert one member's timeline.

    Raises:
        InvalidRequestError: too many slices, or a value out of range.
    """
    require_range("slices of a timeline", len(messages), 0, max_slices(num_layers))
    slices = []
    for message in messages:
        require_range("layer", message.layer, 0, num_layers - 1)
        require_range("begin_s", message.begin_s, 0, MAX_TIME_S)
        require_range("duration_s", message.duration_s, 0, MAX_TIME_S)
        slices.append(
            Slice(
                activity=ACTIVITIES.from_wire(message.activity),
                layer=message.layer,
                begin_s=message.begin_s,
                duration_s=message.duration_s,
            )
        )
    return slices
