"""The words that a text is found by, the same for a passage and for a question.

Case, accents and width do not matter. Words are runs of letters, digits and marks. Scripts without
spaces between words give their single characters and every pair of neighbours instead. ASCII, which
most logs are, goes to SQLite as it is: its tokenizer finds the same words, and faster.

Codes and numbers of several parts, as P-101/B or 10.5, are one more word each, behind the text.
Their parts are frequent, and to find them side by side takes long.
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
_CODE = re.compile(
    r"(?<![0-9A-Za-z])(?<!\d:)"  # what follows a time is its fraction
    r"[0-9A-Za-z]++(?:[-/._,][0-9A-Za-z]++){1,5}+"
)
_NUMBER_SIGN = "\ue000"
"""Between the parts of a number, lest 10.5 be 105: of private use, so that no text has it."""
_WITHOUT_SIGNS = str.maketrans("", "", "-/._,")
_WITH_NUMBER_SIGNS = str.maketrans("-/._,", _NUMBER_SIGN * 5)
_MAX_CODE_CHARS = 40
_ACCENTS = re.compile("[\u0300-\u036f]+")


def indexed_text(text: str) -> str:
    """What FTS5 gets of a text: no accents, spaces around whatever counts as a word, and codes."""
    if not text.isascii():
        text = _BEYOND_ASCII.sub(lambda found: _fold(found[0]), text)
    codes = codes_of(text)
    return f"{text} {' '.join(codes)}" if codes else text


def codes_of(text: str) -> list[str]:
    """Words that stand for its codes and numbers of several parts."""
    return [word for code in _CODE.findall(text) if (word := _joined(code))]


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


def _joined(code: str) -> str:
    """A code without signs; empty if it is none: it has no digit, or is too long."""
    joined = code.translate(_WITHOUT_SIGNS)
    if joined.isalpha() or len(joined) > _MAX_CODE_CHARS:
        return ""
    return code.translate(_WITH_NUMBER_SIGNS) if joined.isdigit() else joined


def _pairs(run: str) -> str:
    pairs = [run[i : i + 2] for i in range(len(run) - 1)]
    return f" {' '.join([*run, *pairs])} "
