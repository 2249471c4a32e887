"""`fedattn passages` shows an owner what the node has, and what a question finds."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedattn.cli.failures import run_command
from fedattn.cli.main import command_line
from fedattn.passages.store import PassageStore
from fedattn.runtime.state import PASSAGES_FILE

PUMP = "The pump of line 3 needs the seal \x1b[2JX-12.\n\tIt lies on shelf 7."


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("A ship lies at pier 4.\n")
    (folder / "pu\nmp\x1b.txt").write_text(PUMP)
    return folder


@pytest.fixture
def state(tmp_path: Path, texts: Path) -> Iterator[Path]:
    """Of a node that runs."""
    folder = tmp_path / "state"
    store = PassageStore(texts, folder / PASSAGES_FILE)
    store.refresh()
    yield folder
    store.close()


def run(*arguments: str) -> int:
    words = ["passages", *arguments]
    return run_command(lambda: command_line()(words, prog_name="fedattn", standalone_mode=False))


def test_show_prints_file_place_and_text(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "2", "1", f"--state={state}") == 0
    shown = capsys.readouterr().out
    second, first = shown.split("\n\n")
    assert first == "1  a.txt, line 1\nA ship lies at pier 4.\n"
    heading, _, text = second.partition("\n")
    assert heading == r"2  pu mp\x1b.txt, lines 1-2"
    assert text.startswith("The pump of line 3 needs the seal ")
    assert text.endswith("It lies on shelf 7.")


def test_show_names_numbers_that_are_not_there(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("show", "1", "77", "78", f"--state={state}") == 1
    captured = capsys.readouterr()
    assert "pier 4" in captured.out
    assert captured.err.startswith("error [invalid_request]: no passage has the number 77, 78;")


def test_search_prints_the_best_first(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("search", "on which shelf lies the seal of the pump", f"--state={state}") == 0
    header, best, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == ["number", "score", "coverage", "file", "place", "first", "line"]
    assert best.startswith("2 ")
    assert r"pu mp\x1b.txt" in best
    assert "%" in best
    assert "The pump of line 3" in best


def test_search_keeps_its_limit(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("search", "lies", f"--state={state}", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert run("search", "lies", f"--state={state}", "--limit=1", "--json") == 0
    (hit,) = json.loads(capsys.readouterr().out)
    assert set(hit) == {"number", "score", "coverage", "file", "place", "text"}
    assert 0 < hit["coverage"] <= 1


def test_search_leaves_out_what_a_node_would_not_give(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rare = "lies " + " ".join(f"unheard{chr(97 + index)}" for index in range(20))
    assert run("search", rare, f"--state={state}") == 0
    assert capsys.readouterr().out == "no passage fits these words\n"


def test_list_goes_as_the_text_or_by_time(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", f"--state={state}", "--limit=1") == 0
    shown = capsys.readouterr().out
    assert "a.txt" in shown
    assert shown.endswith("1 of 2 passages, 2 files\n")
    assert run("list", f"--state={state}", "--newest", "--json") == 0
    assert [one["number"] for one in json.loads(capsys.readouterr().out)] == [2, 1]


def test_texts_are_looked_at_without_a_node(
    texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(texts.parent.iterdir())
    assert run("search", "pier", f"--texts={texts}", "--json") == 0
    (hit,) = json.loads(capsys.readouterr().out)
    assert (hit["number"], hit["file"], hit["coverage"]) == (1, "a.txt", 1.0)
    assert run("show", "1", f"--texts={texts / 'a.txt'}") == 0
    assert capsys.readouterr().out == "1  a.txt, line 1\nA ship lies at pier 4.\n"
    assert sorted(texts.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["list", "--state={tmp}"], "error [configuration]: no index in {tmp}: start the node"),
        (["list", "--state={tmp}/none"], "error [configuration]: state folder {tmp}/none: no such"),
        (["list", "--texts={tmp}/none"], "error [invalid_request]: --texts {tmp}/none: no such f"),
        (["list", "--texts={tmp}", "--state={tmp}"], "error [invalid_request]: --state and --te"),
        (["show", "0", "--state={tmp}"], "error [usage]: "),
        (["show", str(1 << 64), "--state={tmp}"], "error [usage]: "),
    ],
)
def test_mistake_is_one_line(
    tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(word.replace("{tmp}", str(tmp_path)) for word in words)) in {1, 2}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(told.replace("{tmp}", str(tmp_path)))


def test_an_index_that_breaks_later_is_told(
    tmp_path: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / PASSAGES_FILE
    store = PassageStore(texts, path)
    store.refresh()
    store.close()
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\x5a" * (len(data) - 4096))
    assert run("list", f"--state={tmp_path}") == 1
    assert "error [configuration]: passages cannot be read: its index is broken" in (
        capsys.readouterr().err
    )
