"""The private context: a file or a folder, read again when it changes."""

import os
from pathlib import Path

import pytest

from fedattn.core.errors import ConfigurationError
from services.participant.context import ContextTokens, PrivateContext
from tests.harness.tiny import word_tokenizer


def test_folder_joins_its_texts_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("second\n")
    (tmp_path / "a.txt").write_text("first\n")
    (tmp_path / "c.bin").write_text("no text file")
    assert PrivateContext(tmp_path).text() == "first\n\nsecond"


def test_changes_are_seen(tmp_path: Path) -> None:
    context = PrivateContext(tmp_path)
    assert context.text() == ""
    (tmp_path / "a.txt").write_text("one")
    assert context.text() == "one"
    (tmp_path / "a.txt").write_text("two")
    os.utime(tmp_path / "a.txt", ns=(1, 1))
    assert context.text() == "two"
    (tmp_path / "a.txt").unlink()
    assert context.text() == ""


def test_no_path_is_an_empty_context() -> None:
    assert PrivateContext(None).text() == ""


def test_tokens_follow_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("w5 w6")
    tokens = ContextTokens(PrivateContext(path), word_tokenizer())
    assert tokens.current() == [5, 6]
    path.write_text("w7 w8 w9")
    assert tokens.current() == [7, 8, 9]


@pytest.mark.parametrize("content", [b"secret \xff", b"x" * ((16 << 20) + 1)])
def test_unreadable_context_is_an_error_without_its_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        PrivateContext(path).text()
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_lost_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        PrivateContext(tmp_path / "gone.txt").text()
