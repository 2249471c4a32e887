"""What `fedattn up` refuses before anything starts."""

import socket
from pathlib import Path

import pytest

from fedattn.cli.main import command_line
from fedattn.core.errors import ConfigurationError, InvalidRequestError, ModelError


def up(*words: str) -> None:
    command_line()(["up", *words], standalone_mode=False)


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "a.txt").write_text("The ship lies at pier 4.")
    return f"--context={tmp_path / 'a.txt'}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--context={tmp}/gone"], "gone: no such file or folder"),
        (["{text}", "{text}"], "given twice"),
        (["{text}", "--file=f.toml"], "--context and --file f.toml: expected one of them"),
    ],
)
def test_what_makes_no_network_is_refused(
    tmp_path: Path, text: str, words: list[str], told: str
) -> None:
    with pytest.raises(InvalidRequestError, match=told):
        up(*(word.format(tmp=tmp_path, text=text) for word in words))


def test_a_taken_port_is_told_with_a_remedy(text: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"{port}: .*--port 0 takes any"):
            up(text, f"--port={port}")


def test_a_model_that_is_none_is_told_before_anything_starts(text: str) -> None:
    with pytest.raises(ModelError, match="'nowhere' is no folder"):
        up(text, "--model=nowhere", "--port=0")


def test_a_text_that_cannot_be_read_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(100))
    with pytest.raises(ConfigurationError, match=r"a\.txt cannot be read: binary"):
        up(f"--context={tmp_path / 'a.txt'}", "--port=0")


def test_a_pdf_under_another_name_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 4)
    with pytest.raises(ConfigurationError, match=r"a\.txt cannot be read: .*this is a PDF; rename"):
        up(f"--context={tmp_path / 'a.txt'}", "--port=0")


def test_a_damaged_pdf_is_told_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7\nnothing that follows")
    with pytest.raises(ConfigurationError, match=r"a\.pdf cannot be read: .*damaged"):
        up(f"--context={tmp_path / 'a.pdf'}", "--port=0")


def test_a_file_in_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "federation.toml").write_text("colour = 1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"federation\.toml: .*key colour: unknown"):
        up()
    assert "as federation.toml says" not in capsys.readouterr().out


def test_a_policy_that_says_what_it_may_not_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("lowest_blok = 0")
    file = tmp_path / "federation.toml"
    file.write_text('[[node]]\nid = "a"\npolicy = "p.toml"')
    with pytest.raises(ConfigurationError, match=r"p\.toml: lowest_blok: expected one of the keys"):
        up(f"--file={file}", "--port=0")
