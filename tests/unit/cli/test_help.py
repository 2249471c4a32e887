"""Every command has examples, shells complete them, and the document says what the code says."""

import pytest
import typer

from benchmarks.command_table import DOCUMENT, commands, document
from fedattn.cli.epilogs import EXAMPLES
from fedattn.cli.failures import EXIT_CODES, run_command
from fedattn.cli.main import command_line
from tests.harness.command_lines import check_block


def test_document_says_what_the_code_says() -> None:
    text = DOCUMENT.read_text()
    assert text == document(text), "docs/command-line.md is out of date; run: make docs"


def test_every_command_has_examples_below_its_help() -> None:
    root = typer.main.get_command(command_line())
    paths = {path.removeprefix("fedattn "): command for path, command in commands(root)}
    assert paths.keys() == EXAMPLES.keys()
    for path, command in paths.items():
        assert all(line in command.epilog for line in EXAMPLES[path])


def test_examples_could_be_run() -> None:
    assert [*check_block("\n".join(line for lines in EXAMPLES.values() for line in lines))] == []


def test_exit_codes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(lambda: command_line()(["--help"], prog_name="fedattn", standalone_mode=False))
    told = capsys.readouterr().out
    assert all(f"{code}: " in told for code in EXIT_CODES)


@pytest.mark.parametrize(
    ("words", "completed"),
    [("fedattn do", {"doctor"}), ("fedattn doctor --agg", {"--aggregator"})],
)
def test_a_shell_gets_what_could_follow(
    words: str,
    completed: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("_FEDATTN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert run_command(lambda: command_line()(prog_name="fedattn", standalone_mode=False)) == 0
    assert set(capsys.readouterr().out.split()) == completed


def test_a_shell_gets_a_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    words = ["--show-completion", "bash"]
    run_command(lambda: command_line()(words, prog_name="fedattn", standalone_mode=False))
    assert "complete -o default -F _fedattn_completion fedattn" in capsys.readouterr().out
