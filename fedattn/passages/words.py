"""The words that a text is found by, the same for a passage and for a question.

Case, accents and width do not matter. Words are runs of letters, digits and marks. Scripts without
spaces between words give their single characters and every pair of neighbours instead. ASCII, which
most logs are, goes to SQLite as it is: its tokenizer finds the same words, and faster.
"""

import re
import unicodedata

import regex

TOKENIZER = "unicode61 remove_diacritics 0 categories 'L* N* Co Mn Mc'"
"""Of FTS5: splits the same way, and folds nothing but case."""

_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
    r"\u30fc\u3005"  # the mark of a long vowel, and the one of repetition
)
_ASCII_WORD = re.compile(r"[0-9a-z]+")
_RUN = regex.compile(rf"[{_UNSPACED}]+|[[\p{{L}}\p{{N}}\p{{M}}]--[{_UNSPACED}]]+", regex.V1)
_IS_UNSPACED = regex.compile(rf"[{_UNSPACED}]")
_ACCENTS = re.compile("[\u0300-\u036f]+")


def fold(text: str) -> str:
    """Text without what writers vary: case, accents, width, ligatures."""
    if text.isascii():
        return text.lower()
    valid = text.encode(errors="replace").decode()  # without lone halves of UTF-16 pairs
    decomposed = unicodedata.normalize("NFKD", valid.casefold())
    return unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed))


def split_words(folded: str) -> list[str]:
    """Words of a folded text, in order."""
    if folded.isascii():
        return _ASCII_WORD.findall(folded)
    return [word for run in _RUN.findall(folded) for word in _words_of(run)]


def indexed_text(text: str) -> str:
    """What FTS5 gets of a text."""
    return text if text.isascii() else " ".join(split_words(fold(text)))


def is_unspaced(word: str) -> bool:
    """Whether a word is of a script without spaces between words."""
    return not word.isascii() and _IS_UNSPACED.match(word) is not None


def _words_of(run: str) -> list[str]:
    if not is_unspaced(run):
        return [run]
    pairs = [run[i : i + 2] for i in range(len(run) - 1)]
    return [*run, *pairs]
