"""From bytes to characters, only where it is certain what is meant."""

import codecs
import re
from dataclasses import dataclass

from fedattn.core.contexts import SkipReason
from fedattn.texts.legacy import decode_legacy

_MARKS = (  # the longer ones first: the mark of UTF-16 begins that of UTF-32
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NOT_PLAIN = (b"%PDF-", b"{\\rtf", b"PK\x03\x04", b"\x1f\x8b")
"""How documents begin that may hold text, but are none."""
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Colours and titles for a terminal (ECMA-48), as logs have them."""
_LINE_ENDS = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_UNTIDY = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_MAX_CONTROLS = 0.1
"""Share of control characters above which it is no text."""
_MIN_NUL, _MIN_LOW_PAGES, _LAST_LOW_PAGE = 0.1, 0.9, 0x20


@dataclass(frozen=True, slots=True)
class Reading:
    """Characters, and the encoding that makes them, as a codec of Python without a mark."""

    encoding: str
    text: str


def decode(data: bytes, fallback: str | None = None) -> str | SkipReason:
    """The text of a file, or why it is not certain to be one.

    A byte order mark decides and is left out; else UTF-8; else UTF-16 without a mark, which shows
    by its NUL bytes; else `fallback` if there is one, or an older encoding that leaves no doubt.
    Line ends become newlines. Escape sequences for terminals and other control characters, tabs
    aside, are left out. NUL never gets in.

    Args:
        data: the whole file, not empty.
        fallback: encoding of files that are neither UTF-8 nor UTF-16, as a codec of Python.
    """
    reading = read_certain(data, fallback)
    return reading if isinstance(reading, SkipReason) else reading.text


def read_certain(
    data: bytes, fallback: str | None = None, *, is_whole: bool = True
) -> Reading | SkipReason:
    """As `decode`, with the encoding; data that is not whole may end within a character."""
    if data.startswith(_NOT_PLAIN):
        return SkipReason.UNKNOWN_KIND
    reading = _decode(data, fallback, is_whole)
    if isinstance(reading, SkipReason):
        return reading
    text = _clean(reading.text)
    return text if isinstance(text, SkipReason) else Reading(reading.encoding, text)


def tidy(text: str) -> str:
    """Text with newlines as line ends, without marks, escape sequences and control characters.

    Half surrogate pairs, which no encoding can write, become the replacement character.
    """
    if not _UNTIDY.search(text):  # most lines, by far
        return text
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", _plain(text)))


def _decode(data: bytes, fallback: str | None, is_whole: bool) -> Reading | SkipReason:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strictly(data, encoding, is_whole)
    if b"\0" in data:
        return _decode_utf16(data, is_whole)
    text = _decode_utf8(data)
    if text is not None:
        return Reading("utf-8", text)
    if fallback is not None:
        return _strictly(data, fallback, is_whole)
    legacy = decode_legacy(data)
    return Reading(*legacy) if legacy else SkipReason.UNDECODABLE


def _strictly(data: bytes, encoding: str, is_whole: bool) -> Reading | SkipReason:
    try:
        data[:64].decode(encoding, "replace")  # raises for a codec that makes no text
        text = codecs.getincrementaldecoder(encoding)("strict").decode(data, is_whole)
    except (UnicodeError, LookupError):  # the latter: a codec that makes no text
        return SkipReason.UNDECODABLE
    return Reading(encoding, text)


def _decode_utf8(data: bytes) -> str | None:
    """UTF-8; a character cut at either end, as in a log that is cut or still written, is left out.

    What was cut is known to be UTF-8 by other characters beyond ASCII.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        begin = next((i for i, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 4)
    try:
        text, _ = codecs.utf_8_decode(data[begin:], "strict", False)
    except UnicodeDecodeError:
        return None
    return None if text.isascii() else text


def _decode_utf16(data: bytes, is_whole: bool) -> Reading | SkipReason:
    """UTF-16 without a mark, in scripts whose high bytes are small; anything else is no text."""
    for low, high, encoding in ((0, 1, "utf-16-le"), (1, 0, "utf-16-be")):
        highs, num_units = data[high::2], len(data) // 2
        num_low_pages = sum(highs.count(page) for page in range(_LAST_LOW_PAGE + 1))
        if (
            len(data) % 2 == 0
            and 0 not in data[low::2]
            and highs.count(0) >= _MIN_NUL * num_units
            and num_low_pages >= _MIN_LOW_PAGES * num_units
        ):
            reading = _strictly(data, encoding, is_whole)
            return SkipReason.BINARY if isinstance(reading, SkipReason) else reading
    return SkipReason.BINARY


def _clean(text: str) -> str | SkipReason:
    if "\0" in text:
        return SkipReason.BINARY
    plain = _plain(text)
    cleaned, num_controls = _CONTROLS.subn("", plain)
    return SkipReason.BINARY if num_controls > _MAX_CONTROLS * len(plain) else cleaned


def _plain(text: str) -> str:
    return _LINE_ENDS.sub("\n", _TERMINAL.sub("", text.replace("\ufeff", "")))
