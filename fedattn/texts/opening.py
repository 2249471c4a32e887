"""Files as they are opened to be cut: what they are encoded in is decided on the first look."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fedattn.core.contexts import SkipReason
from fedattn.texts.decoding import Reading, read_certain
from fedattn.texts.inflating import Inflated
from fedattn.texts.kinds import is_packed
from fedattn.texts.lines import ByteStream, Line, Lines
from fedattn.texts.skipping import SkippedError

MAX_WHOLE_BYTES = 16 << 20
"""Files up to this size are looked at as a whole; of larger ones the head decides."""
_NUL_BLOCK = re.compile(rb"\0{8,}")
_LINES_A_BAD_BYTE = 100
"""A log with more bad bytes is in another encoding, which its owner can name."""
_PDF_BEGIN = b"%PDF-"
HEAD_BYTES = 1 << 18
NUM_HEAD_LINES = 200


def open_regular(path: Path) -> BinaryIO:
    """A regular file, without ever waiting for the writer of a pipe.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("no regular file")
    return file


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An open text.

    Attributes:
        file: can be read again from its begin.
        encoding: as `Reading` has it.
        fallback: encoding of lines that are not in `encoding`.
        is_whole: whether `text` is the whole of it, not its head.
        text: the whole of a small file, or the head of a larger one.
        modified_s: seconds since 1970.
    """

    file: ByteStream
    encoding: str
    fallback: str | None
    is_whole: bool
    text: str
    modified_s: float

    @property
    def head(self) -> list[str]:
        """The first lines, none of them cut."""
        lines = self.text[:HEAD_BYTES].split("\n")[: NUM_HEAD_LINES + 1]
        is_cut = len(lines) > NUM_HEAD_LINES or not self.is_whole or len(self.text) > HEAD_BYTES
        return lines[:-1] if is_cut and len(lines) > 1 else lines

    def lines(self, start: int = 0) -> Iterator[Line]:
        """Lines from an offset on; asked for twice, they are read twice."""
        self.file.seek(0)
        return iter(Lines(self.file, self.encoding, start=start, fallback=self.fallback))

    def whole(self) -> str:
        """All of the text.

        Raises:
            SkippedError: it is too large for a format that is read as a whole.
        """
        if not self.is_whole:
            raise SkippedError(
                SkipReason.TOO_LARGE,
                f"a file of this kind may have {MAX_WHOLE_BYTES >> 20} MiB; split it",
            )
        return self.text


@contextmanager
def open_text(path: Path, fallback: str | None, *, is_tolerant: bool) -> Iterator[Source]:
    """A text, opened, and closed at the end.

    Args:
        path: a regular file, packed by gzip if its name says so.
        fallback: encoding of what is neither UTF-8 nor UTF-16.
        is_tolerant: whether a few bad bytes are replaced, as in a log.

    Raises:
        SkippedError: it cannot be read, or is not certain to be a text.
    """
    try:
        with open_regular(path) as opened:
            file = Inflated(opened) if is_packed(path.name) else opened
            yield _look(file, fallback, os.fstat(opened.fileno()), is_tolerant=is_tolerant)
    except OSError:
        raise SkippedError(SkipReason.UNREADABLE) from None


def _look(
    file: ByteStream, fallback: str | None, info: os.stat_result, *, is_tolerant: bool
) -> Source:
    data = file.read(HEAD_BYTES)
    if not data:
        raise SkippedError(SkipReason.EMPTY)
    rest = file.read(MAX_WHOLE_BYTES + 1 - len(data)) if info.st_size <= MAX_WHOLE_BYTES else b""
    is_whole = info.st_size <= MAX_WHOLE_BYTES and len(data) + len(rest) <= MAX_WHOLE_BYTES
    reading = read_certain(data + rest, fallback) if is_whole else _of_head(data, fallback)
    if isinstance(reading, SkipReason) and is_tolerant and is_whole:
        reading = _repaired(data + rest, reading)
    if isinstance(reading, SkipReason):
        is_pdf = data.startswith(_PDF_BEGIN)
        raise SkippedError(reading, "this is a PDF; rename it to .pdf" if is_pdf else "")
    return Source(
        file=file,
        encoding=reading.encoding,
        fallback=fallback,
        is_whole=is_whole,
        text=reading.text,
        modified_s=info.st_mtime,
    )


def _of_head(data: bytes, fallback: str | None) -> Reading | SkipReason:
    """What the first lines are; `data` may end within a character."""
    newline = data.rfind(b"\n")
    is_ascii_like = b"\0" not in data and newline > 0
    return read_certain(data[:newline] if is_ascii_like else data, fallback, is_whole=False)


def _repaired(data: bytes, reason: SkipReason) -> Reading | SkipReason:
    """UTF-8 with few bad bytes for its lines, and the blocks of NUL that a lost power leaves."""
    text = _NUL_BLOCK.sub(b"", data).decode("utf-8", "replace")
    if text.count("\ufffd") * _LINES_A_BAD_BYTE > text.count("\n"):
        return reason
    return read_certain(text.encode())
