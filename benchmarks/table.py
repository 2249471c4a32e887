"""The tables of measured figures, from the JSON files of the benchmarks.

    python -m benchmarks.table

Reads benchmarks/results/*.json, as `make bench-all` writes them. Every row goes into
docs/measured.md, the five that say most into README.md too; those of `benchmarks.leak` and
`benchmarks.withheld` go into docs/leakage.md, and `benchmarks.frontier` into docs/plans.md.
"""

from pathlib import Path
from typing import Any

from benchmarks import leak, withheld
from benchmarks.blocks import ROOT, with_block, write_documents
from benchmarks.rows import (
    Row,
    concurrency_rows,
    decoding_rows,
    frontier_rows,
    link_rows,
    load_rows,
    long_rows,
    memory_rows,
    read,
    sealing_rows,
    session_rows,
    soak_rows,
)


def frontier_table(frontier: list[dict[str, Any]]) -> str:
    """Markdown of every set and way."""
    lines = ["| cases | rows | bf16 / bytes | right | NLL | KL |", "|---|---|---|---|---|---|"]
    for row in frontier:
        mean, low, high = row["nll"]
        lines.append(
            f"| {row['cases']} of {row['set']} | {row['way']} | {row['fewer_bytes']:.1f} | "
            f"{row['right']}, +{row['gained']} -{row['lost']}, p {row['p_value']:.2f} | "
            f"{mean:+.3f} [{low:+.3f}, {high:+.3f}] | {row['kl']:.3f} |"
        )
    return "\n".join(lines)


def rows() -> list[Row]:
    """Every row, from the committed results."""
    return [
        *session_rows(read("session"), read("session-short")),
        *frontier_rows(read("frontier")),
        *link_rows(read("links")["links"]),
        *decoding_rows(read("decoding")),
        *concurrency_rows(),
        *sealing_rows(read("sealing"), read("sealing-short")),
        *load_rows(read("load")),
        *memory_rows(read("session")),
        *soak_rows(read("soak")),
        *long_rows(read("long-prompts")),
    ]


def table(chosen: list[Row]) -> str:
    """Markdown of some rows."""
    lines = [f"| {' | '.join(row[:4])} |" for row in chosen]
    return "\n".join(["| what | measured | bar | command |", "|---|---|---|---|", *lines])


def documents() -> dict[Path, str]:
    """The documents with these tables, as they should be."""
    readme, measured = ROOT / "README.md", ROOT / "docs" / "measured.md"
    leakage, plans = ROOT / "docs" / "leakage.md", ROOT / "docs" / "plans.md"
    every = rows()
    few = table([row for row in every if row.in_readme])
    return {
        plans: with_block(plans.read_text(), "frontier", frontier_table(read("frontier"))),
        readme: with_block(readme.read_text(), "measured", few.replace("](", "](docs/")),
        measured: with_block(measured.read_text(), "measured", table(every)),
        leakage: with_block(
            with_block(leakage.read_text(), "leakage", leak.table(read("leak"))),
            "withheld",
            withheld.table(read("withheld")),
        ),
    }


if __name__ == "__main__":
    write_documents(documents())
