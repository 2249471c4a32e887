"""YAML as it is written, by its top-level blocks."""

from collections.abc import Iterator

from fedattn.texts.lines import Line
from fedattn.texts.opening import Source
from fedattn.texts.packing import Block
from fedattn.texts.plain import MAX_BLOCK_CHARS, as_block


def yaml_blocks(source: Source, start: int) -> Iterator[Block]:
    """Each top-level key or list item with all below it; comments belong to what follows."""
    block: list[Line] = []
    key, num_chars = "", 0  # the line that the open block is about
    for line in source.lines(start):
        if line.is_blank:
            continue
        if block and ((key and _is_top(line.text, key)) or num_chars > MAX_BLOCK_CHARS):
            yield as_block(block, is_line=True, lead=key)
            block, key, num_chars = [], "", 0
        if not key and line.text[0] != "#":
            key = line.text
        block.append(line)
        num_chars += len(line.text)
    if block:
        yield as_block(block, is_line=True, lead=key)


def _is_top(line: str, key: str) -> bool:
    """Whether a line begins a block; items below a key need no indent."""
    is_item, is_below_item = (text.startswith("- ") for text in (line, key))
    return not line[0].isspace() and (not is_item or is_below_item)
