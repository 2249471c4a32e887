"""The README's figures are those of the committed results."""

from benchmarks.table import BEGIN, END, ROOT, table


def test_readme_shows_the_committed_results() -> None:
    text = (ROOT / "README.md").read_text()
    shown = text[text.index(BEGIN) : text.index(END) + len(END)]
    assert shown == table(), "run: python -m benchmarks.table"
