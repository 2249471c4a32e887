"""What elements of HTML pages mean for their text, and the encoding that a page says it has."""

import codecs
import re

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
