"""Packed logs, read as a stream."""

import gzip
import zlib
from typing import BinaryIO

from fedattn.core.contexts import SkipReason
from fedattn.texts.skipping import SkippedError

MAX_BYTES = 1 << 30
"""Of what a packed log may become."""


class Inflated:
    """The content of a gzip file: of a damaged one, what comes before the damage."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = gzip.GzipFile(fileobj=file)
        self._num_bytes = 0
        self._is_damaged = False

    def read(self, size: int, /) -> bytes:
        """At most so many bytes.

        Raises:
            SkippedError: it becomes too large, or nothing of it can be read.
        """
        data = b""
        while len(data) < size and (part := self._part(size - len(data))):
            data += part
        self._num_bytes += len(data)
        if self._num_bytes > MAX_BYTES:
            raise SkippedError(SkipReason.TOO_LARGE, f"unpacked it has over {MAX_BYTES >> 20} MiB")
        if self._is_damaged and self._num_bytes == 0:
            raise SkippedError(SkipReason.UNREADABLE, "it is no gzip file, or damaged")
        return data

    def seek(self, offset: int, /) -> int:
        """Go to an offset from the begin."""
        self._num_bytes, self._is_damaged = offset, False
        return self._file.seek(offset)

    def _part(self, size: int) -> bytes:
        if self._is_damaged:
            return b""
        try:
            return self._file.read1(size)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            self._is_damaged = True
            return b""
