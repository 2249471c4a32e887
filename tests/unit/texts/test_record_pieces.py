"""JSON and JSON lines: records in words."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedattn.core.contexts import SkipReason
from fedattn.texts import opening
from fedattn.texts.pieces import SkippedError, cut_file
from tests.unit.texts.conftest import Cut


def test_elements_of_the_top_array_are_records(cut: Cut) -> None:
    (piece,) = cut("a.json", '[{"pump":"P1","at":{"hall":"A","row":2}},{"pump":"P2","at":null}]')
    assert piece.text == "pump: P1; at.hall: A; at.row: 2\npump: P2"
    assert piece.place == "records 1-2"
    assert (piece.start, piece.stop) == (0, 0)


def test_arrays_of_an_object_are_records_under_their_names(cut: Cut) -> None:
    pieces = cut(
        "a.json",
        '{"site":"Dock 4","data":{"readings":[{"bar":2.50},{"bar":3}]},"alarms":[{"high":true}]}',
    )
    assert [piece.text for piece in pieces] == [
        "site: Dock 4",
        "data > readings\nbar: 2.50\nbar: 3",
        "alarms\nhigh: true",
    ]
    assert [piece.place for piece in pieces] == ["record 1", "records 2-3", "record 4"]


def test_nested_arrays_are_listed_and_numbered(cut: Cut) -> None:
    (piece,) = cut("a.json", '[{"tags":["a","b"],"parts":[{"no":1},{"no":2}]}]')
    assert piece.text == "tags: a, b; parts.1.no: 1; parts.2.no: 2"


def test_a_record_has_the_time_that_it_says(cut: Cut) -> None:
    (piece,) = cut("a.json", '[{"Timestamp":"2026-11-28T15:48:17Z"},{"bar":2}]')
    assert piece.time_s == datetime(2026, 11, 28, 15, 48, 17, tzinfo=UTC).timestamp()


def test_json_lines_are_a_record_each_and_a_broken_one_stays_as_it_is(cut: Cut) -> None:
    (piece,) = cut("a.jsonl", '{"t":1795880897,"bar":2}\n{"bar":\n\n{"bar":3}\n')
    assert piece.text == 't: 1795880897; bar: 2\n{"bar":\nbar: 3'
    assert piece.place == "lines 1-4"
    assert piece.time_s == 1795880897


def test_json_lines_that_have_grown_are_read_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [f'{{"pump":"P{number}","bar":{number}}}\n' for number in range(30)]
    path.write_text("".join(lines[:15]) + lines[15][:9])
    before = list(cut_file(path, max_chars=100))
    path.write_text("".join(lines))
    start = before[-1].start
    kept = [piece for piece in before if piece.start < start]
    whole = list(cut_file(path, max_chars=100))
    assert kept + list(cut_file(path, max_chars=100, start=start)) == whole


def test_json_lines_in_a_json_file_are_read_as_such(cut: Cut) -> None:
    (piece,) = cut("a.json", '{"bar":2}\n{"bar":3}\n')
    assert piece.text == "bar: 2\nbar: 3"


@pytest.mark.parametrize("text", ['{"bar": 2,', "pump 3 stopped", "{'bar': 2}"])
def test_broken_json_is_read_as_text(cut: Cut, text: str) -> None:
    assert [piece.text for piece in cut("a.json", text)] == [text]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.log"])
@pytest.mark.parametrize(
    "nested", ["[" * 100_000, "[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900]
)
def test_deep_nesting_is_survived(cut: Cut, name: str, nested: str) -> None:
    assert all(piece.text for piece in cut(name, nested + "\nx"))


def test_keys_of_deep_nesting_stay_short(cut: Cut) -> None:
    nested = '{"a":' * 500 + "1" + "}" * 500
    assert [piece.text for piece in cut("a.json", f"[{nested}]")] == ["a.a.a.a.a.a: 1"]


def test_escapes_bring_in_no_nul_and_no_half_character(cut: Cut) -> None:
    (piece,) = cut("a.json", r'[{"a":"x\u0000y\ud800z"}]')
    assert piece.text == "a: xy\ufffdz"


def test_numbers_stay_as_they_are_written(cut: Cut) -> None:
    digits = "9" * 5000
    pieces = cut("a.json", f'[{{"a":1.10,"b":1e400,"c":NaN,"d":{digits}}}]')
    assert pieces[0].text.startswith("a: 1.10; b: 1e400; c: NaN; d:")


def test_a_json_file_too_large_for_the_memory_is_left_out(
    cut: Cut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "MAX_WHOLE_BYTES", 1000)
    with pytest.raises(SkippedError) as caught:
        cut("a.json", "[" + "1," * 1000 + "1]")
    assert caught.value.reason is SkipReason.TOO_LARGE
    assert "split" in caught.value.remedy
