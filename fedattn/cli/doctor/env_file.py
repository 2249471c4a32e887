"""The file of a service's settings, as systemd reads it (systemd.exec, EnvironmentFile)."""

import shlex
from pathlib import Path

from fedattn.core.errors import ConfigurationError

DEFAULT_ENV_FILE = Path("/etc/fedattn/node.env")
"""Where the installer of edge nodes writes it."""


def read_env_file(path: Path) -> dict[str, str]:
    """Variables and their values.

    Raises:
        ConfigurationError: it cannot be read, or a line is none of NAME=VALUE.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise ConfigurationError(
            f"--env-file {path}: cannot be read ({reason.lower()}); run this as root or as the "
            f"user of the service, or name another file"
        ) from error
    pairs = (_read_line(path, number, line) for number, line in enumerate(lines, start=1))
    return dict(pair for pair in pairs if pair is not None)


def _read_line(path: Path, number: int, line: str) -> tuple[str, str] | None:
    text = line.strip()
    if not text or text[0] in "#;":
        return None
    name, equals, value = text.partition("=")
    unquoted = _unquote(value.strip())
    if not equals or not name.strip().isidentifier() or unquoted is None:
        raise ConfigurationError(
            f"--env-file {path}: line {number} is none of NAME=VALUE; see docs/settings.md"
        )
    return name.strip(), unquoted


def _unquote(value: str) -> str | None:
    """The value; None if its quotes do not end, or something stands behind them."""
    if value[:1] not in {'"', "'"}:
        return value
    try:
        (word,) = shlex.split(value)
    except ValueError:
        return None
    return word
