"""Why a file gives no pieces."""

from fedattn.core.contexts import SkipReason


class SkippedError(Exception):
    """A file is not read, or not read to its end.

    Attributes:
        reason: what others may know.
        remedy: what its owner can do, for the node's own log; empty if the reason says it all.
    """

    def __init__(self, reason: SkipReason, remedy: str = "") -> None:
        super().__init__(reason.words)
        self.reason = reason
        self.remedy = remedy
