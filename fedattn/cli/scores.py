"""Scores of an evaluation, as a table and as JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from fedattn.cli.terminal import plain_table
from fedattn.research.evaluate.runs import CaseScore, Variant, summarize_scores

_COLUMNS = (
    ("exact match", "exact_match", ".3f"),
    ("NLL", "nll", ".3f"),
    ("KL", "divergence", ".4f"),
    ("KV bytes", "kv_bytes", ",.0f"),
    ("GFLOP", "gflops", ".1f"),
    ("MiB", "memory_mib", ".0f"),
)
"""Title, key of the summary, format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Every case's score under every variant.

    Attributes:
        task: its name.
        variants: what was compared.
        cases: in order, scores by name of the variant.
    """

    task: str
    variants: list[Variant]
    cases: list[dict[str, CaseScore]]

    def summary(self) -> dict[str, dict[str, Any]]:
        """Means over cases, by name of the variant."""
        names = [variant.name for variant in self.variants]
        return {name: summarize_scores([case[name] for case in self.cases]) for name in names}

    def table(self) -> Table:
        """The means, a row a variant; a dash for what is not known."""
        table = plain_table("variant", right=tuple(title for title, _, _ in _COLUMNS))
        for name, row in self.summary().items():
            cells = ["-" if row[key] is None else format(row[key], how) for _, key, how in _COLUMNS]
            table.add_row(name, *cells)
        return table

    def to_json(self) -> dict[str, Any]:
        """Means and single results."""
        summary = self.summary()
        return {
            "task": self.task,
            "setups": [  # as files of earlier versions name them
                {
                    "name": variant.name,
                    "contributors": str(variant.plans.contributors),
                    "publisher": str(variant.plans.publisher),
                    **summary[variant.name],
                    "results": [asdict(case[variant.name]) for case in self.cases],
                }
                for variant in self.variants
            ],
        }
