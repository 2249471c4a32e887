"""Files a command writes its results to: checked before the work, written after it."""

import os
import sys
from pathlib import Path

from fedattn.cli.terminal import PlainConsole, output, progress
from fedattn.core.errors import InvalidRequestError

STDOUT = Path("-")
"""Written to, it is printed, and nothing else is."""


def validate_out(option: str, path: Path | None, *, suffix: str = "") -> None:
    """Refuse a path that could not be written at the end.

    Args:
        option: as the user wrote it, such as `--json`.
        path: of the file; None if the option was not given.
        suffix: what its name must end with.

    Raises:
        InvalidRequestError: says what is in the way.
    """
    if path is None or path == STDOUT:
        return
    folder = path.absolute().parent
    if suffix and path.suffix != suffix:
        raise InvalidRequestError(f"{option} {path}: expected a {suffix} file")
    if path.is_dir():
        raise InvalidRequestError(f"{option} {path}: expected a file, got a folder")
    if not folder.is_dir():
        raise InvalidRequestError(f"{option} {path}: no such folder; make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InvalidRequestError(f"{option} {path}: may not be written; choose another place")


def write_out(option: str, path: Path, text: str) -> None:
    """Write a result.

    Raises:
        InvalidRequestError: the file cannot be written, which was not foreseen.
    """
    if path == STDOUT:
        sys.stdout.write(text)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(
            f"{option} {path}: cannot be written: {error.strerror}"
        ) from error


def report_console(json_path: Path | None) -> PlainConsole:
    """Where a command tells its results to people: stdout, unless that is for programs."""
    return progress() if json_path == STDOUT else output()
