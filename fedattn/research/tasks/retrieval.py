"""Seeded retrieval cases: the answer is in one of several private contexts."""

from random import Random

from fedattn.core.errors import InvalidRequestError
from fedattn.research.tasks.cases import Case
from fedattn.research.tasks.templates import LOOKUPS, TWO_FACTS, TWO_HOPS, Lookup, TwoHop

TWO_HOP, TWO_FACT = "two-hop", "two-fact"
KINDS = (*LOOKUPS, TWO_HOP)
ALL_KINDS = (*KINDS, TWO_FACT)
MAX_CONTEXTS = 8
_FACTS_PER_CONTEXT = (1, 2)  # least and most


def generate_cases(
    count: int, *, seed: int = 0, num_contexts: int = 3, kinds: tuple[str, ...] = KINDS
) -> list[Case]:
    """Cases of the given kinds in rotation, the same for the same arguments.

    The answer occurs in exactly one context and not in the question; all other contexts, and the
    rest of that one, say the same of other things. A shorter list is the beginning of a longer one.

    Raises:
        InvalidRequestError: an argument is out of range, or a kind is not known or named twice.
    """
    check_range("count", count, 1, None)
    check_range("seed", seed, 0, None)
    check_range("num_contexts", num_contexts, 2, MAX_CONTEXTS)
    _check_kinds(kinds)
    rng = Random(seed)  # noqa: S311  (no secret)
    return [_generate(kinds[i % len(kinds)], num_contexts, rng) for i in range(count)]


def _generate(kind: str, num_contexts: int, rng: Random) -> Case:
    if kind == TWO_HOP:
        return _two_hop(rng.choice(TWO_HOPS), kind, num_contexts, rng)
    if kind == TWO_FACT:
        return _two_hop(rng.choice(TWO_FACTS), kind, num_contexts, rng)
    return _lookup(kind, rng.choice(LOOKUPS[kind]), num_contexts, rng)


def _lookup(kind: str, template: Lookup, num_contexts: int, rng: Random) -> Case:
    sizes = _draw_sizes(num_contexts, rng)
    num_facts = sum(sizes)
    subjects, values = template.subjects(rng, num_facts), template.values(rng, num_facts)
    facts = iter(
        template.fact.format(subject=subject, value=value)
        for subject, value in zip(subjects, values, strict=True)
    )
    contexts = []
    for size in sizes:
        opening = [template.opening] if rng.random() < 0.5 else []
        contexts.append(" ".join(opening + [next(facts) for _ in range(size)]))
    asked = rng.randrange(num_facts)
    return Case(
        contexts=tuple(contexts),
        question=template.question.format(subject=subjects[asked]),
        answer=values[asked],
        kind=kind,
    )


def _two_hop(template: TwoHop, kind: str, num_contexts: int, rng: Random) -> Case:
    """Contexts hold either first or second facts; those of chain 0 are among both.

    With 3 contexts of 2 facts: chains 1, 0 | links 2, 0 | links 3, 1.
    """
    sizes = _draw_sizes(num_contexts, rng)
    is_first = [True, False] + [rng.random() < 0.5 for _ in sizes[2:]]
    rng.shuffle(is_first)
    num_first = sum(size for size, first in zip(sizes, is_first, strict=True) if first)
    num_second = sum(sizes) - num_first
    num_chains = max(num_first, num_second)
    subjects = template.subjects(rng, num_chains)
    links = template.links(rng, num_chains)
    values = template.values(rng, num_chains)
    firsts = iter(
        template.first.format(subject=subjects[chain], link=links[chain])
        for chain in rng.sample(range(num_first), num_first)
    )
    seconds = iter(
        template.second.format(subject=subjects[chain], link=links[chain], value=values[chain])
        for chain in rng.sample(range(num_second), num_second)
    )
    contexts = tuple(
        " ".join(next(firsts if first else seconds) for _ in range(size))
        for size, first in zip(sizes, is_first, strict=True)
    )
    question = template.question.format(subject=subjects[0])
    return Case(contexts=contexts, question=question, answer=values[0], kind=kind)


def _draw_sizes(num_contexts: int, rng: Random) -> list[int]:
    return [rng.randint(*_FACTS_PER_CONTEXT) for _ in range(num_contexts)]


def check_range(name: str, value: int, low: int, high: int | None) -> None:
    """Refuse a number outside of [low, high]; no `high` for none.

    Raises:
        InvalidRequestError: names the argument, the range and the number.
    """
    if value >= low and (high is None or value <= high):
        return
    expected = f"at least {low}" if high is None else f"{low} to {high}"
    raise InvalidRequestError(
        f"{name}: expected {expected}, got {value}; choose a number in that range"
    )


def _check_kinds(kinds: tuple[str, ...]) -> None:
    unknown = [kind for kind in kinds if kind not in ALL_KINDS]
    if not kinds or unknown or len(set(kinds)) < len(kinds):
        raise InvalidRequestError(
            f"kinds: expected different ones of {', '.join(ALL_KINDS)}, "
            f"got {', '.join(kinds) or 'none'}; name each kind once"
        )
