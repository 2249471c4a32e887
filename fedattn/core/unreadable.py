"""Why a file cannot be read as text, for people who know which file is meant."""


def why_unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Such as `no such file or directory`."""
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        return f"expected text in UTF-8, got byte 0x{byte:02x} at {error.start}; is it a text?"
    return (error.strerror or type(error).__name__).lower()
