"""YAML as it is written, by its top-level blocks."""

from collections.abc import Iterator
from dataclasses import replace

from fedattn.texts.lines import Line
from fedattn.texts.opening import Source
from fedattn.texts.packing import Block
from fedattn.texts.plain import MAX_BLOCK_CHARS, as_block


def yaml_blocks(source: Source, start: int) -> Iterator[Block]:
    """Each top-level key or list item with all below it; comments belong to what follows."""
    block: list[Line] = []
    has_key, num_chars = False, 0
    for line in source.lines(start):
        if line.is_blank:
            continue
        is_top = not line.text[0].isspace()
        if block and ((is_top and has_key) or num_chars > MAX_BLOCK_CHARS):
            yield _block(block)
            block, has_key, num_chars = [], False, 0
        has_key = has_key or (is_top and line.text[0] != "#")
        block.append(line)
        num_chars += len(line.text)
    if block:
        yield _block(block)


def _block(lines: list[Line]) -> Block:
    key = next((line.text for line in lines if line.text[0] != "#"), "")
    return replace(as_block(lines), is_line=True, lead=key)
