"""Tokens of a private text whose rows stay: those that any withheld pattern touches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import regex
import structlog

from fedattn.core.errors import PolicyRefusedError

MAX_EXPRESSION_LENGTH = 1000
TIMEOUT_S = 5.0
"""Longest search for one pattern; a longer one is taken for an expression that explodes."""

log = structlog.get_logger(__name__)

Span = tuple[int, int]
"""Half-open range of characters."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A kind of text that must not leave, by the name its owner gave it."""

    name: str
    compiled: "regex.Pattern[str]"

    def spans(self, text: str) -> list[Span]:
        """Where it occurs, in order, without overlaps.

        Raises:
            TimeoutError: the search takes too long.
        """
        found = self.compiled.finditer(text, timeout=TIMEOUT_S)
        return [match.span() for match in found if match.end() > match.start()]


def compile_pattern(name: str, expression: str) -> Pattern:
    """A pattern of the owner's own, in the syntax of the package regex, which contains that of re.

    Raises:
        ValueError: it is no regular expression, is too long, or fits the empty text.
    """
    if len(expression) > MAX_EXPRESSION_LENGTH:
        raise ValueError(
            f"{name!r} has {len(expression)} characters, at most {MAX_EXPRESSION_LENGTH} are taken"
        )
    try:
        pattern = Pattern(name, regex.compile(expression))
    except regex.error as error:
        raise ValueError(f"{name!r} is no regular expression: {error}") from None
    if pattern.compiled.fullmatch(""):
        raise ValueError(f"{name!r} fits the empty text; let it need at least one character")
    return pattern


_EXPRESSIONS = {
    "email": r"(?<![\w.+%-])[\w.+%-]++@[\w-]++(?:\.[\w-]++)*+",
    # six digits or more, with what people put between: +49 (0)30/901820, 030-901 820, 2026-11-28
    "phone": r"(?<!\w)(?:\+|\()?\d(?:[ \-./()\u00a0\u202f]{0,3}\d){5,}",
    # three digits or more: 4711, 91.5, 1,000, 12 000.50
    "number": r"\d{1,3}(?:[ \u00a0\u202f]\d{3}(?!\d))+(?:[.,]\d+)?|"
    r"\d(?:[.,'\u2019]?\d){2,}",
    "iban": r"(?i)(?<!\w)[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?(?!\w)",
    # letters and digits in one word, such as K-40; and what follows a word such as PIN
    "code": r"(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[^\W\d_])\w+(?:-\w+)*+|"
    r"\b(?i:pin|puk|tan|code|password|passcode|passphrase|passwort|kennwort)\b"
    r"(?:(?:[ \t]*[:=]|[ \t]+(?i:is|ist|lautet)\b)[ \t]*\S+|[ \t]+(?=\S*\d)\S+)",
}
BUILT_IN: Mapping[str, Pattern] = MappingProxyType(
    {name: compile_pattern(name, expression) for name, expression in _EXPRESSIONS.items()}
)
"""What `withhold` can name. They would rather withhold too much: a date is a phone number too."""


def withheld_tokens(
    text: str, offsets: Sequence[Span], patterns: Iterable[Pattern]
) -> tuple[int, ...]:
    """Indices of the tokens that share a character with a withheld piece of the text.

    Args:
        text: as it was tokenized.
        offsets: of each token, its half-open range of characters, in token order.
        patterns: what must not leave.

    Returns:
        Sorted indices. A token without any character, within a piece, belongs to it.

    Raises:
        PolicyRefusedError: a search takes too long, so nothing is known to be safe.

    Example: in "call K-40 now", tokens (0, 4) (5, 7) (7, 9) (10, 13), the code is tokens 1 and 2.
    """
    pieces = _find(text, patterns)
    found, at = [], 0
    for index, (start, stop) in enumerate(offsets):
        while at < len(pieces) and pieces[at][1] <= start:
            at += 1
        if at < len(pieces) and pieces[at][0] < max(stop, start + 1):
            found.append(index)
    return tuple(found)


def _find(text: str, patterns: Iterable[Pattern]) -> list[Span]:
    """All withheld pieces in order, joined where they overlap."""
    spans: list[Span] = []
    for pattern in patterns:
        try:
            spans += pattern.spans(text)
        except TimeoutError:
            log.warning("pattern_too_slow", pattern=pattern.name, timeout_s=TIMEOUT_S)
            raise PolicyRefusedError(
                "its policy withholds patterns, and one takes too long to find; its log names it, "
                "and only its owner can change that"
            ) from None
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined
