"""What a crash, another process, another version and a broken disk leave behind."""

import sqlite3
import stat
from pathlib import Path

import pytest

from fedattn.core.errors import ConfigurationError
from tests.unit.passages.cutting import CountingCutter, texts, write


@pytest.fixture
def cutter() -> CountingCutter:
    return CountingCutter()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    write(folder / "a.log", "".join(f"line {index} end\n" for index in range(3000)))
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "passages.db"


def test_a_store_is_there_again_without_reading(
    root: Path, database: Path, cutter: CountingCutter
) -> None:
    first = cutter.store(root, database)
    first.refresh()
    hit = first.search("line 77 end", 1)[0]
    first.close()
    cutter.names()
    again = cutter.store(root, database)
    assert again.counts.num_passages == 3000
    assert again.search("line 77 end", 1)[0].passage == hit.passage == again.get(hit.passage.number)
    assert not again.refresh()
    assert cutter.names() == []
    again.close()


@pytest.mark.parametrize("num_chars", [1, 4000])
def test_a_crash_in_the_middle_is_resumed(
    root: Path, database: Path, cutter: CountingCutter, num_chars: int
) -> None:
    store = cutter.store(root, database, transaction_chars=num_chars)
    cutter.breaks_at = "line 2345 "
    with pytest.raises(RuntimeError, match="a defect"):
        store.refresh()
    kept = store.counts.num_passages
    assert 0 < kept < 2345
    store.close()
    cutter.breaks_at = ""
    cutter.cut_files.clear()
    again = cutter.store(root, database)
    again.refresh()
    assert cutter.cut_files[0][1] > 0, "it did not begin again"
    assert [p.text for p in again.first(5000)] == [f"line {i} end" for i in range(3000)]
    assert len(again.search("2344", 5)) == 1
    again.close()


def test_a_crash_while_a_file_is_replaced_leaves_nothing_of_the_old_one(
    root: Path, database: Path, cutter: CountingCutter
) -> None:
    store = cutter.store(root, database, transaction_chars=4000)
    store.refresh()
    write(root / "a.log", "".join(f"other {index}\n" for index in range(3000)))
    cutter.breaks_at = "other 1500"
    with pytest.raises(RuntimeError):
        store.refresh()
    assert not any(text.startswith("line") for text in texts(store))
    cutter.breaks_at = ""
    store.refresh()
    assert [p.text for p in store.first(5000)] == [f"other {i}" for i in range(3000)]
    store.close()


def test_closing_ends_a_refresh_and_the_next_one_resumes(
    root: Path, database: Path, cutter: CountingCutter
) -> None:
    store = cutter.store(root, database)
    store._indexer.stopping.set()
    store.refresh()
    assert store.counts.num_passages < 3000
    store.close()
    again = cutter.store(root, database)
    again.refresh()
    assert [p.text for p in again.first(5000)] == [f"line {i} end" for i in range(3000)]
    again.close()


def test_two_stores_on_one_database_are_refused(
    root: Path, database: Path, cutter: CountingCutter
) -> None:
    store = cutter.store(root, database)
    with pytest.raises(ConfigurationError, match="in use by another"):
        cutter.store(root, database)
    store.close()
    cutter.store(root, database).close()


def test_the_files_are_for_their_owner_alone(
    root: Path, database: Path, cutter: CountingCutter
) -> None:
    store = cutter.store(root, database)
    store.refresh()
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in database.parent.iterdir()}
    assert set(found.values()) == {0o600}
    assert {"passages.db", "passages.db-wal"} <= set(found)
    store.close()


@pytest.mark.parametrize("harm", ["no database", "broken page", "other schema"])
def test_what_cannot_be_used_is_built_anew_with_numbers_from_1(
    root: Path, database: Path, cutter: CountingCutter, harm: str
) -> None:
    store = cutter.store(root, database)
    store.refresh()
    store.close()
    if harm == "other schema":
        with sqlite3.connect(database) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    elif harm == "no database":
        database.write_bytes(b"not a database at all" * 100)
    else:
        data = bytearray(database.read_bytes())
        data[4096:] = b"\x5a" * (len(data) - 4096)
        database.write_bytes(data)
    again = cutter.store(root, database)
    again.refresh()
    again.refresh()
    assert again.counts.num_passages == 3000
    assert [passage.number for passage in again.first(5000)] == list(range(1, 3001))
    again.close()


def test_another_root_or_encoding_is_another_store(
    root: Path, database: Path, cutter: CountingCutter, tmp_path: Path
) -> None:
    store = cutter.store(root, database)
    store.refresh()
    store.close()
    (tmp_path / "other").mkdir()
    other = cutter.store(tmp_path / "other", database)
    assert other.counts.num_passages == 0
    assert other.search("line", 3) == []
    other.close()


def test_a_folder_that_cannot_be_written_is_named(root: Path, cutter: CountingCutter) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written"):
        cutter.store(root, root / "a.log" / "passages.db")
