"""Timelines on the wire."""

from collections.abc import Iterable, Sequence

from fedattn.core.errors import InvalidRequestError
from fedattn.core.timeline import Activity, Slice, max_slices
from fedattn.wire.convert import require_range
from fedattn.wire.v1 import session_pb2 as pb

_MAX_TIME_S = 86_400.0
_TO_WIRE = {
    Activity.OPEN: pb.ACTIVITY_OPEN,
    Activity.COMPUTE: pb.ACTIVITY_COMPUTE,
    Activity.ENCODE: pb.ACTIVITY_ENCODE,
    Activity.SEND: pb.ACTIVITY_SEND,
    Activity.WAIT: pb.ACTIVITY_WAIT,
    Activity.DECODE: pb.ACTIVITY_DECODE,
    Activity.GENERATE: pb.ACTIVITY_GENERATE,
}
_FROM_WIRE = {number: activity for activity, number in _TO_WIRE.items()}


def timeline_to_wire(slices: Iterable[Slice]) -> list[pb.Slice]:
    """As messages, in the same order."""
    return [
        pb.Slice(
            activity=_TO_WIRE[piece.activity],
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
        if message.activity not in _FROM_WIRE:
            raise InvalidRequestError(
                f"activity: {message.activity} is not known here; upgrade this node"
            )
        require_range("layer", message.layer, 0, num_layers - 1)
        require_range("begin_s", message.begin_s, 0, _MAX_TIME_S)
        require_range("duration_s", message.duration_s, 0, _MAX_TIME_S)
        slices.append(
            Slice(
                activity=_FROM_WIRE[message.activity],
                layer=message.layer,
                begin_s=message.begin_s,
                duration_s=message.duration_s,
            )
        )
    return slices
