"""Reading texts for the first time while their owner sees how far it is."""

from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal

from fedattn.cli.terminal import bars
from fedattn.core.printable import one_line

if TYPE_CHECKING:
    from fedattn.passages.store import PassageStore

_LOOK_S = 0.2


def read_texts(store: "PassageStore", path: Path, console: Console) -> None:
    """Bring a store up to date, with a bar on a terminal.

    Raises:
        CannotReadError: the texts cannot be read.
    """
    if not console.is_terminal:
        store.refresh()
        return
    with ThreadPoolExecutor(1) as pool, bars(console) as shown:
        reading: Future[bool] = pool.submit(store.refresh)
        total = _num_bytes(path)
        task = shown.add_task(f"reading {one_line(str(path))}, {decimal(total)}", total=total)
        while not wait([reading], _LOOK_S).done:
            shown.update(task, completed=min(total, store.counts.num_chars))
        shown.update(task, completed=total)
        reading.result()


def _num_bytes(path: Path) -> int:
    """Of all that may be read; a character is about a byte."""
    from fedattn.texts.listing import list_files

    try:
        files = [one.path for one in list_files(path).files] if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    except OSError:  # whoever reads them says so
        return 0
