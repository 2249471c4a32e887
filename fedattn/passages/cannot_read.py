"""When a node's texts cannot be read at all."""


class CannotReadError(Exception):
    """Why texts cannot be read; names no file, so that others may know."""
