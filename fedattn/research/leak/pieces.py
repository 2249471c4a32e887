"""Withheld pieces of a text, and what else could stand there."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import regex

from fedattn.core.errors import InvalidRequestError
from fedattn.model.prompt import PromptTokenizer

MAX_CANDIDATES = 200_000
DIGITS = "0123456789"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """What is withheld in a text, and what an attacker does not know of it.

    Attributes:
        expression: finds the pieces; the syntax is that of a policy's patterns.
        alphabet: characters that are unknown within a piece, and tried in each other's place.
    """

    expression: str
    alphabet: str = DIGITS

    def __post_init__(self) -> None:
        try:
            regex.compile(self.expression)
        except regex.error as error:
            raise InvalidRequestError(
                f"withheld: {self.expression!r} is no regular expression: {error}"
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Consecutive tokens of a text whose rows stay, with the candidates for them.

    Attributes:
        start: index of its first token, counted from the first of the text.
        candidates: token ids of each, all of the same number; the truth is among them.
        truth: index of the truth.
    """

    start: int
    candidates: tuple[tuple[int, ...], ...]
    truth: int

    @property
    def stop(self) -> int:
        return self.start + len(self.candidates[self.truth])

    @property
    def tokens(self) -> range:
        """Indices of its tokens."""
        return range(self.start, self.stop)


def find_pieces(tokenizer: PromptTokenizer, text: str, withheld: Withheld) -> list[Piece]:
    r"""Pieces that are withheld, each with all that an attacker would try there.

    The attacker knows every character but those of the alphabet within the piece, and how many
    tokens are withheld where: the layout and the frames say so. So what would make other tokens
    is no candidate.

    Args:
        tokenizer: of the model.
        text: the private text.
        withheld: what is withheld.

    Raises:
        InvalidRequestError: there is no such piece, nothing in it is unknown, or there are too
            many candidates.

    Example: in "call K-40" the expression K-\d+ leaves 100 candidates, K-00 to K-99.
    """
    tokenized, offsets = tokenizer.context_offsets(text)
    matches = [match.span() for match in regex.finditer(withheld.expression, tokenized)]
    pieces = [
        _piece(tokenizer, tokenized, span, offsets, withheld.alphabet)
        for span in matches
        if span[0] < span[1]
    ]
    if not pieces:
        raise InvalidRequestError(f"withheld: {withheld.expression!r} finds nothing in the text")
    return pieces


def _piece(
    tokenizer: PromptTokenizer,
    text: str,
    span: tuple[int, int],
    offsets: list[tuple[int, int]],
    alphabet: str,
) -> Piece:
    """The piece of a half-open range of characters."""
    touched = [
        index
        for index, (start, stop) in enumerate(offsets)
        if start < span[1] and max(stop, start + 1) > span[0]
    ]
    start, stop = touched[0], touched[-1] + 1
    truth = tokenizer.context(text)
    found: dict[tuple[int, ...], None] = {}  # in order, each once
    for other in _variants(text, span, alphabet):
        token_ids = tokenizer.context(other)
        same_around = token_ids[:start] == truth[:start] and token_ids[stop:] == truth[stop:]
        if same_around and len(token_ids) == len(truth):
            found[tuple(token_ids[start:stop])] = None
    candidates = tuple(found)
    return Piece(
        start=start, candidates=candidates, truth=candidates.index(tuple(truth[start:stop]))
    )


def _variants(text: str, span: tuple[int, int], alphabet: str) -> Iterator[str]:
    """The text with each combination of the alphabet in the unknown places."""
    unknown = [at for at in range(*span) if text[at] in alphabet]
    count = len(set(alphabet)) ** len(unknown)
    if not 1 < count <= MAX_CANDIDATES:
        raise InvalidRequestError(
            f"withheld: expected 2 to {MAX_CANDIDATES:,} candidates for a piece, got {count:,} "
            f"({len(unknown)} characters of the alphabet {alphabet!r}); change one of both"
        )
    characters = list(text)
    for drawn in product(sorted(set(alphabet)), repeat=len(unknown)):
        for at, character in zip(unknown, drawn, strict=True):
            characters[at] = character
        yield "".join(characters)
