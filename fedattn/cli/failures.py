"""The border of the command line: every failure is one line on stderr and an exit code."""

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

from fedattn.core.errors import ConfigurationError, FedAttnError
from fedattn.core.limits import check_text
from fedattn.core.printable import one_line, printable
from fedattn.runtime.extras import missing_module

DEBUG_VARIABLE = "FEDATTN_DEBUG"
FAILED = 1
MISUSED = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells say it
EXIT_CODES: Mapping[int, str] = MappingProxyType(
    {
        0: "done",
        FAILED: "failed; stderr has one line: error [CODE]: what, and what to do",
        MISUSED: "no such command or option, or a value that it does not take",
        INTERRUPTED: "Ctrl-C",
    }
)


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command and write out what it printed.

    Returns:
        Exit code: the command's own, 0 for None; 1 after a failure, 2 after one of usage, which
        are told on stderr; 130 after Ctrl-C; a quiet 1 when nobody reads the output any more.
    """
    _print_in_any_locale()
    try:
        code = command() or 0
        sys.stdout.flush()
    except BrokenPipeError:
        code = FAILED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else FAILED if error.code else 0
    except Exception as error:  # border: whatever it is, users get a line, not a traceback
        code = _tell(error)
    if code == INTERRUPTED:
        _say("interrupted")
    _abandon_unwritten_output()
    return code


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse arguments whose bytes are no text in this locale.

    Raises:
        InvalidRequestError: names the argument by its place.
    """
    for place, argument in enumerate(arguments, start=1):
        check_text(f"argument {place}, {argument[:40]!r},", argument)


def _tell(error: Exception) -> int:
    """Print an error as one line, with its traceback before it for those who debug."""
    line, code = _describe(error)
    if os.environ.get(DEBUG_VARIABLE):
        _say("".join(traceback.format_exception(error)).rstrip())
    if line:
        _say(line)
    return code


def _say(text: str) -> None:
    with suppress(OSError, ValueError):  # stderr is closed or full: the exit code still tells
        print(printable(text), file=sys.stderr, flush=True)


def _describe(error: Exception) -> tuple[str, int]:
    """The line, which is empty if all was said, and the exit code."""
    if hasattr(error, "format_message"):  # what the option parser raises, of whatever version
        return _usage(error, str(error.format_message()))
    if type(error).__name__ == "Abort":
        return "", INTERRUPTED
    known = _as_ours(error)
    if known is not None:
        return f"error [{known.code}]: {known}", FAILED
    reason = one_line(f"{type(error).__name__}: {error}")[:300]
    return f"error [internal]: {reason}; {DEBUG_VARIABLE}=1 shows where it arose", FAILED


def _as_ours(error: Exception) -> FedAttnError | None:
    """The error of our tree that says the same; None for what nobody foresaw."""
    match error:
        case FedAttnError():
            return error
        case ModuleNotFoundError(name=str(name)):
            return missing_module(name)
        case OSError(filename=filename, strerror=str(reason)):
            where = os.fsdecode(filename) if isinstance(filename, str | bytes) else "output"
            return ConfigurationError(f"{where}: {reason}")
        case MemoryError():
            return ConfigurationError("this machine has too little memory for that")
    return None


def _usage(error: Exception, message: str) -> tuple[str, int]:
    """A mistake in the options; help that was printed instead leaves nothing to say."""
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f"; see: {context.command_path} --help"
    message = one_line(message.strip().rstrip("."))
    return f"error [usage]: {message}{hint}" if message else "", getattr(
        error, "exit_code", MISUSED
    )


def _print_in_any_locale() -> None:
    r"""Characters the locale cannot write appear as escapes such as \u2019."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _abandon_unwritten_output() -> None:
    """Where output cannot be written, keep Python from trying, and complaining, once more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
