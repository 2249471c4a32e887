"""Why a file cannot be read is told once, and for people."""

from pathlib import Path

import pytest

from fedattn.core.errors import InvalidRequestError
from fedattn.research.tasks.cases import read_cases


def test_a_file_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    with pytest.raises(InvalidRequestError) as caught:
        read_cases(path)
    assert str(caught.value) == f"cases {path} cannot be read: no such file or directory"


def test_bytes_that_are_no_text_are_told_as_that(tmp_path: Path) -> None:
    path = tmp_path / "picture.jsonl"
    path.write_bytes(b"ab\x89PNG")
    with pytest.raises(InvalidRequestError, match=r"got byte 0x89 at 2; is it a text\?"):
        read_cases(path)
