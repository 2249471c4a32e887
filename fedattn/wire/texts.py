"""Texts of other nodes, made harmless where they come in: in logs, reports, REST and terminals."""

from collections.abc import AsyncIterator
from functools import cache
from typing import TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from fedattn.core.printable import short_line
from fedattn.wire.protocol import MAX_TEXT_LENGTH

M = TypeVar("M", bound=Message)


def clean_texts(message: M) -> M:
    """The same message; each of its texts is now one printable line of `MAX_TEXT_LENGTH`.

    Nothing that is matched with something, such as ids, codes and tokens, holds anything that
    changes here. Messages without texts, such as chunks, are not looked into.
    """
    for field in _fields_with_text(message.DESCRIPTOR):
        if field.type != FieldDescriptor.TYPE_STRING:
            for inner in _messages(message, field):
                clean_texts(inner)
        elif field.is_repeated:
            texts = getattr(message, field.name)
            texts[:] = [short_line(text, MAX_TEXT_LENGTH) for text in texts]
        elif text := getattr(message, field.name):
            setattr(message, field.name, short_line(text, MAX_TEXT_LENGTH))
    return message


async def cleaned(messages: AsyncIterator[M]) -> AsyncIterator[M]:
    """Each message, as `clean_texts`."""
    async for message in messages:
        yield clean_texts(message)


@cache
def _fields_with_text(kind: Descriptor) -> tuple[FieldDescriptor, ...]:
    """Fields that are texts, or messages that have some."""
    return tuple(
        field
        for field in kind.fields
        if field.type == FieldDescriptor.TYPE_STRING
        or (field.message_type is not None and _fields_with_text(field.message_type))
    )


def _messages(message: Message, field: FieldDescriptor) -> list[Message]:
    if field.is_repeated:
        return list(getattr(message, field.name))
    return [getattr(message, field.name)] if message.HasField(field.name) else []
