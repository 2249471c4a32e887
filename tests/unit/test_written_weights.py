"""Files of weights against what was written: every change is seen, and a hash is taken once."""

import os
from pathlib import Path

import pytest

from fedattn.model.weights import written
from fedattn.model.weights.written import NOTE_NAME, note_written, require_whole


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(range(256)) * 20)
    note_written(path)
    return path


def touch(file: Path) -> None:
    """As a copy or a restored backup leaves it."""
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


def never(_: Path) -> str:
    raise AssertionError("hashed")


def test_what_was_written_is_not_hashed_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "_hash", never)
    require_whole(file)


def test_a_file_of_the_same_length_with_other_bytes_is_refused(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(1000)
        stream.write(bytes(600))
    touch(file)
    for _ in range(2):  # and is not taken for the right one later
        with pytest.raises(ValueError, match=r"SHA-256 of model\.safetensors is .*, expected"):
            require_whole(file)


def test_a_file_of_another_length_is_refused_without_hashing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "_hash", never)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="has 5119 bytes, expected 5120"):
        require_whole(file)


def test_a_touched_file_is_hashed_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(file)
    require_whole(file)
    assert [path.name for path in sorted(file.parent.iterdir())] == [file.name, NOTE_NAME]
    monkeypatch.setattr(written, "_hash", never)
    require_whole(file)


def test_where_nothing_may_be_written_it_is_hashed_each_time(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    def count(path: Path) -> str:
        hashed.append(path)
        return right

    hashed: list[Path] = []
    right = written._hash(file)
    monkeypatch.setattr(written, "_write_note", refuse)
    monkeypatch.setattr(written, "_hash", count)
    touch(file)
    require_whole(file)
    require_whole(file)
    assert hashed == [file, file]


@pytest.mark.parametrize("note", ["{", "[]", "{}", '{"sha256": "0", "size": null}'])
def test_a_damaged_note_is_refused(file: Path, note: str) -> None:
    (file.parent / NOTE_NAME).write_text(note)
    with pytest.raises(ValueError, match=r"."):
        require_whole(file)
