"""The private context: read again when its content changes, and honest about what is not in it."""

import os
from pathlib import Path

import pytest

from fedattn.core.contexts import ContextSummary, SkipReason
from fedattn.core.errors import ConfigurationError, ContextUnreadableError
from fedattn.texts.loading import Texts
from services.participant.context import (
    CannotReadError,
    ContextTokens,
    PrivateContext,
    check_context,
)
from services.participant.withheld import Pattern, compile_pattern
from tests.harness.tiny import word_tokenizer


def test_folder_joins_its_texts_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("second\n")
    (tmp_path / "a.txt").write_text("first\n")
    assert PrivateContext(tmp_path).text() == "first\n\nsecond"


def test_changes_are_seen(tmp_path: Path) -> None:
    context = PrivateContext(tmp_path)
    assert context.text() == ""
    (tmp_path / "a.txt").write_text("one")
    assert context.text() == "one"
    (tmp_path / "a.txt").write_text("two")
    assert context.text() == "two"
    (tmp_path / "a.txt").unlink()
    assert context.text() == ""


def test_a_change_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("pier 4")
    os.utime(path, ns=(1, 1))
    tokens = ContextTokens(PrivateContext(path), word_tokenizer())
    before = tokens.snapshot()
    path.write_text("pier 7")
    os.utime(path, ns=(1, 1))
    assert tokens.context.text() == "pier 7"
    assert tokens.snapshot().version != before.version


def test_no_path_is_an_empty_context_that_nobody_gave() -> None:
    tokens = ContextTokens(PrivateContext(None), word_tokenizer())
    assert tokens.snapshot().token_ids == []
    assert not tokens.summary.is_given


def test_tokens_follow_the_text_and_the_version_only_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("w5 w6")
    tokens = ContextTokens(PrivateContext(tmp_path), word_tokenizer())
    first = tokens.snapshot()
    assert first.token_ids == [5, 6]
    (tmp_path / "b.bin").write_bytes(b"\0")  # left out: the text is the same
    assert tokens.snapshot().version == first.version
    path.write_text("w7 w8 w9")
    assert tokens.snapshot().token_ids == [7, 8, 9]
    assert tokens.snapshot().version != first.version


def test_what_is_left_out_is_told_at_each_change_and_counted(tmp_path: Path) -> None:
    told: list[Texts] = []
    (tmp_path / "a.txt").write_text("w5")
    (tmp_path / "b.docx").write_bytes(b"PK\x03\x04")
    (tmp_path / "c.txt").write_text(" \n")
    tokens = ContextTokens(
        PrivateContext(tmp_path), word_tokenizer(), lambda texts, _summary: told.append(texts)
    )
    for _ in range(2):
        tokens.snapshot()
    assert [[(s.name, s.reason) for s in texts.skipped] for texts in told] == [
        [("b.docx", SkipReason.UNKNOWN_KIND), ("c.txt", SkipReason.BLANK)]
    ]
    assert tokens.summary == ContextSummary.count(1, 1, [SkipReason.UNKNOWN_KIND, SkipReason.BLANK])


def test_patterns_are_searched_again_only_when_they_or_the_text_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("w5 w66")
    searched: list[str] = []
    spans = Pattern.spans

    def counted(pattern: Pattern, text: str) -> list[tuple[int, int]]:
        searched.append(pattern.name)
        return spans(pattern, text)

    monkeypatch.setattr(Pattern, "spans", counted)
    tokens = ContextTokens(PrivateContext(path), word_tokenizer())
    one, two = compile_pattern("one", r"w\d\b"), compile_pattern("two", r"\d\d")
    first = tokens.withholding([two])
    again = tokens.withholding([two])
    assert (
        (first.withheld, first.version) == (again.withheld, again.version) == ((1,), first.version)
    )
    assert searched == ["two"]
    assert tokens.withholding([one]).withheld == (0,)
    path.write_text("w77 w8")
    assert tokens.withholding([one]).withheld == (1,)
    assert tokens.withholding([]).withheld == ()
    assert searched == ["two", "one", "one"]


@pytest.mark.parametrize("content", [b"secret \x81\xfe\x00", b"x" * ((16 << 20) + 1)])
def test_a_given_file_that_cannot_be_read_is_an_error_without_its_text(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(CannotReadError):
        PrivateContext(path).text()
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        check_context(path, None)
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_others_learn_of_a_lost_file_names_no_path(tmp_path: Path) -> None:
    tokens = ContextTokens(PrivateContext(tmp_path / "gone.txt"), word_tokenizer())
    with pytest.raises(ContextUnreadableError, match="its log names it") as caught:
        tokens.snapshot()
    assert "gone" not in str(caught.value)
    assert tokens.summary == ContextSummary.count(0, 0, [SkipReason.UNREADABLE])
