"""Nodes are named after their texts."""

from pathlib import Path

import pytest

from fedattn.cli.federation import Federation, NodeTable
from fedattn.cli.node_names import check_own_name, name_after


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("c.csv", "c"),
        ("Night Shift (2026).TXT", "night-shift-2026"),
        ("Büro.md", "buro"),
        ("app.log.gz", "app.log"),
        ("茶.txt", "node"),
        ("-x-.txt", "x"),
        ("a" * 90 + ".txt", "a" * 60),
        ("gateway.txt", "gateway-2"),
        ("ca.txt", "ca-2"),
    ],
)
def test_a_file_names_its_node_by_an_id(tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / file).touch()
    assert check_own_name(name_after(tmp_path / file, ())) == name


def test_a_folder_names_its_node_by_its_whole_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "notes.v2"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert name_after(Path(), ()) == "notes.v2"


def test_a_name_that_is_taken_gets_the_next_free_number(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.txt", "a.md", "A.csv")]
    for path in paths:
        path.touch()
    named = Federation(node=[NodeTable(id="a-2"), *(NodeTable(context=path) for path in paths)])
    assert [node.id for node in named.nodes()] == ["desk", "a-2", "a", "a-3", "a-4"]


def test_the_default_publisher_has_no_text_unless_a_node_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "b.txt").touch()
    table = NodeTable(context=tmp_path / "b.txt")
    desk, _ = Federation(node=[table], model="m").nodes()
    assert (desk.id, desk.context, desk.model) == ("desk", None, "m")
    (own,) = Federation(node=[table], publisher="b").nodes()
    assert (own.id, own.context) == ("b", table.context)
