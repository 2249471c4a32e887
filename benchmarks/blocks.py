"""Blocks of the documents that a program writes: what stands between two markers."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def with_block(text: str, name: str, content: str) -> str:
    """The document with new content between <!-- name --> and <!-- /name -->.

    Raises:
        ValueError: a marker is missing.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, middle, rest = text.partition(begin)
    _, closing, tail = rest.partition(end)
    if not (middle and closing):
        raise ValueError(f"expected {begin} and then {end} in the document")
    return f"{head}{begin}\n{content}\n{end}{tail}"


def write_documents(documents: dict[Path, str]) -> None:
    """Write those that have changed; print their names."""
    for path, text in documents.items():
        if path.read_text() != text:
            path.write_text(text)
            print(f"rewrote {path.relative_to(ROOT)}")
