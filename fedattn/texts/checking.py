"""A first look at a private context, before anything slow begins."""

from pathlib import Path

from fedattn.core.contexts import SkipReason
from fedattn.core.errors import ConfigurationError
from fedattn.texts.listing import FoundFile, Listing, SkippedFile, list_files
from fedattn.texts.pieces import SkippedError, cut_file

_HARMLESS = {SkipReason.EMPTY, SkipReason.BLANK}
"""A single file may be so; it has nothing to give, but nothing is wrong with reading it."""


_EXPECTED = "expected a text, or a folder of texts, that this process may read"


def check_context(path: Path | None, encoding: str | None) -> Listing:
    """What will be read of a context, by names alone if it is a folder, and what is left out.

    Raises:
        ConfigurationError: it cannot be read; names it.
    """
    if path is None:
        return Listing()
    try:
        if path.is_dir():
            return list_files(path)
        next(cut_file(path, encoding=encoding), None)
        return Listing(files=[FoundFile(path.name, path)])
    except (OSError, SkippedError) as error:
        if isinstance(error, SkippedError) and error.reason in _HARMLESS:
            return Listing(skipped=[SkippedFile(path.name, error.reason)])
        reason, remedy = error.strerror if isinstance(error, OSError) else "", _EXPECTED
        if isinstance(error, SkippedError):
            reason, remedy = error.reason.words, error.remedy or _EXPECTED
        raise ConfigurationError(f"the context {path} cannot be read: {reason}; {remedy}") from None
