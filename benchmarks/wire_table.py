"""The tables of docs/wire.md, from the sources in proto/ and their comments.

python -m benchmarks.wire_table
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

from benchmarks.blocks import ROOT, with_block, write_documents

DOCUMENT = ROOT / "docs" / "wire.md"
PROTOS = ("aggregator", "participant", "session", "federation")
_FOLDER = "fedattn/wire/v1"
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6  # field numbers in FileDescriptorProto
_FIELD, _NESTED, _NESTED_ENUM = 2, 3, 4  # in DescriptorProto
_MEMBER = 2  # values of an enum, methods of a service

Place = tuple[int, ...]


def read_sources() -> dict[str, FileDescriptorProto]:
    """Each source with its comments, by name without folder and ending."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors"
        files = [f"{_FOLDER}/{name}.proto" for name in PROTOS]
        flags = ["-I", str(ROOT / "proto"), "--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", *flags, *files]) != 0:
            raise ValueError("protoc refuses the sources in proto/; what it said stands above")
        found = FileDescriptorSet.FromString(out.read_bytes())
    return {Path(file.name).stem: file for file in found.file}


class Source:
    """Sections of one file."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments: dict[Place, str] = {
            tuple(place.path): _one_line(place.leading_comments)
            for place in file.source_code_info.location
        }

    def markdown(self) -> str:
        """Services, then messages, then enums, in the order of the source."""
        sections: list[str] = []
        for index, service in enumerate(self._file.service):
            sections += self._service(service, (_SERVICE, index))
        for index, message in enumerate(self._file.message_type):
            sections += self._message(message, message.name, (_MESSAGE, index))
        for index, enum in enumerate(self._file.enum_type):
            sections += self._enum(enum, enum.name, (_ENUM, index))
        return "\n".join(sections)

    def _service(self, service: ServiceDescriptorProto, place: Place) -> Iterator[str]:
        yield from self._head(service.name, place)
        yield from ("| call | takes | returns | meaning |", "|---|---|---|---|")
        for index, call in enumerate(service.method):
            takes = _streamed(call.input_type, is_stream=call.client_streaming)
            returns = _streamed(call.output_type, is_stream=call.server_streaming)
            meaning = self._comments[*place, _MEMBER, index]
            yield f"| `{call.name}` | {takes} | {returns} | {meaning} |"
        yield ""

    def _message(self, message: DescriptorProto, name: str, place: Place) -> Iterator[str]:
        yield from self._head(name, place)
        if message.field:
            yield from ("| field | type | meaning |", "|---|---|---|")
        for index, field in enumerate(message.field):
            meaning = self._comments[*place, _FIELD, index]
            yield f"| {field.number} `{field.name}` | {_kind(field)} | {meaning} |"
        yield ""
        for index, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                yield from self._message(nested, f"{name}.{nested.name}", (*place, _NESTED, index))
        for index, enum in enumerate(message.enum_type):
            yield from self._enum(enum, f"{name}.{enum.name}", (*place, _NESTED_ENUM, index))

    def _enum(self, enum: EnumDescriptorProto, name: str, place: Place) -> Iterator[str]:
        yield from self._head(name, place)
        yield from ("| value | meaning |", "|---|---|")
        for index, value in enumerate(enum.value):
            meaning = self._comments.get((*place, _MEMBER, index), "")
            yield f"| {value.number} `{value.name}` | {meaning} |"
        yield ""

    def _head(self, name: str, place: Place) -> Iterator[str]:
        yield from (f"### {name}", "")
        if text := self._comments.get(place):
            yield from (text, "")


def _one_line(comment: str) -> str:
    return " ".join(comment.split()).replace("|", "\\|")


def _streamed(name: str, *, is_stream: bool) -> str:
    return f"{'stream of ' if is_stream else ''}{_short(name)}"


def _short(name: str) -> str:
    return f"`{name.rpartition('.')[2]}`"


def _kind(field: FieldDescriptorProto) -> str:
    if field.type_name:
        kind = _short(field.type_name)
    else:
        kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"list of {kind}" if field.label == FieldDescriptorProto.LABEL_REPEATED else kind


def document(text: str) -> str:
    """docs/wire.md with every table as the sources have it."""
    sources = read_sources()
    for name in PROTOS:
        text = with_block(text, f"{name}.proto", f"\n{Source(sources[name]).markdown()}")
    return text


def documents() -> dict[Path, str]:
    """The document, as it should be."""
    return {DOCUMENT: document(DOCUMENT.read_text())}


if __name__ == "__main__":
    write_documents(documents())
