"""Whatever a command meets, its user gets one line and an exit code."""

import sys
from collections.abc import Callable

import pytest
import typer

from fedattn.cli.failures import check_arguments, run_command
from fedattn.core.errors import InvalidRequestError, ModelError


def failing(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ModelError("no model"), 1, "error [model]: no model"),
        (
            PermissionError(13, "Permission denied", "/x/out.json"),
            1,
            "error [configuration]: /x/out.json: Permission denied",
        ),
        (OSError(28, "No space left on device"), 1, "error [configuration]: output: No space"),
        (MemoryError(), 1, "error [configuration]: this machine has too little memory"),
        (
            ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"),
            1,
            "error [configuration]: torch: not installed; install with: "
            "pip install 'fedattn[participant]'",
        ),
        (ModuleNotFoundError(name="left"), 1, "error [configuration]: left: not installed"),
        (
            ZeroDivisionError("by\nzero \x1b[2J"),
            1,
            r"error [internal]: ZeroDivisionError: by zero \x1b[2J; FEDATTN_DEBUG=1 shows where",
        ),
        (RecursionError("deep"), 1, "error [internal]: RecursionError: deep"),
        (typer.BadParameter("not 7."), 2, "error [usage]: Invalid value: not 7"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_failure_is_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(failing(error)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (told,) = captured.err.splitlines()
    assert told.startswith(line)


@pytest.mark.parametrize(
    ("error", "code"), [(BrokenPipeError(), 1), (SystemExit(3), 3), (SystemExit(), 0)]
)
def test_nothing_is_said_where_there_is_nothing_to_say(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(failing(error)) == code
    assert capsys.readouterr() == ("", "")


def test_debugging_shows_where_an_error_arose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDATTN_DEBUG", "1")
    assert run_command(failing(ZeroDivisionError("by zero"))) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert "in command" in told
    assert told.splitlines()[-1].startswith("error [internal]: ZeroDivisionError")


def test_an_error_text_of_a_gateway_controls_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_command(failing(ModelError("no \x1b[2J model")))
    assert r"no \x1b[2J model" in capsys.readouterr().err


def test_a_command_without_failure_ends_with_its_code() -> None:
    assert run_command(lambda: None) == 0
    assert run_command(lambda: 2) == 2


def test_closed_streams_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert run_command(lambda: print("x")) == 0
    monkeypatch.setattr(sys, "stderr", None)
    assert run_command(failing(ModelError("x"))) == 1


def test_an_argument_that_is_no_text_is_named_by_its_place() -> None:
    check_arguments(["ask", "茶?"])
    with pytest.raises(InvalidRequestError, match="argument 2, "):
        check_arguments(["ask", "caf\udce9"])
