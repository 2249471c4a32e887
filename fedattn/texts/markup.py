"""The text that a reader of an HTML page sees."""

import codecs
import re
from collections.abc import Mapping

from lxml import etree

UNSEEN = {"script", "style", "template", "noscript", "svg", "math"}
BLOCKS = {
    *("address", "article", "aside", "blockquote", "br", "caption", "dd", "div", "dl", "dt"),
    *("figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header"),
    *(
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "option",
        "p",
        "pre",
        "section",
        "table",
        "title",
        "tr",
        "ul",
    ),
}
CELLS = {"td", "th"}
SPACES = re.compile(r"\s+")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_LOOKED_AT = 1024
"""Bytes in which a page must say its encoding (WHATWG HTML)."""
_AS_BROWSERS = {"iso8859-1": "cp1252", "ascii": "cp1252", "utf-8": None}
"""What pages mean by these names (WHATWG Encoding Standard); UTF-8 was tried before."""


def declared_encoding(data: bytes) -> str | None:
    """The older encoding that a page says it has, if Python knows it."""
    found = _CHARSET.search(data[:_LOOKED_AT])
    try:
        name = codecs.lookup(found[1].decode()).name if found else None
    except LookupError:
        return None
    return _AS_BROWSERS.get(name, name) if name else None


def text_of(page: str) -> str:
    """Lines of a page, one a block or table row, cells apart by tabs; no scripts, no styles."""
    reader = _Reader()
    parser = etree.HTMLParser(target=reader, huge_tree=True)
    parser.feed(page)
    parser.close()
    lines = (line.strip() for line in "".join(reader.parts).splitlines())
    return "\n".join(line for line in lines if line)


class _Reader:
    """Takes a parser's events: no tree is built, so time and memory are linear in the page."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._num_unseen = 0  # open elements whose text nobody sees
        self._num_pre = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:  # noqa: ARG002 - lxml's
        self._num_unseen += tag in UNSEEN
        self._num_pre += tag == "pre"
        if tag in BLOCKS:
            self.parts.append("\n")

    def end(self, tag: str) -> None:
        self._num_unseen -= tag in UNSEEN
        self._num_pre -= tag == "pre"
        if tag in BLOCKS:
            self.parts.append("\n")
        elif tag in CELLS:
            self.parts.append("\t")

    def data(self, text: str) -> None:
        if not self._num_unseen:
            self.parts.append(text if self._num_pre else SPACES.sub(" ", text))

    def close(self) -> None:
        pass
