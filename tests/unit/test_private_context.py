"""The private context: what takes part of it, and what others learn of the rest."""

import os
from pathlib import Path

import pytest

from fedattn.core.contexts import ContextSummary, SkipReason
from fedattn.core.errors import ConfigurationError, ContextUnreadableError
from fedattn.passages.choice import Standing, Wish
from fedattn.passages.passage import StoreCounts
from fedattn.passages.store import PassageStore
from fedattn.texts.checking import check_context
from services.participant.context import OnChange, PrivateContext
from services.participant.withheld import compile_pattern
from tests.harness.tiny import word_tokenizer

ALL = Wish()


def context_of(path: Path | None, on_change: OnChange = lambda *_: None) -> PrivateContext:
    return PrivateContext(PassageStore(path, None), word_tokenizer(), on_change)


def paragraphs(*texts: str) -> str:
    """Texts that are too long to share a passage, of 51 tokens each."""
    return "\n\n".join(f"{text} " + "w1 " * 50 for text in texts)


def numbers_of(context: PrivateContext, wish: Wish) -> list[str]:
    """First words of what takes part."""
    return [passage.text.split()[0] for passage in context.choose(wish).passages]


def test_folder_joins_its_texts_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("w6\n")
    (tmp_path / "a.txt").write_text("w5\n")
    assert context_of(tmp_path).choose(ALL).token_ids == [5, 6]


def test_changes_are_seen(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    for text, tokens in (("w5", [5]), ("w6 w7", [6, 7])):
        (tmp_path / "a.txt").write_text(text)
        assert context.choose(ALL).token_ids == tokens
    (tmp_path / "a.txt").unlink()
    assert context.choose(ALL).token_ids == []


def test_a_store_built_anew_repeats_numbers_and_no_tokens(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("w5")
    context = context_of(path)
    before = context.choose(ALL)
    path.write_text("w6")
    context.store._database.rebuild("as if broken")
    after = context.choose(ALL)
    assert after.token_ids == [6]
    assert after.spans == before.spans


def test_a_change_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("w4")
    os.utime(path, ns=(1, 1))
    context = context_of(path)
    before = context.choose(ALL)
    path.write_text("w7")
    os.utime(path, ns=(1, 1))
    assert context.choose(ALL).token_ids == [7]
    assert context.choose(ALL).version != before.version


def test_no_path_is_an_empty_context_that_nobody_gave() -> None:
    context = context_of(None)
    assert context.choose(ALL).token_ids == []
    assert not context.summary.is_given


def test_the_version_follows_what_takes_part_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("w5 w6")
    context = context_of(tmp_path)
    first = context.choose(ALL)
    (tmp_path / "b.bin").write_bytes(b"\0")  # left out: the text is the same
    assert context.choose(ALL).version == first.version
    path.write_text("w7 w8 w9")
    assert context.choose(ALL).version != first.version
    path.write_text("w5 w6")
    assert context.choose(ALL).version == first.version
    assert context_of(tmp_path).choose(ALL).version != first.version  # of another process


def test_what_fits_the_words_takes_part_in_the_order_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(paragraphs("w10", "w20", "w30", "w40"))
    context = context_of(tmp_path)
    chosen = context.choose(Wish(words="w40 w20", max_tokens=110))
    assert [passage.text.split()[0] for passage in chosen.passages] == ["w20", "w40"]
    assert [span.num_tokens for span in chosen.spans] == [51, 51]
    assert [span.number for span in chosen.spans] == [one.number for one in chosen.passages]
    assert sum(span.num_tokens for span in chosen.spans) == len(chosen.token_ids)
    assert chosen.summary.num_passages == 4
    assert chosen.summary.num_tokens == 4 * 51


def test_nothing_takes_part_where_nothing_fits(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(paragraphs("w10", "w20"))
    assert context_of(tmp_path).choose(Wish(words="w99", max_tokens=110)).token_ids == []


def test_a_short_text_takes_part_whatever_is_asked(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("w10 w11")
    context = context_of(tmp_path)
    assert context.choose(Wish(words="w99", whole_below=2)).token_ids == [10, 11]
    assert context.choose(Wish(words="w99", whole_below=1)).token_ids == []


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (Standing(order="first"), ["w10", "w20"]),
        (Standing(order="newest"), ["w30", "w40"]),
        (Standing(order="first", topic="w30"), ["w10", "w30"]),
    ],
)
def test_the_owner_says_what_takes_part_where_nothing_is_known(
    tmp_path: Path, standing: Standing, expected: list[str]
) -> None:
    for number, name in enumerate(["w10", "w20", "w30", "w40"]):
        (tmp_path / f"{name}.txt").write_text(paragraphs(name))
        os.utime(tmp_path / f"{name}.txt", (number, number))
    wish = Wish(max_tokens=110, standing=standing)
    assert numbers_of(context_of(tmp_path), wish) == expected


def test_a_passage_that_is_too_long_alone_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(paragraphs("w10", "w20"))
    chosen = context_of(tmp_path).choose(Wish(words="w20", max_tokens=5))
    assert chosen.token_ids == [20, 1, 1, 1, 1]
    assert [span.num_tokens for span in chosen.spans] == [5]


def test_a_change_of_the_same_counts_is_told(tmp_path: Path) -> None:
    told: list[StoreCounts] = []
    context = context_of(tmp_path / "a.txt", lambda counts, _: told.append(counts))
    for text in ("w4", "w7", "w7"):
        (tmp_path / "a.txt").write_text(text)
        context.refresh()
    assert [(one.num_passages, one.num_chars) for one in told] == [(1, 2)] * 2


def test_what_is_left_out_is_told_at_each_change_and_counted(tmp_path: Path) -> None:
    told: list[StoreCounts] = []
    (tmp_path / "a.txt").write_text("w5")
    (tmp_path / "b.exe").write_bytes(b"MZ")
    (tmp_path / "c.txt").write_text(" \n")
    context = context_of(tmp_path, lambda counts, _summary: told.append(counts))
    for _ in range(2):
        context.choose(ALL)
    assert [[(s.name, s.reason) for s in counts.skipped] for counts in told] == [
        [("b.exe", SkipReason.UNKNOWN_KIND), ("c.txt", SkipReason.BLANK)]
    ]
    reasons = [SkipReason.UNKNOWN_KIND, SkipReason.BLANK]
    assert context.summary == ContextSummary.count(1, 1, 1, reasons)


def test_tokens_that_patterns_touch_are_withheld_wherever_they_come_to_stand(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.txt").write_text("w5 w66")
    (tmp_path / "b.txt").write_text("w77 w8")
    context = context_of(tmp_path)
    two = compile_pattern("two", r"\d\d")
    chosen = context.choose(ALL, [two])
    assert (chosen.token_ids, chosen.withheld) == ([5, 66, 77, 8], (1, 2))
    assert context.choose(ALL, [two]).version == chosen.version
    assert context.choose(ALL).version != chosen.version
    assert context.choose(ALL, [compile_pattern("one", r"w\d\b")]).withheld == (0, 3)


def test_a_given_file_that_cannot_be_read_is_an_error_without_its_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"secret \x81\xfe\x00")
    with pytest.raises(ContextUnreadableError):
        context_of(path).choose(ALL)
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        check_context(path, None)
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_others_learn_of_a_lost_file_names_no_path(tmp_path: Path) -> None:
    context = context_of(tmp_path / "gone.txt")
    with pytest.raises(ContextUnreadableError, match="its log names it") as caught:
        context.choose(ALL)
    assert "gone" not in str(caught.value)
    assert context.summary == ContextSummary.count(0, 0, 0, [SkipReason.UNREADABLE])
