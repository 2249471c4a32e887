"""A piece of a node's private texts, and what a search says of it."""

from dataclasses import dataclass, field

from fedattn.texts.listing import SkippedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Some 60 tokens of one file.

    Attributes:
        number: of this store, from 1; another text gets it only if the store is built anew.
        text: as it is given to a model.
        file: relative to the root; for the node's own eyes.
        place: where in the file, for people; for the node's own eyes.
    """

    number: int
    text: str = field(repr=False)
    file: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage that fits a query.

    Attributes:
        passage: what was found.
        score: higher is better; comparable within one search.
        coverage: share of the query's informative weight that the passage holds, 0 to 1.
    """

    passage: Passage
    score: float
    coverage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCounts:
    """What a store holds, and the files that are not in it, by name.

    Attributes:
        last_number: of the newest passage: it tells a text from another one of the same size.
    """

    num_passages: int = 0
    num_chars: int = 0
    num_files: int = 0
    last_number: int = 0
    skipped: tuple[SkippedFile, ...] = ()
