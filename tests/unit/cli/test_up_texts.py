"""`fedattn up --texts`: a node a folder or file."""

from pathlib import Path

import pytest

from fedattn.cli.demo import MAX_NODES, find_texts
from fedattn.core.errors import InvalidRequestError


def test_each_folder_and_file_is_a_node(tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    (tmp_path / "lab.txt").write_text("w1")
    (tmp_path / ".hidden").mkdir()
    assert find_texts(tmp_path) == {"lab": tmp_path / "lab.txt", "ward": tmp_path / "ward"}


@pytest.mark.parametrize(
    "names", [[], ["publisher"], ["a b"], [f"n{number}" for number in range(MAX_NODES + 1)]]
)
def test_what_makes_no_network_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(InvalidRequestError):
        find_texts(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="gone: no such folder"):
        find_texts(tmp_path / "gone")
