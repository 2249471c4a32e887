"""Where results cannot be written is known before the work."""

from pathlib import Path

import pytest

from fedattn.cli.outfiles import validate_out, write_out
from fedattn.core.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none/x.json", "no such folder"),
        ("folder", "expected a file, got a folder"),
        ("file/x.json", "no such folder"),
    ],
)
def test_path_that_cannot_be_written_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequestError, match=f"--json .*{name}: {words}"):
        validate_out("--json", tmp_path / name)


def test_path_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(InvalidRequestError, match="may not be written"):
        validate_out("--json", tmp_path / "x.json")


def test_wrong_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"expected a \.json file"):
        validate_out("--out", tmp_path / "x.txt", suffix=".json")


def test_good_path_and_no_path_are_taken(tmp_path: Path) -> None:
    validate_out("--json", None)
    validate_out("--json", tmp_path / "x.json")
    write_out("--json", tmp_path / "x.json", "{}\n")
    validate_out("--json", tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text() == "{}\n"


def test_file_that_cannot_be_written_at_the_end_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"--json .*cannot be written: Is a directory"):
        write_out("--json", tmp_path, "{}\n")
