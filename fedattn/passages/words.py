"""The words that a text is found by, the same for a passage and for a question.

Case, accents and width do not matter. Words are runs of letters, digits and marks. Scripts without
spaces between words give their single characters and every pair of neighbours instead. ASCII, which
most logs are, goes to SQLite as it is: its tokenizer finds the same words, and faster.
"""

import re
import unicodedata
from functools import lru_cache

import regex

TOKENIZER = "unicode61 remove_diacritics 0 categories 'L* N* Co Mn Mc'"
"""Of FTS5: splits the same way, and folds nothing but case."""

_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
    r"\u30fc\u3005"  # the mark of a long vowel, and the one of repetition
)
_BEYOND_ASCII = re.compile("[^\x00-\x7f]+")
_WORD = re.compile("[0-9a-z\x80-\U0010ffff]+")
_UNSPACED_RUN = regex.compile(rf"[{_UNSPACED}]+")
_NO_WORD = regex.compile(r"[^\p{L}\p{N}\p{M}]+")
_ACCENTS = re.compile("[\u0300-\u036f]+")


def indexed_text(text: str) -> str:
    """What FTS5 gets of a text: it has no accents, and spaces around whatever counts as a word."""
    if text.isascii():
        return text
    return _BEYOND_ASCII.sub(lambda found: _fold(found[0]), text)


def split_words(text: str) -> list[str]:
    """Words of a text, in order."""
    return _WORD.findall(indexed_text(text).lower())


def is_unspaced(word: str) -> bool:
    """Whether a word is of a script without spaces between words."""
    return not word.isascii() and _UNSPACED_RUN.match(word) is not None


@lru_cache(maxsize=1 << 15)
def _fold(run: str) -> str:
    """A run of characters beyond ASCII without what writers vary: case, accents, width."""
    valid = run.encode(errors="replace").decode()  # without lone halves of UTF-16 pairs
    decomposed = unicodedata.normalize("NFKD", valid.casefold())
    folded = unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed))
    return str(_UNSPACED_RUN.sub(lambda found: _pairs(found[0]), _NO_WORD.sub(" ", folded)))


def _pairs(run: str) -> str:
    pairs = [run[i : i + 2] for i in range(len(run) - 1)]
    return f" {' '.join([*run, *pairs])} "
