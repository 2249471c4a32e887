"""Scores of an evaluation, as tables and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from fedattn.cli.terminal import plain_table
from fedattn.research.evaluate.pairs import Comparison, Interval, compare
from fedattn.research.evaluate.runs import Variant
from fedattn.research.evaluate.scores import CaseScore, ScoresByName, summarize_scores
from fedattn.research.tasks.task import Task

_MEANS = (
    ("exact match", "exact_match", ".3f"),
    ("NLL", "nll", ".3f"),
    ("KL", "divergence", ".4f"),
    ("KV bytes", "kv_bytes", ",.0f"),
    ("GFLOP", "gflops", ".1f"),
    ("MiB", "memory_mib", ".0f"),
)
"""Title, key of the summary, format."""
_ENOUGH_WORLDS = 10
"""Of fewer, the bootstrap's intervals come out too narrow."""
_PAIRED = ("gained", "lost", "p", "right", "NLL", "KL", "cases", "worlds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Every case's score under every variant.

    Attributes:
        task: what was run.
        variants: what was compared.
        baseline: name of the variant that the others are set beside.
        cases: scores by name of the variant, in the order of the task's cases.
    """

    task: Task
    variants: list[Variant]
    baseline: str
    cases: list[ScoresByName]

    def summary(self) -> dict[str, dict[str, Any]]:
        """Means over all cases, by name of the variant."""
        return {name: summarize_scores(self._of(name)) for name in self._names()}

    def means(self) -> Table:
        """The means, a row a variant and length; a dash for what is not known."""
        table = self._table(tuple(title for title, _, _ in _MEANS))
        for label, length in self._lengths():
            for name in self._names():
                row = summarize_scores(self._of(name, length))
                cells = ["-" if row[key] is None else f"{row[key]:{how}}" for _, key, how in _MEANS]
                table.add_row(*label, name, *cells)
        return table

    def pairs(self) -> Table:
        """Differences from the baseline with 95 % intervals, a row a variant and length."""
        table = self._table(_PAIRED)
        for label, length in self._lengths():
            for name in self._names():
                if (found := self._compare(name, length)) is not None:
                    table.add_row(*label, name, *_paired_cells(found))
        return table

    def caption(self) -> str:
        """What `pairs` shows, and how far to trust it."""
        lengths = [length for _, length in self._lengths()]
        fewest = min(len({self.task.worlds()[at] for at in self._at(one)}) for one in lengths)
        caution = f"; {fewest} worlds are few: too narrow" if fewest < _ENOUGH_WORLDS else ""
        return (
            f"Minus {self.baseline}, case by case; in brackets 95 % of means over drawn worlds"
            f"{caution}"
        )

    def to_json(self) -> dict[str, Any]:
        """Means, comparisons and single results."""
        return {
            "task": self.task.name,
            "baseline": self.baseline,
            "setups": [  # as files of earlier versions name them
                {
                    "name": variant.name,
                    "contributors": str(variant.plans.contributors),
                    "publisher": str(variant.plans.publisher),
                    **self._group(variant.name, None),
                    "lengths": [
                        {"length": length, **self._group(variant.name, length)}
                        for _, length in self._lengths()
                        if length is not None
                    ],
                    "results": list(self._results(variant.name)),
                }
                for variant in self.variants
            ],
        }

    def _group(self, name: str, length: int | None) -> dict[str, Any]:
        found = self._compare(name, length)
        means = summarize_scores(self._of(name, length))
        return {**means, "paired": None if found is None else asdict(found)}

    def _results(self, name: str) -> Iterator[dict[str, Any]]:
        scored = zip(self.task.cases, self.task.worlds(), self._of(name), strict=True)
        for case, world, score in scored:
            yield {"kind": case.kind, "length": case.length, "world": world, **asdict(score)}

    def _names(self) -> list[str]:
        return [variant.name for variant in self.variants]

    def _lengths(self) -> list[tuple[list[str], int | None]]:
        """Cells of the first column, if it is needed, and the length; None for all cases."""
        found = sorted({case.length for case in self.task.cases if case.length is not None})
        if not found:
            return [([], None)]
        everything: list[tuple[list[str], int | None]] = [(["all"], None)]
        return [([f"{one:,}"], one) for one in found] + (everything if len(found) > 1 else [])

    def _table(self, right: tuple[str, ...]) -> Table:
        has_lengths = any(label for label, _ in self._lengths())
        return plain_table(*(["length"] if has_lengths else []), "variant", right=right)

    def _at(self, length: int | None) -> list[int]:
        """Places of the cases of a length; None for all."""
        lengths = [case.length for case in self.task.cases]
        return [at for at, one in enumerate(lengths) if length in {None, one}]

    def _of(self, name: str, length: int | None = None) -> list[CaseScore]:
        return [self.cases[at][name] for at in self._at(length)]

    def _compare(self, name: str, length: int | None) -> Comparison | None:
        """None for the baseline itself."""
        if name == self.baseline:
            return None
        worlds = self.task.worlds()
        return compare(
            self._of(name, length),
            self._of(self.baseline, length),
            [worlds[at] for at in self._at(length)],
        )


def _paired_cells(found: Comparison) -> list[str]:
    return [
        f"{found.gained}",
        f"{found.lost}",
        f"{found.p_value:.3f}",
        _interval(found.right, ".3f"),
        _interval(found.nll, ".3f"),
        _interval(found.divergence, ".4f"),
        f"{found.cases}",
        f"{found.worlds}",
    ]


def _interval(found: Interval | None, how: str) -> str:
    if found is None:
        return "-"
    mean = f"{found.mean:+{how}}"
    if found.low is None or found.high is None:
        return mean
    return f"{mean} [{found.low:{how}}, {found.high:{how}}]"
