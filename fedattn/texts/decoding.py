"""From bytes to characters, only where it is certain what is meant."""

import codecs
import re

from fedattn.core.contexts import SkipReason
from fedattn.texts.legacy import decode_legacy

_MARKS = (  # the longer ones first: the mark of UTF-16 begins that of UTF-32
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_PLAIN = (b"%PDF-", b"{\\rtf", b"PK\x03\x04", b"\x1f\x8b")
"""How documents begin that may hold text, but are none."""
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Colours and titles for a terminal (ECMA-48), as logs have them."""
_LINE_ENDS = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_MAX_CONTROLS = 0.1
"""Share of control characters above which it is no text."""
_MIN_NUL, _MIN_LOW_PAGES, _LAST_LOW_PAGE = 0.1, 0.9, 0x20


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
    if data.startswith(_NOT_PLAIN):
        return SkipReason.UNKNOWN_KIND
    text = _decode(data, fallback)
    return text if isinstance(text, SkipReason) else _clean(text)


def _decode(data: bytes, fallback: str | None) -> str | SkipReason:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strictly(data, encoding)
    if b"\0" in data:
        return _decode_utf16(data)
    text = _decode_utf8(data)
    if text is None and fallback is not None:
        return _strictly(data, fallback)
    if text is None:
        text = decode_legacy(data)
    return SkipReason.UNDECODABLE if text is None else text


def _strictly(data: bytes, encoding: str) -> str | SkipReason:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError):  # the latter: a codec that makes no text
        return SkipReason.UNDECODABLE


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


def _decode_utf16(data: bytes) -> str | SkipReason:
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
            text = _strictly(data, encoding)
            return SkipReason.BINARY if isinstance(text, SkipReason) else text
    return SkipReason.BINARY


def _clean(text: str) -> str | SkipReason:
    if "\0" in text:
        return SkipReason.BINARY
    plain = _LINE_ENDS.sub("\n", _TERMINAL.sub("", text.replace("\ufeff", "")))
    cleaned, num_controls = _CONTROLS.subn("", plain)
    return SkipReason.BINARY if num_controls > _MAX_CONTROLS * len(plain) else cleaned
