"""Messages whose fields say what they should not, with the bytes of a message all the same."""

from random import Random
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_NUMBERS: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.CPPTYPE_INT32: (0, 1, -1, 2**31 - 1, -(2**31)),
    FieldDescriptor.CPPTYPE_INT64: (0, 1, -1, 2**63 - 1, -(2**63)),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 7, 1023, 1024, 2**31, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2**32, 2**53, 2**63, 2**64 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: (0.0, -1.0, 1e-45, 3e38, float("nan"), float("inf")),
    FieldDescriptor.CPPTYPE_DOUBLE: (0.0, -0.0, -1.0, 1e-300, 1e300, float("nan"), -float("inf")),
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 99, -1, 2**31 - 1),
}
_TEXTS = (
    "",
    "a",
    "n" * 64,
    "n" * 65,
    "../../x",
    "a\0b",
    "\u202e",
    "all",
    "0-1023",
    "é" * 3000,
    "\n",
)
_BYTES = (b"", b"\0", b"\xff" * 31, b"\0" * 32, b"\x55" * 33, bytes(1216), b"\x80" * 4096)


def change_fields(message: Message, random: Random) -> None:
    """Change one to four fields, wherever they are in the message."""
    for _ in range(random.choice((1, 1, 2, 4))):
        _change(_any_part(message, random), random)


def _any_part(message: Message, random: Random) -> Message:
    """The message, or one inside it."""
    parts: list[Message] = []
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            parts += list(value) if field.is_repeated else [value]
    parts = [part for part in parts if part.DESCRIPTOR.fields]  # some say all by being there
    if not parts or random.random() < 0.3:
        return message
    return _any_part(random.choice(parts), random)


def _change(message: Message, random: Random) -> None:
    field = cast("FieldDescriptor", random.choice(message.DESCRIPTOR.fields))
    if random.random() < 0.15:
        message.ClearField(field.name)
    elif field.is_repeated:
        _change_list(getattr(message, field.name), field, random)
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, _value(field, random))


def _change_list(values: Any, field: FieldDescriptor, random: Random) -> None:
    if values and random.random() < 0.3:
        del values[random.randrange(len(values)) :]
    elif values and random.random() < 0.5:
        copies = [values[random.randrange(len(values))]] * random.choice((1, 2, 70, 1100))
        values.extend(copies)
    elif field.message_type is not None:
        values.add()
    else:
        values.append(_value(field, random))


def _value(field: FieldDescriptor, random: Random) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return random.choice(_BYTES if field.type == FieldDescriptor.TYPE_BYTES else _TEXTS)
    return random.choice(_NUMBERS[field.cpp_type])
