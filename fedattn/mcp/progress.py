"""How far a query is, for a client that asks to be told."""

from collections.abc import Awaitable
from typing import Protocol

from fedattn.rest.answers import Retried
from fedattn.rest.events import LayerEvent, QueryEvent, QueuedEvent, SessionEvent, TokenEvent


class Report(Protocol):
    """Tells a client: what is done, of how much, in words."""

    def __call__(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> Awaitable[None]: ...


class Progress:
    """Counts the publisher's sync layers, then pieces of the answer.

    Args:
        report: tells the client.
        max_new_tokens: most pieces of the answer.
    """

    def __init__(self, report: Report, max_new_tokens: int) -> None:
        self._report = report
        self._max_new_tokens = max_new_tokens
        self._num_layers = self._done = 0

    async def tell(self, event: QueryEvent) -> None:
        """Say what happened; never any text of the answer."""
        match event:
            case QueuedEvent():
                await self._say(self._done, event.words)
            case SessionEvent():
                self._num_layers = len(event.members[-1].sync_layers) if event.members else 0
                names = ", ".join(member.node_id for member in event.members)
                await self._say(self._done, f"asking {names}")
            case Retried():
                await self._say(self._done, f"asking again without {', '.join(event.without)}")
            case LayerEvent():
                rows = f"{event.num_rows} rows of the others"
                await self._say(self._done + 1, f"block {event.layer}: {rows}")
            case TokenEvent():  # rows that were kept since an earlier query pass no layer
                done = max(self._done, self._num_layers) + 1
                await self._say(done, "writing the answer")

    async def _say(self, done: int, message: str) -> None:
        self._done = done
        await self._report(done, max(done, self._num_layers + self._max_new_tokens), message)
