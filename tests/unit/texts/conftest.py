"""A file to write and to cut."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedattn.texts.pieces import Piece, cut_file

Cut = Callable[..., list[Piece]]


@pytest.fixture
def cut(tmp_path: Path) -> Cut:
    """Writes a file of this name and content, and gives its pieces."""

    def write_and_cut(name: str, content: str | bytes, **options: object) -> list[Piece]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(cut_file(path, **options))  # type: ignore[arg-type]

    return write_and_cut
