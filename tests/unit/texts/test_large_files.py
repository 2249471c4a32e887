"""Files of any size and kind of damage: bounded memory, and one bad byte costs itself alone."""

import gzip
import io
from pathlib import Path

import pytest

from fedattn.core.contexts import SkipReason
from fedattn.texts import inflating, opening
from fedattn.texts.lines import MAX_LINE_BYTES, Lines
from fedattn.texts.pieces import Piece, SkippedError, cut_file
from tests.unit.texts.conftest import Cut

LINE = "2026-11-28T15:48:17Z der Kessel läuft\n"


class Counted(io.BytesIO):
    """Counts what is read."""

    num_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.num_bytes += len(data)
        return data


def test_lines_are_read_a_block_ahead_at_most() -> None:
    file = Counted(LINE.encode() * 100_000)
    for line in Lines(file, "utf-8"):
        assert file.num_bytes - line.stop <= 1 << 17


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "cp1252", "gb18030"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_numbered_from_any_offset(encoding: str, end: str) -> None:
    if end == "\r" and encoding.startswith("utf-16"):
        pytest.skip("there a line ends with a newline")
    data = "".join(f"{number} Kühler{end}" for number in range(20_000)).encode(encoding)
    lines = list(Lines(io.BytesIO(data), encoding))
    assert [line.text for line in lines[:2]] == ["0 Kühler", "1 Kühler"]
    assert len(lines) == 20_000
    assert lines[-1].stop == len(data)
    for index in (1, 4096, 19_999):
        assert list(Lines(io.BytesIO(data), encoding, start=lines[index].start)) == lines[index:]


@pytest.mark.parametrize("unit", ["港", "x", "pump "])
def test_a_very_long_line_is_read_in_parts(cut: Cut, unit: str) -> None:
    text = unit * ((10 << 20) // len(unit.encode()))
    file = Counted(text.encode())
    read_ahead = max(file.num_bytes - line.stop for line in Lines(file, "utf-8"))
    assert read_ahead <= 2 * MAX_LINE_BYTES
    pieces = cut("a.txt", text[: 1 << 20])
    assert "".join("".join(piece.text.split()) for piece in pieces) == text[: 1 << 20].replace(
        " ", ""
    )


@pytest.mark.parametrize("bad", [b"\xff", bytes(100)])
def test_a_bad_byte_in_a_log_costs_itself_alone(cut: Cut, bad: bytes) -> None:
    lines = LINE.encode() * 80
    text = "".join(
        piece.text + "\n" for piece in cut("a.log", lines + b"pu" + bad + b"mp\n" + lines)
    )
    assert text.replace("pu\ufffdmp\n", "").replace("pump\n", "") == LINE * 160


def test_a_log_in_another_encoding_is_left_out(cut: Cut) -> None:
    with pytest.raises(SkippedError) as caught:
        cut("a.log", b"2026-11-28 caf\xe0\n" * 1000)
    assert caught.value.reason is SkipReason.UNDECODABLE


def test_of_a_large_file_the_head_decides(cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_WHOLE_BYTES", 300_000)
    text = ("Der Kessel läuft. " * 20 + "\n\n") * 1000
    pieces = cut("a.txt", text.encode() + b"\xff\n\n" + text.encode())
    assert "".join("".join(piece.text.split()) for piece in pieces).replace(
        "\ufffd", ""
    ) == "".join((text * 2).split())
    with pytest.raises(SkippedError) as caught:
        cut("b.txt", b"caf\xe0 \n" * 100_000)
    assert caught.value.reason is SkipReason.UNDECODABLE


def test_a_line_of_a_large_file_is_read_in_the_encoding_that_is_named(
    cut: Cut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "MAX_WHOLE_BYTES", 300_000)
    data = b"2026-11-28 pump\n" * 30_000 + "2026-11-28 à la carte\n".encode("cp1252")
    assert cut("a.log", data, encoding="cp1252")[-1].text.endswith("à la carte")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"", SkipReason.EMPTY),
        ("a.log", b" \n\t\n", SkipReason.BLANK),
        ("a.md", bytes(range(256)), SkipReason.BINARY),
        ("a.csv", b"caf\xe0", SkipReason.UNDECODABLE),
        ("a.txt", b"%PDF-1.7", SkipReason.UNKNOWN_KIND),
        ("a.log", b"\x1f\x8b\x08", SkipReason.UNKNOWN_KIND),
    ],
)
def test_what_cannot_be_read_has_its_reason(
    cut: Cut, name: str, data: bytes, reason: SkipReason
) -> None:
    with pytest.raises(SkippedError) as caught:
        cut(name, data)
    assert caught.value.reason is reason


def test_what_is_not_there_is_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.txt", tmp_path / "gone.html", tmp_path / "gone.pdf"):
        with pytest.raises(SkippedError) as caught:
            next(cut_file(path))
        assert caught.value.reason is SkipReason.UNREADABLE


def test_a_packed_log_stops_where_it_becomes_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflating, "MAX_BYTES", 500_000)
    monkeypatch.setattr(opening, "MAX_WHOLE_BYTES", 300_000)
    path = tmp_path / "a.log.gz"
    path.write_bytes(gzip.compress(LINE.encode() * 100_000))
    pieces: list[Piece] = []
    with pytest.raises(SkippedError) as caught:
        pieces.extend(cut_file(path))
    assert caught.value.reason is SkipReason.TOO_LARGE
    assert sum(len(piece.text) for piece in pieces) > 300_000


def test_reading_on_behind_the_end_gives_nothing(cut: Cut) -> None:
    assert cut("a.log", LINE, start=1000) == []
