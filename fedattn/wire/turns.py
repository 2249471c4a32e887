"""Earlier turns of a conversation on the wire."""

from collections.abc import Iterable

from fedattn.core.turns import Turn, check_turns
from fedattn.wire.enums import SPEAKERS
from fedattn.wire.v1 import participant_pb2


def turns_to_wire(turns: Iterable[Turn]) -> list[participant_pb2.Turn]:
    """Turns as messages."""
    return [
        participant_pb2.Turn(speaker=SPEAKERS.to_wire(turn.speaker), text=turn.text)
        for turn in turns
    ]


def turns_from_wire(messages: Iterable[participant_pb2.Turn]) -> tuple[Turn, ...]:
    """Turns of messages, checked.

    Raises:
        InvalidRequestError: too many, too long, or of a speaker not known here.
    """
    turns = tuple(
        Turn(speaker=SPEAKERS.from_wire(message.speaker), text=message.text) for message in messages
    )
    check_turns(turns)
    return turns
