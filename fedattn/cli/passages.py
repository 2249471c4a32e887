"""`fedattn passages`: a node's private text as its owner may see it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedattn.cli.indexing import read_texts
from fedattn.cli.options import AsJson
from fedattn.cli.terminal import output, plain_table, progress, write_json
from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.core.printable import one_line
from fedattn.runtime.extras import require_extras
from fedattn.runtime.state import PASSAGES_FILE, find_state_dir

if TYPE_CHECKING:
    from fedattn.passages.passage import Passage
    from fedattn.passages.reader import PassageReader

_MAX_NUMBER = (1 << 63) - 1
_LINE_CHARS = 80
"""Of the line that stands for a passage in a table."""

State = Annotated[
    Path | None,
    typer.Option(
        help="State folder of the node; default: the only one of this user.", metavar="DIR"
    ),
]
Texts = Annotated[
    Path | None,
    typer.Option(
        help="Look at this file or folder instead, without a node; its numbers are of this look.",
        metavar="PATH",
    ),
]


def show(
    numbers: Annotated[
        list[int],
        typer.Argument(metavar="NUMBER", min=1, max=_MAX_NUMBER, help="As reports name it."),
    ],
    state: State = None,
    texts: Texts = None,
    as_json: AsJson = False,
) -> None:
    """Print passages of this node: file, place, text."""
    with _open(state, texts) as reader:
        looked_up = {number: reader.get(number) for number in numbers}
    found = [passage for passage in looked_up.values() if passage is not None]
    console = output()
    if as_json:
        write_json([_document(passage) for passage in found])
    else:
        console.write("\n".join(f"{_heading(one)}\n{one.text.strip()}\n" for one in found))
    missing = [str(number) for number, passage in looked_up.items() if passage is None]
    if missing:
        raise InvalidRequestError(
            f"no passage has the number {', '.join(missing)}; its file may have changed since, or "
            "it is of another node"
        )


def search(
    words: Annotated[str, typer.Argument(help="A question, or words of one.")],
    limit: Annotated[int, typer.Option(min=1, help="Most passages to print.")] = 5,
    state: State = None,
    texts: Texts = None,
    as_json: AsJson = False,
) -> None:
    """Print what this node would choose from for a question, best first.

    Coverage is the share of the weight of the words that a passage holds. What holds less than a
    node asks for is left out. A short text takes part as a whole, of at most 256 tokens and what a
    node may give, and only if some word fits where the texts of others do.
    """
    with _open(state, texts) as reader:
        from fedattn.passages.choice import Wish, fitting

        hits = fitting(reader, Wish(words=words))[:limit]
    console = output()
    if as_json:
        documents = [
            {"score": hit.score, "coverage": hit.coverage, **_document(hit.passage)} for hit in hits
        ]
        write_json(documents)
    elif hits:
        table = plain_table("number", "score", "coverage", "file", "place", "first line")
        for hit in hits:
            number, *where = _cells(hit.passage)
            table.add_row(number, f"{hit.score:.2f}", f"{hit.coverage:.0%}", *where)
        console.print(table)
    else:
        console.print("no passage fits these words")


def list_passages(
    limit: Annotated[int, typer.Option(min=1, help="Most passages to print.")] = 20,
    newest: Annotated[
        bool, typer.Option("--newest", help="By time, newest first; default: as the text goes.")
    ] = False,
    state: State = None,
    texts: Texts = None,
    as_json: AsJson = False,
) -> None:
    """List passages of this node."""
    with _open(state, texts) as reader:
        passages = reader.newest(limit) if newest else reader.first(limit)
        counts = reader.counts
    console = output()
    if as_json:
        write_json([_document(passage) for passage in passages])
        return
    table = plain_table("number", "file", "place", "first line")
    for passage in passages:
        table.add_row(*_cells(passage))
    if passages:
        console.print(table)
    console.print(f"{len(passages)} of {counts.num_passages} passages, {counts.num_files} files")


@contextmanager
def _open(state: Path | None, texts: Path | None) -> "Iterator[PassageReader]":
    require_extras("participant")
    from fedattn.passages.cannot_read import CannotReadError

    if state is not None and texts is not None:
        raise InvalidRequestError("--state and --texts: give one of them, not both")
    reader = (
        _of_node(find_state_dir(state, ", or --texts PATH without a node"))
        if texts is None
        else _of_texts(texts)
    )
    try:
        yield reader
    except CannotReadError as error:
        raise ConfigurationError(
            f"passages cannot be read: {error}; start the node anew, or give --texts PATH"
        ) from None
    finally:
        reader.close()


def _of_node(folder: Path) -> "PassageReader":
    from fedattn.passages.read_only import ReadOnlyDatabase
    from fedattn.passages.reader import PassageReader

    return PassageReader(ReadOnlyDatabase(folder / PASSAGES_FILE))


def _of_texts(path: Path) -> "PassageReader":
    from fedattn.passages.cannot_read import CannotReadError
    from fedattn.passages.store import PassageStore

    store = PassageStore(path, None)
    try:
        read_texts(store, path, progress())
    except CannotReadError as error:
        store.close()
        raise InvalidRequestError(
            f"--texts {path}: {error}; expected a text, or a folder of texts"
        ) from None
    return store


def _heading(passage: "Passage") -> str:
    return one_line(f"{passage.number}  {passage.file}, {passage.place}")


def _cells(passage: "Passage") -> tuple[str, ...]:
    first_line = next(iter(passage.text.strip().splitlines()), "")[:_LINE_CHARS]
    return str(passage.number), *map(one_line, (passage.file, passage.place, first_line))


def _document(passage: "Passage") -> dict[str, Any]:
    return {
        "number": passage.number,
        "file": passage.file,
        "place": passage.place,
        "text": passage.text,
    }
