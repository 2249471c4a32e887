"""docs/wire.md says what the sources in proto/ say."""

from benchmarks.wire_table import DOCUMENT, document


def test_the_document_is_as_the_sources_have_it() -> None:
    text = DOCUMENT.read_text()
    assert document(text) == text, "run: make docs"
