"""JSON and JSON lines: records in words."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice

from fedattn.texts.lines import Line
from fedattn.texts.opening import Source
from fedattn.texts.packing import Block, shortened
from fedattn.texts.plain import as_block, plain_blocks
from fedattn.texts.stamps import time_of

_MAX_KEY = 60
_MAX_PATH = 6
"""Names that the key of a nested value is made of, the last ones."""
_MAX_DEPTH = 4
"""Objects within each other in which arrays of records are looked for."""
_TIME_KEYS = {"timestamp", "@timestamp", "time", "ts", "datetime", "date", "created_at", "t"}
_MAX_LEAD = 80
_NUM_TRIED = 5


@dataclass(frozen=True, slots=True)
class Record:
    """A value, and the names that lead to it."""

    value: object
    path: tuple[str, ...] = ()


def json_blocks(source: Source, start: int) -> Iterator[Block]:
    """Records of a JSON file; JSON lines and broken JSON are read as what they are."""
    try:
        value = _parse(source.whole())
    except (ValueError, RecursionError):
        lines = are_json_lines(source.head)
        yield from (json_line_blocks if lines else plain_blocks)(source, start)
        return
    groups: dict[tuple[str, ...], int] = {}
    for number, record in enumerate(_records(value, ()), 1):
        yield _block(
            record.value,
            Block(
                text="",
                first=number,
                last=number,
                unit="record",
                heading=" > ".join(record.path),
                group=groups.setdefault(record.path, len(groups)),
            ),
            source.modified_s,
        )


def json_line_blocks(source: Source, start: int) -> Iterator[Block]:
    """Records of JSON lines from an offset on; a line that is none is kept as it is."""
    for line in source.lines(start):
        if not line.is_blank:
            yield _line_block(line, source.modified_s)


def are_json_lines(head: list[str]) -> bool:
    """Whether the first lines of a text are a JSON object or array each."""
    lines = list(islice((line for line in head if line.strip()), _NUM_TRIED))
    return bool(lines) and all(_is_container(line) for line in lines)


def _is_container(line: str) -> bool:
    try:
        return isinstance(_parse(line), dict | list)
    except (ValueError, RecursionError):
        return False


def _parse(text: str) -> object:
    """Numbers stay as they are written."""
    return json.loads(text, parse_float=str, parse_int=str, parse_constant=str)


def _line_block(line: Line, now_s: float) -> Block:
    try:
        return _block(_parse(line.text), as_block([line]), now_s)
    except (ValueError, RecursionError):
        return as_block([line], is_line=True)


def _block(value: object, place: Block, now_s: float) -> Block:
    pairs = list(flatten(value))
    times = (time_of(text, now_s) for key, text in pairs if key.lower() in _TIME_KEYS)
    return Block(
        text="; ".join(f"{key}: {text}" if key else text for key, text in pairs),
        first=place.first,
        last=place.last,
        unit=place.unit,
        start=place.start,
        stop=place.stop,
        heading=place.heading,
        group=place.group,
        lead=shortened(": ".join(pairs[0]), _MAX_LEAD) if pairs and pairs[0][0] else "",
        is_line=True,
        time_s=next((time for time in times if time is not None), None),
    )


def _records(value: object, path: tuple[str, ...]) -> Iterator[Record]:
    """The elements of arrays of objects, and what stands beside them as a record of its own."""
    if isinstance(value, list):
        yield from (Record(element, path) for element in value)
    elif isinstance(value, dict):
        inner = {
            key: part for key, part in value.items() if _has_records(part, _MAX_DEPTH - len(path))
        }
        if beside := {key: part for key, part in value.items() if key not in inner}:
            yield Record(beside, path)
        for key, part in inner.items():
            yield from _records(part, (*path, key))
    else:
        yield Record(value, path)


def _has_records(value: object, depth: int) -> bool:
    if isinstance(value, list):
        return any(isinstance(element, dict) for element in value)
    if isinstance(value, dict) and depth > 1:
        return any(_has_records(part, depth - 1) for part in value.values())
    return False


def flatten(value: object) -> Iterator[tuple[str, str]]:
    """Key and text of each value in a nested one, in order; without recursion.

    Numbers of elements count from 1. What is null or empty is left out.
    """
    open_values: list[tuple[tuple[str, ...], object]] = [((), value)]
    while open_values:
        path, part = open_values.pop()
        if isinstance(part, dict) or (isinstance(part, list) and any(map(_is_nested, part))):
            names = part.items() if isinstance(part, Mapping) else zip(count(1), part, strict=False)
            inner = [((*path[1 - _MAX_PATH :], shortened(str(k), _MAX_KEY)), v) for k, v in names]
            open_values += reversed(inner)
        elif text := _text(part):
            yield ".".join(path), text


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value)))
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())
