"""Documents that a library of the extra `documents` reads: PDF and Word."""

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, cast

from fedattn.core.contexts import SkipReason
from fedattn.texts.kinds import Kind
from fedattn.texts.opening import open_regular
from fedattn.texts.packing import Block, Piece, pack
from fedattn.texts.skipping import SkippedError

MAX_BYTES = 64 << 20
"""Of one document."""
_LIBRARIES = {Kind.PDF: "pypdf", Kind.WORD: "docx"}
_MODULES = {Kind.PDF: "fedattn.texts.pdf", Kind.WORD: "fedattn.texts.word"}


def cut_document(path: Path, kind: Kind, max_chars: int) -> Iterator[Piece]:
    """Pieces of a document.

    Raises:
        SkippedError: the library is not installed, or the document cannot be read.
    """
    if find_spec(_LIBRARIES[kind]) is None:
        raise SkippedError(
            SkipReason.UNKNOWN_KIND, "install with: pip install 'fedattn[documents]'"
        )
    blocks = cast("Callable[[BinaryIO], Iterator[Block]]", import_module(_MODULES[kind]).blocks)
    try:
        with open_regular(path) as file:
            _check_size(file)
            yield from pack(blocks(file), max_chars)
    except OSError:
        raise SkippedError(SkipReason.UNREADABLE) from None


def _check_size(file: BinaryIO) -> None:
    size_bytes = file.seek(0, 2)
    file.seek(0)
    if size_bytes == 0:
        raise SkippedError(SkipReason.EMPTY)
    if size_bytes > MAX_BYTES:
        raise SkippedError(
            SkipReason.TOO_LARGE, f"a document may have {MAX_BYTES >> 20} MiB; split it"
        )
