"""Paragraphs of plain text: joined if short, cut at good places if long, nothing lost."""

import codecs
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedattn.texts.pieces import cut_file
from fedattn.texts.splitting import split
from tests.unit.texts.conftest import Cut

TEXTS = st.text(st.sampled_from("aB1ß港。、.!? \n\n\t:;,"), max_size=3000)


def visible(text: str) -> str:
    return "".join(text.split())


def test_short_paragraphs_share_a_piece_and_keep_their_blank_line(cut: Cut) -> None:
    (piece,) = cut("a.txt", "The pump runs.\n\n\nThe valve is closed.\n")
    assert piece.text == "The pump runs.\n\nThe valve is closed."
    assert piece.place == "lines 1-4"
    assert (piece.start, piece.stop, piece.time_s) == (0, 38, None)


def test_a_paragraph_that_does_not_fit_begins_a_piece(cut: Cut) -> None:
    pieces = cut("a.txt", f"{'x' * 80}.\n\n{'y' * 80}.\n", max_chars=100)
    assert [piece.place for piece in pieces] == ["line 1", "line 3"]
    assert [(piece.start, piece.stop) for piece in pieces] == [(0, 82), (83, 165)]


def test_a_heading_stays_with_the_paragraph_below_it(cut: Cut) -> None:
    text = f"{'x' * 90}.\n\nPump house\n\nThe pump runs.\n"
    assert cut("a.txt", text, max_chars=100)[1].text == "Pump house\nThe pump runs."


def test_a_long_paragraph_is_cut_behind_sentences(cut: Cut) -> None:
    text = "The pump runs at 2.5 bar. The valve is closed! Is the tank full? Nobody knows yet. " * 3
    pieces = cut("a.txt", text, max_chars=100)
    assert all(piece.text[-1] in ".!?" for piece in pieces)
    assert " ".join(piece.text for piece in pieces) == text.strip()
    assert {piece.start for piece in pieces} == {0}


def test_a_long_paragraph_begins_a_piece_so_that_reading_on_repeats_nothing(cut: Cut) -> None:
    text = f"Short.\n\nThis sentence would fit behind the short one. {'x' * 90}.\n"
    pieces = cut("a.txt", text, max_chars=100)
    assert [piece.start for piece in pieces] == [0, 8, 8]
    assert cut("a.txt", text, max_chars=100, start=8) == pieces[1:]


def test_japanese_without_spaces_is_cut_behind_sentences(cut: Cut) -> None:
    text = "オーロラ号は四番埠頭に停泊している。「クレーンは点検中。」船長は待っている。" * 6
    pieces = cut("a.txt", text, max_chars=100)
    assert all(piece.text[-1] in "。」" for piece in pieces)
    assert not any(piece.text.startswith("」") for piece in pieces)
    assert "".join(piece.text for piece in pieces) == text


def test_what_has_no_good_place_is_cut_anywhere() -> None:
    assert list(split("港" * 250, 100, 100)) == ["港" * 100, "港" * 100, "港" * 50]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS.filter(str.strip), st.integers(100, 400))
def test_no_character_is_lost_and_no_piece_is_too_long(
    tmp_path: Path, text: str, max_chars: int
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    pieces = list(cut_file(path, max_chars=max_chars))
    assert visible("".join(piece.text for piece in pieces)) == visible(text)
    assert all(0 < len(piece.text) <= max_chars for piece in pieces)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS.filter(str.strip))
def test_reading_on_from_any_piece_gives_what_follows(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    pieces = list(cut_file(path, max_chars=100))
    for start in {piece.start for piece in pieces}:
        kept = [piece for piece in pieces if piece.start < start]
        assert kept + list(cut_file(path, start=start, max_chars=100)) == pieces


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
        (b"", "cp932"),
    ],
)
def test_offsets_are_those_of_the_bytes_in_any_encoding(
    cut: Cut, mark: bytes, encoding: str
) -> None:
    one, other = "埠頭の記録、" * 14 + "。\r\n\n", "船長の記録、" * 14 + "。\n"
    data = mark + one.encode(encoding) + other.encode(encoding)
    pieces = cut("a.txt", data, max_chars=100, encoding="cp932")
    assert [piece.text for piece in pieces] == [one.strip(), other.strip()]
    assert pieces[1].start == len(mark + one.encode(encoding))
    assert pieces[1].stop == len(data)
    again = cut("a.txt", data, max_chars=100, encoding="cp932", start=pieces[1].start)
    assert again == pieces[1:]
