"""The private context of a node: read from disk, tokenized, never sent."""

import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path

from fedattn.core.errors import ConfigurationError
from fedattn.model.prompt import PromptTokenizer

_SUFFIXES = {".txt", ".md"}
_MAX_SIZE_BYTES = 16 << 20
VERSION_SIZE = 16

_Stamp = tuple[tuple[str, int, int], ...]


@dataclass(slots=True)
class PrivateContext:
    """Text of a file or folder, read again whenever it changes.

    A folder's files are joined in order of their names.
    """

    path: Path | None
    _stamp: _Stamp | None = None
    _text: str = ""

    def text(self) -> str:
        """The current text; empty without a path.

        Raises:
            ConfigurationError: it cannot be read, is no UTF-8 text, or is too large.
        """
        if self.path is None:
            return ""
        try:
            files = _list_files(self.path)
            stamp = tuple((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)
            if stamp != self._stamp:
                self._text = self._read(files, sum(size for _, size, _ in stamp))
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"the private context {self.path} cannot be read: {type(error).__name__}; "
                f"it must be UTF-8 text that this process may read"
            ) from None  # the original message may quote the text
        return self._text

    def _read(self, files: list[Path], size: int) -> str:
        if size > _MAX_SIZE_BYTES:
            raise ConfigurationError(
                f"the private context {self.path} has {size} bytes, the limit is {_MAX_SIZE_BYTES}"
            )
        return "\n\n".join(file.read_text(encoding="utf-8").strip() for file in files)


def _list_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file() and file.suffix in _SUFFIXES)


@dataclass(slots=True)
class ContextTokens:
    """Token ids of the context, computed again only when the text changes.

    Each change draws a version at random, which says that it changed and nothing of what it is.
    """

    context: PrivateContext
    tokenizer: PromptTokenizer
    _text: str | None = None
    _token_ids: tuple[int, ...] = ()
    _version: bytes = b""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def current(self) -> list[int]:
        """Token ids of a contributor's span, without any prefix.

        Raises:
            ConfigurationError: the context cannot be read.
        """
        return self.snapshot()[0]

    def snapshot(self) -> tuple[list[int], bytes]:
        """Token ids as `current`, and the version they belong to."""
        with self._lock:  # sessions tokenize in threads of their own
            text = self.context.text()
            if text != self._text:
                self._token_ids = tuple(self.tokenizer.context(text))
                self._text = text
                self._version = secrets.token_bytes(VERSION_SIZE)
            return list(self._token_ids), self._version
