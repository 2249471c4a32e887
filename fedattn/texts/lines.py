"""Lines of a file of any size, with their place in bytes."""

import codecs
import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from fedattn.texts.decoding import tidy

MAX_LINE_BYTES = 1 << 16
"""A longer line is read in parts of this size."""
_BLOCK_BYTES = 1 << 16
_LINE_END = re.compile(rb"\n|\r\n?")
_NEAR_END = 1 << 10
"""Bytes at the end of a part in which a space is looked for, so that words stay whole."""


class ByteStream(Protocol):
    """What is read of a binary file."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end only."""

    def seek(self, offset: int, /) -> int:
        """Go to an offset from the begin."""


class Line(NamedTuple):
    """A line without its end, or a part of a very long one.

    Attributes:
        text: tidied.
        number: from 1.
        start: offset in bytes.
        stop: offset behind its end.
    """

    text: str
    number: int
    start: int
    stop: int

    @property
    def is_blank(self) -> bool:
        return not self.text.strip()


class Lines:
    """Lines of an open file from an offset on; nothing but a block is kept in memory.

    A line that the encoding cannot read is read as `fallback`, or with replacement characters.

    Args:
        file: at its begin.
        encoding: a codec of Python without a mark.
        start: where a line begins, or a part of one.
    """

    def __init__(
        self, file: ByteStream, encoding: str, *, start: int = 0, fallback: str | None = None
    ) -> None:
        self._file = file
        self._codec = codecs.lookup(encoding)
        self._fallback = fallback
        self._newline = "\n".encode(encoding)
        self._start = start

    def __iter__(self) -> Iterator[Line]:
        number = 1 + self._skip()
        buffer, begin, offset, is_end = b"", 0, self._start, False
        while not is_end or begin < len(buffer):
            stop, is_line = self._end(buffer, begin, is_end=is_end)
            if stop < 0:
                block = self._file.read(_BLOCK_BYTES)
                buffer, begin, is_end = buffer[begin:] + block, 0, not block
                continue
            raw = buffer[begin:stop]
            yield Line(self._text(raw), number, offset, offset + len(raw))
            begin, offset, number = stop, offset + len(raw), number + is_line

    def _skip(self) -> int:
        """Go to the start; how many lines end before it."""
        num_lines, left, last = 0, self._start, b""
        while left and (block := self._file.read(min(left, _BLOCK_BYTES))):
            left -= len(block)
            num_lines += block.count(self._newline)
            if len(self._newline) == 1:
                num_lines += block.count(b"\r") - block.count(b"\r\n")
                num_lines -= last == b"\r" and block[:1] == b"\n"
            last = block[-1:]
        return num_lines

    def _end(self, buffer: bytes, begin: int, *, is_end: bool) -> tuple[int, bool]:
        """Offset behind the line that begins here, and whether it ends there; -1 to read on."""
        stop = self._line_end(buffer, begin, is_end=is_end)
        if stop < 0 and is_end:
            stop = len(buffer)
        if 0 <= stop <= begin + MAX_LINE_BYTES:
            return stop, True
        if len(buffer) - begin < MAX_LINE_BYTES:
            return -1, False
        return begin + self._part_size(buffer[begin : begin + MAX_LINE_BYTES]), False

    def _line_end(self, buffer: bytes, begin: int, *, is_end: bool) -> int:
        size = len(self._newline)
        if size == 1:
            found = _LINE_END.search(buffer, begin)
            if found is None or (found[0] == b"\r" and found.end() == len(buffer) and not is_end):
                return -1
            return found.end()
        at = buffer.find(self._newline, begin)
        while at >= 0 and (at - begin) % size:
            at = buffer.find(self._newline, at + 1)
        return at + size if at >= 0 else -1

    def _part_size(self, raw: bytes) -> int:
        """Bytes of a part that ends behind a space, or at least behind a whole character."""
        space = raw.rfind(b" ", len(raw) - _NEAR_END) if len(self._newline) == 1 else -1
        if space >= 0:
            return space + 1
        decoder = self._codec.incrementaldecoder("replace")
        decoder.decode(raw)
        return len(raw) - len(decoder.getstate()[0])

    def _text(self, raw: bytes) -> str:
        return tidy(self._decoded(raw)).removesuffix("\n")

    def _decoded(self, raw: bytes) -> str:
        try:
            return raw.decode(self._codec.name)
        except UnicodeDecodeError:
            return raw.decode(self._fallback or self._codec.name, "replace")
