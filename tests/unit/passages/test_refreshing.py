"""Only what changed is read, and the store holds what the files hold."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedattn.core.contexts import SkipReason
from fedattn.passages import refreshing
from fedattn.passages.cannot_read import CannotReadError
from fedattn.passages.looking import Look, look_at
from fedattn.passages.store import PassageStore
from tests.unit.passages.cutting import CountingCutter, texts, write


@pytest.fixture
def cutter() -> CountingCutter:
    return CountingCutter()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    write(folder / "a.txt", "one\ntwo\n")
    write(folder / "b.log", "three\nfour\n")
    return folder


@pytest.fixture(params=["memory", "disk"])
def store(
    request: pytest.FixtureRequest, root: Path, cutter: CountingCutter, tmp_path: Path
) -> Iterator[PassageStore]:
    database = tmp_path / "state" / "passages.db" if request.param == "disk" else None
    store = cutter.store(root, database)
    assert store.refresh()
    assert cutter.names() == ["a.txt", "b.log"]
    yield store
    store.close()


def test_nothing_changed_and_nothing_is_read(store: PassageStore, cutter: CountingCutter) -> None:
    assert not store.refresh()
    assert cutter.names() == []
    assert texts(store) == ["one", "two", "three", "four"]
    assert (store.counts.num_passages, store.counts.num_files) == (4, 2)
    assert store.counts.num_chars == len("onetwothreefour")


def test_a_changed_file_alone_is_read_again(
    store: PassageStore, cutter: CountingCutter, root: Path
) -> None:
    write(root / "a.txt", "one\n2\n")
    assert store.refresh()
    assert cutter.names() == ["a.txt"]
    assert texts(store) == ["one", "2", "three", "four"]
    assert store.search("two", 5) == []


def test_a_grown_log_is_read_on_from_its_last_piece(
    store: PassageStore, cutter: CountingCutter, root: Path
) -> None:
    before = store.search("three", 1)[0].passage.number
    write(root / "b.log", "three\nfour and a half\nfive\n")
    cutter.cut_files.clear()
    assert store.refresh()
    assert cutter.cut_files == [("b.log", 0)], "its tail changed: it is no mere growth"
    with (root / "b.log").open("a") as log:
        log.write("six\n")
    cutter.cut_files.clear()
    number = store.search("three", 1)[0].passage.number
    assert store.refresh()
    assert cutter.cut_files == [("b.log", len("three\nfour and a half\n"))]
    assert texts(store)[2:] == ["three", "four and a half", "five", "six"]
    assert store.search("three", 1)[0].passage.number == number != before
    assert store.counts.num_passages == 6


def test_a_last_line_that_was_half_written_is_read_again(store: PassageStore, root: Path) -> None:
    with (root / "b.log").open("a") as log:
        log.write("valve op")
    store.refresh()
    with (root / "b.log").open("a") as log:
        log.write("ened\n")
    store.refresh()
    assert texts(store)[2:] == ["three", "four", "valve opened"]


def test_a_grown_file_that_cannot_be_resumed_is_read_again(
    store: PassageStore, cutter: CountingCutter, root: Path
) -> None:
    with (root / "a.txt").open("a") as file:
        file.write("more\n")
    cutter.cut_files.clear()
    store.refresh()
    assert cutter.cut_files == [("a.txt", 0)]


def test_rotated_logs_are_only_renamed(
    store: PassageStore, cutter: CountingCutter, root: Path
) -> None:
    number = store.search("three", 1)[0].passage.number
    (root / "b.log").rename(root / "b.1.log")
    write(root / "b.log", "new\n")
    assert store.refresh()
    assert cutter.names() == ["b.log"]
    (root / "b.1.log").rename(root / "b.2.log")
    (root / "b.log").rename(root / "b.1.log")
    assert store.refresh()
    assert cutter.names() == []
    files = {passage.text: passage.file for passage in store.first(9)}
    assert (files["three"], files["new"]) == ("b.2.log", "b.1.log")
    assert store.search("three", 1)[0].passage.number == number


def test_a_log_that_grew_before_it_was_rotated_is_read_on(
    store: PassageStore, cutter: CountingCutter, root: Path
) -> None:
    with (root / "b.log").open("a") as log:
        log.write("five\n")
    (root / "b.log").rename(root / "b.1.log")
    cutter.cut_files.clear()
    store.refresh()
    assert cutter.cut_files == [("b.1.log", len("three\n"))]
    assert texts(store)[2:] == ["three", "four", "five"]


def test_a_file_renamed_to_another_kind_is_cut_anew(
    store: PassageStore, cutter: CountingCutter, root: Path
) -> None:
    (root / "b.log").rename(root / "b.md")
    store.refresh()
    assert cutter.names() == ["b.md"]


def test_a_deleted_file_goes(store: PassageStore, cutter: CountingCutter, root: Path) -> None:
    (root / "a.txt").unlink()
    assert store.refresh()
    assert cutter.names() == []
    assert texts(store) == ["three", "four"]
    assert store.search("one", 5) == []
    assert store.counts.num_files == 1


def test_a_touched_file_is_not_read_again(
    store: PassageStore, cutter: CountingCutter, root: Path
) -> None:
    os.utime(root / "a.txt", (5, 5))
    assert not store.refresh()
    assert cutter.names() == []


def test_bad_files_cost_themselves_alone(
    store: PassageStore, cutter: CountingCutter, root: Path
) -> None:
    write(root / "bad.txt", "good begin\nBAD\n")
    write(root / "empty.log", "")
    assert store.refresh()
    assert [(f.name, f.reason) for f in store.counts.skipped] == [("bad.txt", SkipReason.BINARY)]
    cutter.cut_files.clear()
    assert not store.refresh()
    assert cutter.names() == []
    assert store.counts.skipped[0].reason is SkipReason.BINARY, "it is still counted"
    assert texts(store) == ["one", "two", "three", "four"]
    write(root / "bad.txt", "now good\n")
    store.refresh()
    assert "now good" in texts(store)
    assert store.counts.skipped == ()


def test_an_equally_long_change_within_one_tick_of_the_clock_is_seen(
    root: Path, cutter: CountingCutter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshing, "look_at", coarse(5))
    cutter.now_ns = 5 * 10**9 + 1
    store = cutter.store(root)
    store.refresh()
    write(root / "a.txt", "one\nTWO\n")
    cutter.names()
    assert store.refresh()
    assert cutter.names() == ["a.txt"]
    assert texts(store)[:2] == ["one", "TWO"]
    cutter.now_ns = 60 * 10**9
    assert not store.refresh(), "looked at once more, since it was touched just before"
    write(root / "a.txt", "one\nsix\n")
    assert not store.refresh(), "the clock stands still long after: not even git would see that"


def coarse(second: int) -> Callable[[Path], Look]:
    """Looks on a file system whose clock stands at one second."""

    def look(path: Path) -> Look:
        return replace(look_at(path), mtime_ns=second * 10**9, ctime_ns=second * 10**9)

    return look


def test_a_single_file_may_be_of_any_suffix_and_must_be_readable(
    tmp_path: Path, cutter: CountingCutter
) -> None:
    write(tmp_path / "notes", "one\n")
    store = cutter.store(tmp_path / "notes")
    assert store.refresh()
    assert texts(store) == ["one"]
    write(tmp_path / "notes", "BAD\n")
    with pytest.raises(CannotReadError, match=r"^binary$"):
        store.refresh()
    assert texts(store) == []
    (tmp_path / "notes").unlink()
    with pytest.raises(CannotReadError, match=r"^no such file or directory$"):
        store.refresh()


def test_a_store_without_a_root_is_empty(cutter: CountingCutter) -> None:
    store = cutter.store(None)
    assert not store.refresh()
    assert store.search("anything", 3) == []
    assert store.newest(3) == store.first(3) == []
    assert store.get(1) is None


def test_newest_goes_by_entries_and_else_by_files(tmp_path: Path, cutter: CountingCutter) -> None:
    write(tmp_path / "a.log", "@100 x\n@300 y\n", mtime_s=9000)
    write(tmp_path / "b.txt", "old\nold too\n", mtime_s=200)
    store = cutter.store(tmp_path)
    store.refresh()
    assert [p.text for p in store.newest(9)] == ["@300 y", "old too", "old", "@100 x"]
    assert [p.text for p in store.newest(1)] == ["@300 y"]
    assert [p.text for p in store.first(3)] == ["@100 x", "@300 y", "old"]
    assert store.first(1)[0].place == "byte 0"


def test_first_sorts_folders_as_paths(tmp_path: Path, cutter: CountingCutter) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "z.txt", "in folder\n")
    write(tmp_path / "a.txt", "beside\n")
    store = cutter.store(tmp_path)
    store.refresh()
    assert texts(store) == ["in folder", "beside"]
