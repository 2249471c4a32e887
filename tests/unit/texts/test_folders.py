"""Which files of a folder are read, and what is said of the others."""

import os
from pathlib import Path

import pytest

from fedattn.core.contexts import SkipReason
from fedattn.passages.store import PassageStore

HARBOUR = "Harbour log. The ship Aurora lies at pier 4."


def read(path: Path) -> tuple[str, dict[str, SkipReason]]:
    """The text as a node's store has it, and what was left out by name."""
    store = PassageStore(path, None)
    store.refresh()
    text = "\n\n".join(passage.text for passage in store.first(100))
    return text, {skipped.name: skipped.reason for skipped in store.counts.skipped}


@pytest.mark.parametrize(
    "name",
    [
        "LOG.TXT", "a.Md", "y.log", "t.csv", "t.TSV", "x.json", "x.jsonl", "c.yaml", "c.YML",
        "2026/11/log.txt",
    ],
)  # fmt: skip
def test_texts_of_every_common_kind_are_read_at_any_depth(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HARBOUR)
    assert read(tmp_path) == (HARBOUR, {})


def test_csv_log_and_json_of_one_folder_are_all_read(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("ship,pier\nAurora,4\n")
    (tmp_path / "x.json").write_text('{"ship":"Aurora","pier":4}')
    (tmp_path / "y.log").write_text(HARBOUR)
    text, skipped = read(tmp_path)
    assert text == f"ship: Aurora; pier: 4\n\nship: Aurora; pier: 4\n\n{HARBOUR}"
    assert skipped == {}


def test_of_a_page_its_visible_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.HTML").write_text(
        "<html><head><style>p{color:red}</style></head><body><script>x()</script>"
        "<p>Aurora</p><p>lies at <b>pier&nbsp;4</b>.</p></body></html>"
    )
    text, skipped = read(tmp_path)
    assert skipped == {}
    assert text.split() == ["Aurora", "lies", "at", "pier", "4."]


def test_hidden_files_are_passed_over_without_a_word(tmp_path: Path) -> None:
    (tmp_path / ".secret.txt").write_text("no")
    (tmp_path / "._log.txt").write_text("no")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.txt").write_text("no")
    (tmp_path / "a.txt").write_text("yes")
    assert read(tmp_path) == ("yes", {})


def test_one_bad_file_costs_itself_alone_and_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(HARBOUR)
    (tmp_path / "b.txt").write_bytes("Café".encode("cp1252"))  # é or another letter: not certain
    (tmp_path / "c.md").write_text("The crane works.")
    (tmp_path / "d.txt").write_bytes(b"")
    (tmp_path / "e.txt").write_text(" \n\t")
    (tmp_path / "f.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "g.txt").write_bytes(bytes(range(256)))
    text, skipped = read(tmp_path)
    assert text.startswith(HARBOUR)
    assert text.endswith("The crane works.")
    assert skipped.pop("b.txt", SkipReason.UNDECODABLE) is SkipReason.UNDECODABLE
    assert skipped == {
        "d.txt": SkipReason.EMPTY,
        "e.txt": SkipReason.BLANK,
        "f.pdf": SkipReason.UNREADABLE,
        "g.txt": SkipReason.BINARY,
    }


def test_a_file_that_is_too_large_costs_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b" " * (16 << 20) + b"{}")  # read as a whole, or not at all
    (tmp_path / "b.txt").write_text("small")
    assert read(tmp_path) == ("small", {"a.json": SkipReason.TOO_LARGE})


def test_links_do_not_lead_out_and_loops_end(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("not given")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("given")
    (folder / "out.txt").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (folder / "twice.txt").symlink_to(folder / "a.txt")
    text, skipped = read(folder)
    assert text == "given"
    assert skipped == {
        "loop": SkipReason.DUPLICATE,
        "out.txt": SkipReason.OUTSIDE,
        "twice.txt": SkipReason.DUPLICATE,
    }


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.txt")
    assert read(tmp_path) == ("", {"p.txt": SkipReason.UNREADABLE})


def test_a_given_file_is_read_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text(HARBOUR)
    assert read(tmp_path / "notes") == (HARBOUR, {})
