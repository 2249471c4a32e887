"""Rows of CSV and TSV with the names of their columns."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedattn.texts.pieces import cut_file
from fedattn.texts.separated import find_separator
from tests.unit.texts.conftest import Cut


def test_a_german_table_with_semicolons_and_decimal_commas(cut: Cut) -> None:
    (piece,) = cut("a.csv", "Pumpe;Druck;Ort\r\nP1;2,5;Halle\r\nP2;;\r\n")
    assert piece.text == "Pumpe: P1; Druck: 2,5; Ort: Halle\nPumpe: P2"
    assert piece.place == "lines 2-3"


def test_a_quoted_cell_may_have_newlines_and_separators(cut: Cut) -> None:
    (piece,) = cut("a.csv", 'name,note\nP1,"one, two\nthree"\nP2,four\n')
    assert piece.text == "name: P1; note: one, two three\nname: P2; note: four"
    assert piece.place == "lines 2-4"


@pytest.mark.parametrize(
    "text", ["1,2.5\n3,4.5\n", "P1,2026-11-28,7\nP2,2026-11-29,8\n", "a,a\nb,c\n"]
)
def test_a_first_row_that_names_nothing_is_a_row(cut: Cut, text: str) -> None:
    (piece,) = cut("a.csv", text)
    assert piece.text == text.strip().replace(",", "; ")


def test_years_may_name_columns(cut: Cut) -> None:
    (piece,) = cut("a.csv", "Region,2025,2026\nNord,5,6\n")
    assert piece.text == "Region: Nord; 2025: 5; 2026: 6"


@pytest.mark.parametrize(
    ("head", "separator"),
    [
        (["a,b", "1,2"], ","),
        (["a;b", "1,5;2,5"], ";"),
        (["a\tb", "x, y\tz"], "\t"),
        (["a|b", "1|2"], "|"),
        (["sep=;", "a,b", "c,d"], ";"),
    ],
)
def test_the_separator_is_the_one_of_even_rows(head: list[str], separator: str) -> None:
    assert find_separator(head) == separator


def test_a_table_of_names_alone_is_kept(cut: Cut) -> None:
    assert [piece.text for piece in cut("a.csv", "pump,bar\n")] == ["pump; bar"]


def test_a_row_has_the_time_of_its_first_time_stamp(cut: Cut) -> None:
    (piece,) = cut("a.csv", "id,at,bar\n1795880897,2026-11-28T15:48:17Z,2\n")
    assert piece.time_s == datetime(2026, 11, 28, 15, 48, 17, tzinfo=UTC).timestamp()


def test_each_part_of_a_long_row_says_which_row_it_is(cut: Cut) -> None:
    parts = cut("a.csv", f"pump,note\nP1,{'It runs well. ' * 20}\n", max_chars=100)
    assert len(parts) > 2
    assert all(part.text.startswith("pump: P1") for part in parts)


def test_a_grown_table_reads_its_names_again(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"P{number},{number}.5\n" for number in range(40)]
    path.write_text("pump,bar\n" + "".join(rows[:20]))
    before = list(cut_file(path, max_chars=100))
    path.write_text("pump,bar\n" + "".join(rows))
    start = before[-1].start
    kept = [piece for piece in before if piece.start < start]
    assert kept + list(cut_file(path, max_chars=100, start=start)) == list(
        cut_file(path, max_chars=100)
    )


def test_a_quote_that_is_never_closed_costs_no_rows(cut: Cut) -> None:
    rows = "".join(f"P{number},{number}\n" for number in range(20_000))
    pieces = cut("a.csv", 'pump,bar\n"P,1\n' + rows)
    text = "\n".join(piece.text for piece in pieces)
    assert all(f"pump: P{number}; bar: {number}" in text for number in (0, 77, 19_999))
