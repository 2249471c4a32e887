"""Search strategies: from all blocks (or none) to a plan with K.

Each strategy is a generator of `Found`: the best plans it knows at each number of blocks, in the
order in which it comes upon them. Contributors and publisher share a plan while searching: a block
that one of them reads costs the bytes already. Block 0 is never a candidate, since its KV gives
tokens away by look-up.

To add one: write it here and list it in `STRATEGIES`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from fedattn.core.plans import RolePlans, shared_plan

Layers: TypeAlias = tuple[int, ...]
_EASY = 18


class Scorer(Protocol):
    """Says how bad plans are."""

    def score(self, plans: RolePlans) -> float:
        """Lower is better; deterministic."""

    def move_base(self, plans: RolePlans) -> None:
        """Hint that the plans scored next are near these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The best plans known at some number of blocks."""

    plans: RolePlans
    score: float


Strategy: TypeAlias = Callable[[Scorer, Layers, int], Iterator[Found]]
"""(scorer, candidate layers, fewest layers wanted) -> what was found."""


def ranking(scorer: Scorer, layers: Layers, fewest: int) -> Iterator[Found]:
    """Rank layers once by what leaving one out costs; keep the best of that ranking."""
    scorer.move_base(shared_plan(layers))
    costs = {layer: scorer.score(shared_plan(_without(layers, layer))) for layer in layers}
    kept = sorted(layers, key=lambda layer: costs[layer], reverse=True)
    for count in range(len(layers) - 1, fewest - 1, -1):
        plans = shared_plan(kept[:count])
        yield Found(plans=plans, score=scorer.score(plans))


def elimination(scorer: Scorer, layers: Layers, fewest: int) -> Iterator[Found]:
    """Again and again, leave out the layers whose absence costs least now.

    One at a time, but two while more than 18 are left: early choices are easy ones.
    """
    while len(layers) > fewest:
        scorer.move_base(shared_plan(layers))
        costs = {layer: scorer.score(shared_plan(_without(layers, layer))) for layer in layers}
        ranked = sorted(layers, key=lambda layer: costs[layer])
        yield Found(plans=shared_plan(_without(layers, ranked[0])), score=costs[ranked[0]])
        layers = _without(layers, ranked[0])
        if len(layers) > max(fewest, _EASY):
            layers = _without(layers, ranked[1])


def addition(scorer: Scorer, layers: Layers, fewest: int) -> Iterator[Found]:
    """From none, again and again add the layer that helps most, up to `fewest` layers."""
    chosen: Layers = ()
    while len(chosen) < fewest:
        scorer.move_base(shared_plan(chosen))
        tried = [(*chosen, layer) for layer in layers if layer not in chosen]
        found = _best(scorer, tried)
        chosen = found.plans.publisher.layers
        yield found


def exchange(scorer: Scorer, layers: Layers, fewest: int) -> Iterator[Found]:
    """Elimination, then swap a layer of the plan for one outside as long as that helps."""
    found = None
    for found in elimination(scorer, layers, fewest):
        yield found
    while found is not None:
        better = _best_swap(scorer, found, layers)
        if better is None:
            return
        found = better
        yield found


STRATEGIES: dict[str, Strategy] = {
    "ranking": ranking,
    "elimination": elimination,
    "addition": addition,
    "exchange": exchange,
}
DEFAULT_STRATEGY = "elimination"


def _best(scorer: Scorer, tried: list[Layers]) -> Found:
    scored = [Found(plans=plans, score=scorer.score(plans)) for plans in map(shared_plan, tried)]
    return min(scored, key=lambda found: found.score)


def _best_swap(scorer: Scorer, found: Found, layers: Layers) -> Found | None:
    """The best plan with one layer swapped, if it is better."""
    kept = found.plans.publisher.layers
    scorer.move_base(found.plans)
    outside = [layer for layer in layers if layer not in kept]
    tried = [(*_without(kept, out), new) for out in kept for new in outside]
    if not tried:
        return None
    best = _best(scorer, tried)
    return best if best.score < found.score else None


def _without(layers: Layers, layer: int) -> Layers:
    return tuple(other for other in layers if other != layer)
