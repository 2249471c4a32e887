"""Retrieval cases of a given length: worlds of many facts, several questions about each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count, islice, product, takewhile
from random import Random

from fedattn.core.errors import InvalidRequestError
from fedattn.research.tasks.cases import Case
from fedattn.research.tasks.retrieval import MAX_CONTEXTS, TWO_FACT, TWO_HOP, check_range
from fedattn.research.tasks.templates import LOOKUPS, TWO_FACTS, TWO_HOPS, Lookup, TwoHop

CountTokens = Callable[[str], int]

MIN_LENGTH, MAX_LENGTH = 20, 4000
MAX_QUESTIONS = 50
_FACT = 16  # tokens, about
_CHAINS_FROM = 150  # tokens a context; below, two chains of each kind would leave no room
_CHAINS = 2  # of each kind, so that one can be taken for the other
_PER_TEMPLATE = 40  # subjects and values, as many as a vocabulary holds
_TEMPLATES = tuple((kind, one) for kind, ones in LOOKUPS.items() for one in ones)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldShape:
    """What a world is like.

    Attributes:
        length: tokens a context; texts end within a sentence of it.
        num_contexts: private texts, one contributor's each.
        num_questions: asked of one world, or as many as its facts allow.
    """

    length: int
    num_contexts: int = 3
    num_questions: int = 10

    def __post_init__(self) -> None:
        check_range("length", self.length, MIN_LENGTH, MAX_LENGTH)
        check_range("num_contexts", self.num_contexts, 2, MAX_CONTEXTS)
        check_range("num_questions", self.num_questions, 1, MAX_QUESTIONS)


def generate_worlds(
    num_cases: int, shape: WorldShape, count_tokens: CountTokens, *, seed: int = 0
) -> list[Case]:
    """Cases in worlds, those of one world side by side; the same for the same arguments.

    A context says at least two things of every sort that it speaks of, where there is room. From
    150 tokens on a world holds chains of two facts in different contexts, and one question of
    either kind asks for one. No two facts of one form are of the same subject, and an answer
    occurs in one place only. A shorter list is the beginning of a longer one.

    Args:
        num_cases: how many; the last world may be asked less than the others.
        shape: of every world.
        count_tokens: length of a text.
        seed: of all draws.

    Raises:
        InvalidRequestError: an argument is out of range, or so long a text cannot be made.
    """
    check_range("num_cases", num_cases, 1, None)
    check_range("seed", seed, 0, None)
    worlds = (
        _World(shape, count_tokens, Random(f"{seed}/{shape.length}/{index}")).cases()  # noqa: S311
        for index in count()
    )
    return list(islice(chain.from_iterable(worlds), num_cases))


@dataclass(frozen=True, slots=True)
class _Question:
    kind: str
    text: str
    answer: str


class _World:
    """Contexts that fill up with facts, and what can be asked about them."""

    def __init__(self, shape: WorldShape, count_tokens: CountTokens, rng: Random) -> None:
        self._shape, self._count, self._rng = shape, count_tokens, rng
        self._facts: list[list[str]] = [[] for _ in range(shape.num_contexts)]
        self._sizes = [0] * shape.num_contexts
        self._used: set[str] = set()  # subjects, links and values of chains, values of lookups

    def cases(self) -> list[Case]:
        chained = self._add_chains() if self._shape.length >= _CHAINS_FROM else []
        looked_up = self._add_lookups()
        for facts in self._facts:
            self._rng.shuffle(facts)
        self._rng.shuffle(looked_up)
        contexts = tuple(" ".join(facts) for facts in self._facts)
        everything = "\n".join(contexts).lower()
        fair = [one for one in [*chained, *looked_up] if _is_fair(one, everything)]
        asked = fair[: self._shape.num_questions]
        self._rng.shuffle(asked)
        return [
            Case(
                contexts=contexts,
                question=one.text,
                answer=one.answer,
                kind=one.kind,
                length=self._shape.length,
            )
            for one in asked
        ]

    def _add_chains(self) -> list[_Question]:
        kinds = ((TWO_HOP, TWO_HOPS), (TWO_FACT, TWO_FACTS))
        return [self._add_chain(kind, self._rng.choice(templates)) for kind, templates in kinds]

    def _add_chain(self, kind: str, template: TwoHop) -> _Question:
        """Chains of one template; the question is about the first."""
        draws = (template.subjects, template.links, template.values)
        subjects, links, values = (self._fresh(draw(self._rng, _PER_TEMPLATE)) for draw in draws)
        chains = list(islice(zip(subjects, links, values, strict=False), _CHAINS))
        for subject, link, value in chains:
            self._used.update((subject, link, value))
            one, other = self._rng.sample(range(len(self._facts)), 2)
            self._put(one, template.first.format(subject=subject, link=link))
            self._put(other, template.second.format(subject=subject, link=link, value=value))
        subject, _, value = chains[0]
        return _Question(kind, template.question.format(subject=subject), value)

    def _add_lookups(self) -> list[_Question]:
        """Fill all contexts, two facts of a template at a time.

        Raises:
            InvalidRequestError: there are no subjects left.
        """
        wanted = max(1, min(len(_TEMPLATES), round(self._shape.length / _FACT / 2)))
        sources = [self._source(*one) for one in self._rng.sample(_TEMPLATES, wanted)]
        questions: list[_Question] = []
        while any(map(self._has_room, range(len(self._facts)))):
            before = len(questions)
            for source, index in product(sources, range(len(self._facts))):
                questions += self._add_two(source, index)
            if len(questions) == before:
                raise InvalidRequestError(
                    f"length: {len(self._facts)} contexts of {self._shape.length} tokens need more "
                    f"facts than there are words for, {before}; choose a smaller length, or fewer "
                    "contexts"
                )
        return questions

    def _add_two(self, source: Iterator[tuple[str, _Question]], index: int) -> Iterator[_Question]:
        """Two facts for a context if it has room for them; their questions."""
        while_room = takewhile(lambda _: self._has_room(index), range(2))
        for _, (fact, question) in zip(while_room, source, strict=False):
            self._put(index, fact)
            yield question

    def _source(self, kind: str, template: Lookup) -> Iterator[tuple[str, _Question]]:
        """Facts of one template, each of another subject and value, and their questions."""
        subjects = self._fresh(template.subjects(self._rng, _PER_TEMPLATE))
        values = self._fresh(template.values(self._rng, _PER_TEMPLATE))
        for subject, value in zip(subjects, values, strict=False):
            self._used.add(value)
            question = _Question(kind, template.question.format(subject=subject), value)
            yield template.fact.format(subject=subject, value=value), question

    def _fresh(self, drawn: list[str]) -> Iterator[str]:
        """Those that are not used when they are taken."""
        return (one for one in drawn if one not in self._used)

    def _has_room(self, index: int) -> bool:
        return self._shape.length - self._sizes[index] > _FACT // 2

    def _put(self, index: int, fact: str) -> None:
        self._facts[index].append(fact)
        self._sizes[index] += self._count(" " + fact)


def _is_fair(question: _Question, everything: str) -> bool:
    answer = question.answer.lower()
    return everything.count(answer) == 1 and answer not in question.text.lower()
