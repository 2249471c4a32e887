"""Looking at the index of a store that another process may have open."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedattn.core.errors import ConfigurationError
from fedattn.passages.cannot_read import CannotReadError
from fedattn.passages.read_only import ReadOnlyDatabase
from fedattn.passages.reader import PassageReader
from fedattn.texts.packing import Piece
from tests.unit.passages.cutting import CountingCutter, write


class WatchedCutter(CountingCutter):
    """Has somebody look at the index while it is being written."""

    def __init__(self, database: Path) -> None:
        super().__init__()
        self.database = database
        self.seen: list[list[str]] = []

    def cut(self, path: Path, *, encoding: str | None = None, start: int = 0) -> Iterator[Piece]:
        for piece in super().cut(path, encoding=encoding, start=start):
            if piece.text == "line 400":
                reader = PassageReader(ReadOnlyDatabase(self.database))
                self.seen.append([passage.text for passage in reader.first(1000)])
                assert [hit.passage.text for hit in reader.search("early", 5)] == ["early"]
                reader.close()
            yield piece


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    write(folder / "a.log", "early\n")
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "a state#1?" / "passages.db"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_store_goes_on_while_somebody_looks_at_what_it_had(root: Path, database: Path) -> None:
    cutter = WatchedCutter(database)
    store = cutter.store(root, database)
    store.refresh()
    write(root / "b.log", "".join(f"line {index}\n" for index in range(1000)))
    files = names(database.parent)
    store.refresh()
    assert cutter.seen == [["early"]]
    assert names(database.parent) == files
    assert store.counts.num_passages == 1001
    reader = PassageReader(ReadOnlyDatabase(database))
    assert reader.first(5000) == store.first(5000)
    assert reader.newest(5) == store.newest(5)
    assert reader.search("line 77", 5) == store.search("line 77", 5)
    assert reader.get(1) == store.get(1) is not None
    assert reader.counts == store.counts
    reader.close()
    store.close()


def test_a_look_leaves_the_folder_of_a_closed_store_as_it_was(root: Path, database: Path) -> None:
    store = CountingCutter().store(root, database)
    store.refresh()
    store.close()
    before = {path.name: path.read_bytes() for path in database.parent.iterdir()}
    reader = PassageReader(ReadOnlyDatabase(database))
    assert [passage.text for passage in reader.first(5)] == ["early"]
    reader.close()
    assert {path.name: path.read_bytes() for path in database.parent.iterdir()} == before


def test_nothing_can_be_written(root: Path, database: Path) -> None:
    store = CountingCutter().store(root, database)
    looked_at = ReadOnlyDatabase(database)
    with (
        pytest.raises(sqlite3.OperationalError, match="readonly"),
        looked_at.reading() as connection,
    ):
        connection.execute("DELETE FROM passages")
    looked_at.close()
    store.close()


def test_no_index_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no index in .*: start the node once, or give"):
        ReadOnlyDatabase(tmp_path / "passages.db")
    (tmp_path / "passages.db").touch()  # as a node makes it before its schema
    with pytest.raises(ConfigurationError, match="no index in"):
        ReadOnlyDatabase(tmp_path / "passages.db")
    assert names(tmp_path) == ["passages.db"]


def test_a_file_that_is_no_index_is_named_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "passages.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigurationError, match=r"passages\.db cannot be read: file is not a da"):
        ReadOnlyDatabase(path)
    assert path.read_bytes().startswith(b"not a")


def test_an_index_of_another_version_is_told_and_kept(root: Path, database: Path) -> None:
    CountingCutter().store(root, database).close()
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigurationError, match="has schema 99, expected"):
        ReadOnlyDatabase(database)


def test_broken_pages_are_told_and_kept(root: Path, database: Path) -> None:
    store = CountingCutter().store(root, database)
    store.refresh()
    store.close()
    data = bytearray(database.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    database.write_bytes(data)
    reader = PassageReader(ReadOnlyDatabase(database))
    with pytest.raises(CannotReadError, match="its index is broken"):
        reader.first(5)
    reader.close()
    assert database.read_bytes() == data
