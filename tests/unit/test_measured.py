"""The figures in the documents are those of the committed results."""

from benchmarks import faults_table, scale
from benchmarks.table import documents, rows


def test_documents_show_the_committed_results() -> None:
    every = documents() | scale.documents() | faults_table.documents()
    for path, expected in every.items():
        assert path.read_text() == expected, f"{path.name} is out of date; run: make docs"


def test_readme_shows_five_rows_of_all() -> None:
    assert sum(row.in_readme for row in rows()) == 5
