"""Sync schedules by name: which K of a model's M blocks synchronise.

Source: Federated Attention, arXiv 2511.02647, and its authors' code, but for `middle`. The paper
gives a sync interval H; K is then ceil(M / H). With 24 blocks and K = 3:

    uniform        0 8 16       evenly; with an interval, every H-th block
    shallow-half   0 4 8        evenly in the first half
    deep-half      15 19 23     its mirror image
    progressive    0 8 23       gaps that grow as 1, 2, ...
    regressive     0 15 23      gaps that shrink
    middle         11 12 13     one run
"""

from collections.abc import Callable
from itertools import accumulate

from fedattn.core.errors import InvalidPlanError


def default_count(num_layers: int) -> int:
    """Blocks of a schedule when nobody says how many: two thirds of them."""
    return -(-2 * num_layers // 3)


def uniform(num_layers: int, count: int) -> tuple[int, ...]:
    """Evenly over the model, from block 0 on."""
    return tuple(i * num_layers // count for i in range(count))


def shallow_half(num_layers: int, count: int) -> tuple[int, ...]:
    """Evenly in the first half."""
    half = num_layers // 2
    _check("shallow-half", count, half)
    return tuple(i * half // count for i in range(count))


def deep_half(num_layers: int, count: int) -> tuple[int, ...]:
    """The mirror image of `shallow_half`."""
    _check("deep-half", count, num_layers // 2)
    return tuple(num_layers - 1 - layer for layer in reversed(shallow_half(num_layers, count)))


def progressive(num_layers: int, count: int) -> tuple[int, ...]:
    """First and last block, gaps between growing as 1, 2, ..., count - 1."""
    return _by_gaps("progressive", num_layers, list(range(1, count)))


def regressive(num_layers: int, count: int) -> tuple[int, ...]:
    """First and last block, gaps between shrinking as count - 1, ..., 2, 1."""
    return _by_gaps("regressive", num_layers, list(range(count - 1, 0, -1)))


def middle(num_layers: int, count: int) -> tuple[int, ...]:
    """One run around the middle."""
    start = (num_layers - count + 1) // 2
    return tuple(range(start, start + count))


Schedule = Callable[[int, int], tuple[int, ...]]
"""(blocks of the model M, sync layers wanted K <= M) -> sorted sync layers."""

SCHEDULES: dict[str, Schedule] = {
    "uniform": uniform,
    "shallow-half": shallow_half,
    "deep-half": deep_half,
    "progressive": progressive,
    "regressive": regressive,
    "middle": middle,
}


def _by_gaps(name: str, num_layers: int, gaps: list[int]) -> tuple[int, ...]:
    """Block 0, then one block after each gap, scaled so that the last block is the model's last.

    Example, 28 blocks, gaps 1 2 3: block 0, 27 * 1/6, 27 * 3/6, 27 * 6/6, rounded: 0 4 14 27.
    """
    total = sum(gaps)
    layers = tuple(round((num_layers - 1) * reached / total) for reached in accumulate(gaps))
    if len({0, *layers}) <= len(gaps):
        raise InvalidPlanError(
            f"sync plan {name}: {len(gaps) + 1} of {num_layers} blocks would coincide; use fewer"
        )
    return (0, *layers)


def _check(name: str, count: int, most: int) -> None:
    if count > most:
        raise InvalidPlanError(
            f"sync plan {name}: expected at most {most} blocks, half of the model, got {count}; "
            "use fewer"
        )
