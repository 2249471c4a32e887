"""Every format of private texts: files that came by mail or from a site, as well as one's own."""

import gzip
import io
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import docx

from fedattn.texts.kinds import KINDS
from fedattn.texts.opening import MAX_WHOLE_BYTES
from fedattn.texts.pieces import SkippedError, cut_file
from tests.fuzz.parser import Parser
from tests.harness.pdfs import make_pdf

_PROSE = "Pump 7 runs hot. It was oiled on 3 May.\n\nTank 2 is full; “see” row 9.\n" * 3
_LOG = (
    "2026-11-28T07:00:00Z ERROR pump 7: 91.5 C\n  at valve 3\n2026-11-28 07:01:02,5 INFO cooler\n"
    * 4
)
_TABLE = 'name;value;note\npump;7;"hot; ""very"""\ntank;2;full\n' * 5
_JSON = (
    '{"plant": {"pumps": [{"id": 7, "t": 91.5, "note": null}, {"id": 8, "ok": true}]}, "a": [1]}'
)
_YAML = "pump:\n  id: 7\n  # hot\n  notes:\n  - oiled\n- tank: 2\nkey: |\n  text\n"
_MARKDOWN = (
    "# Pumps\n\ntext\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- one\n  - two\n\n"
    "```\ncode\n```\n## Tanks\nend\n"
)
_PAGE = (
    "<html><head><meta charset=utf-8><title>t</title></head><body><h1>Pumps</h1><p>hot &amp; &#xe9;"
    "<table><tr><th>a<th>b<th>c<tr><td>1<td>2<td>3</table><ul><li>x<li>y</ul><pre>a\n b</pre>"
)
_SEEDS: dict[str, tuple[str, ...]] = {
    ".txt": (_PROSE,),
    ".md": (_MARKDOWN, _PROSE),
    ".log": (_LOG, _JSON + "\n" + _JSON),
    ".csv": (_TABLE, _TABLE.replace(";", ",")),
    ".tsv": (_TABLE.replace(";", "\t"),),
    ".json": (_JSON,),
    ".jsonl": (f"{_JSON}\n{_JSON}\n",),
    ".yaml": (_YAML,),
    ".html": (_PAGE,),
}
_WORDS = (
    *(b"<table>", b"<td>", b"</td>", b"<script>", b"<!--", b"<![CDATA[", b"&#xD800;", b"&#0;"),
    *(b"[", b"]", b"{", b'{"a":', b'"', b",", b";", b"\t", b"# ", b"> ", b"```", b"| a | b |\n"),
    *(b"2026-13-45T99:99:99+99:99 ", b"- ", b"\x1b[31m", b"<?xml version='1.0'?>"),
    *(b"<meta charset=utf-7>", b"<meta charset=idna>", b"<meta charset=rot13>"),
    *(
        b"obj",
        b"endobj",
        b"stream\n",
        b"/Kids [1 0 R]",
        b"/Length 99999999",
        b"/FlateDecode",
        b"1 0 R",
    ),
)
_SLACK_BYTES = MAX_WHOLE_BYTES + (2 << 20)
"""The buffer that a file of unknown size is read into comes first."""


@cache
def text_parsers() -> tuple[Parser, ...]:
    """One for each kind of file, and one for packed logs."""
    formats = tuple(
        _parser(suffix, tuple(seed.encode() for seed in seeds)) for suffix, seeds in _SEEDS.items()
    )
    return (
        *formats,
        _parser(".txt", (_PROSE.encode("utf-16"), _LOG.encode("utf-16-be")), name="UTF-16"),
        _parser(".log.gz", (gzip.compress(_LOG.encode()), gzip.compress(_JSON.encode()))),
        _parser(".pdf", (make_pdf("The pump runs.", "", "Full."),), bytes_a_byte=512),
        _parser(".docx", (_docx(),), bytes_a_byte=512),
        Parser(
            name="parts of .docx",
            read=lambda data: _cut(".docx", _with_body(data)),
            seeds=(_part(_docx(), "word/document.xml"),),
            words=(b"<w:tbl>", b"<w:tr>", b"<w:tc>", b"<w:p>", b"<w:t>", b"&lol;", *_WORDS),
            refusals=(SkippedError,),
            bytes_a_byte=512,
            slack_bytes=_SLACK_BYTES,
        ),
    )


def uncovered() -> set[str]:
    """Suffixes of files that are read, and have no parser here."""
    return set(KINDS) - set(_SEEDS) - {".pdf", ".docx", ".htm", ".yml"}


def _parser(
    suffix: str, seeds: tuple[bytes, ...], name: str = "", bytes_a_byte: int = 64
) -> Parser:
    return Parser(
        name=name or suffix,
        read=lambda data: _cut(suffix, data),
        seeds=seeds,
        words=_WORDS,
        refusals=(SkippedError,),
        bytes_a_byte=bytes_a_byte,
        slack_bytes=_SLACK_BYTES,
    )


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fedattn-fuzz-")


def _cut(suffix: str, data: bytes) -> None:
    """As the index of passages: every piece must be one that SQLite can hold."""
    path = Path(_folder().name) / f"a{suffix}"
    path.write_bytes(data)
    for piece in cut_file(path):
        piece.text.encode()
        piece.place.encode()


def _docx() -> bytes:
    document = docx.Document()
    document.add_heading("Pumps", level=1)
    document.add_paragraph("The pump runs hot.")
    table = document.add_table(rows=2, cols=3)
    for number, cell in enumerate(cell for row in table.rows for cell in row.cells):
        cell.text = f"cell {number}"
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def _part(document: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(document)) as archive:
        return archive.read(name)


def _with_body(body: bytes) -> bytes:
    """A document whose archive is whole, and whose body is this."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(_document())) as old,
        zipfile.ZipFile(buffer, "w") as new,
    ):
        for entry in old.infolist():
            data = body if entry.filename == "word/document.xml" else old.read(entry)
            new.writestr(entry.filename, data)
    return buffer.getvalue()


_document = cache(_docx)
