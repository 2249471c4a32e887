"""PDF and Word: by pages, and by headings; hostile ones cost themselves alone."""

import io
import zipfile
from contextlib import suppress
from pathlib import Path

import docx
import pytest
from pypdf import PdfWriter

from fedattn.core.contexts import SkipReason
from fedattn.texts import documents, pdf, word
from fedattn.texts.pieces import SkippedError, cut_file
from tests.harness.pdfs import make_pdf, saved
from tests.unit.texts.conftest import Cut


def reason(cut: Cut, name: str, data: bytes) -> SkipReason:
    with pytest.raises(SkippedError) as caught:
        cut(name, data)
    return caught.value.reason


def test_a_pdf_is_cut_by_pages(cut: Cut) -> None:
    pieces = cut("a.PDF", make_pdf("The pump runs.", "", "The tank is full."))
    assert [(piece.text, piece.place) for piece in pieces] == [
        ("The pump runs.", "page 1"),
        ("The tank is full.", "page 3"),
    ]


def test_a_pdf_of_pictures_is_blank(cut: Cut) -> None:
    assert reason(cut, "a.pdf", make_pdf("", "")) is SkipReason.BLANK


@pytest.mark.parametrize("size", [9, 200, 400, 600, 700])
def test_a_damaged_pdf_is_unreadable_or_partly_read(cut: Cut, size: int) -> None:
    data = make_pdf("The pump runs.")
    with suppress(SkippedError):  # and no other error
        assert cut("a.pdf", data[:size] + b"\0garbage" * 50)[0].text == "The pump runs."


def test_a_pdf_with_a_password_is_unreadable(cut: Cut) -> None:
    writer = PdfWriter(clone_from=io.BytesIO(make_pdf("The pump runs.")))
    writer.encrypt("secret", algorithm="RC4-128")
    assert reason(cut, "a.pdf", saved(writer)) is SkipReason.UNREADABLE


def test_a_pdf_of_too_many_pages_is_left_out(cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "MAX_PAGES", 2)
    assert reason(cut, "a.pdf", make_pdf("1", "2", "3")) is SkipReason.TOO_LARGE


def make_docx() -> bytes:
    document = docx.Document()
    document.add_paragraph("Before.")
    document.add_heading("Pump house", 1)
    document.add_heading("Alarms", 2)
    document.add_paragraph("They are set.")
    table = document.add_table(2, 3)
    for row, cells in zip(
        table.rows, (("Alarm", "Limit", "Unit"), ("High", "5", "bar")), strict=True
    ):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    pairs = document.add_table(1, 2)
    pairs.rows[0].cells[0].text, pairs.rows[0].cells[1].text = "Owner", "Port"
    document.add_heading("Last", 1)
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def test_a_word_document_stands_under_its_headings(cut: Cut) -> None:
    pieces = cut("a.docx", make_docx())
    assert [piece.text for piece in pieces] == [
        "Before.",
        "Pump house > Alarms\nThey are set.",
        "Pump house > Alarms\nAlarm: High; Limit: 5; Unit: bar",
        "Pump house > Alarms\nOwner: Port",
        "Last",
    ]
    assert pieces[1].place == "paragraph 4"


def archive(suffix: str = ".xml", **parts: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in parts.items():
            file.writestr(name.replace("__", "/") + suffix, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04garbage", b"text", archive(word__document=b"<x/>"), make_docx()[:5000]],
)
def test_what_is_no_word_document_is_unreadable(cut: Cut, data: bytes) -> None:
    assert reason(cut, "a.docx", data) is SkipReason.UNREADABLE


def test_an_archive_that_would_fill_the_memory_is_not_unpacked(
    cut: Cut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docx, "Document", lambda _: pytest.fail("it was unpacked"))
    bomb = archive(word__document=bytes(word.MAX_PART_BYTES + 1))
    assert len(bomb) < 100_000
    assert reason(cut, "a.docx", bomb) is SkipReason.TOO_LARGE


def test_a_part_that_does_not_look_like_xml_is_held_to_the_same_size(cut: Cut) -> None:
    assert word.MAX_PART_BYTES < word.MAX_INFLATED_BYTES
    bomb = archive(word__picture=bytes(word.MAX_PART_BYTES + 1), suffix=".png")
    assert reason(cut, "a.docx", bomb) is SkipReason.TOO_LARGE


@pytest.mark.parametrize("name", ["a.pdf", "a.docx"])
def test_an_empty_or_too_large_document_is_left_out(
    cut: Cut, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reason(cut, name, b"") is SkipReason.EMPTY
    monkeypatch.setattr(documents, "MAX_BYTES", 10)
    assert reason(cut, name, b"x" * 11) is SkipReason.TOO_LARGE


@pytest.mark.parametrize("name", ["a.pdf", "a.docx"])
def test_without_its_library_a_document_names_the_extra(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "find_spec", lambda _: None)
    with pytest.raises(SkippedError) as caught:
        next(cut_file(tmp_path / name))
    assert caught.value.reason is SkipReason.UNKNOWN_KIND
    assert "fedattn[documents]" in caught.value.remedy
