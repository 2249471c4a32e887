"""A member with a good certificate that sends what its model did not make."""

from collections.abc import Callable
from typing import Any

from fedattn.core.routing import Route
from fedattn.core.spans import Member
from fedattn.core.types import HeadRows, KvRows, Queries
from fedattn.model.exchange import KvExchange
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import Prefiller

Change = Callable[[KvRows], KvRows]
"""What becomes of honest rows before they leave."""


class Spoiler(Prefiller):
    """Contributes as its node would, except for what it changes.

    Args:
        model: of the node.
        change: what becomes of its rows.
        tamper: what else it does to its exchange; a `GrpcKvExchange` checks its own rows.
    """

    def __init__(
        self, model: LoadedModel, change: Change, tamper: Callable[[Any], object] = lambda _: None
    ) -> None:
        super().__init__(model)
        self._change, self._tamper = change, tamper

    def contribute(
        self, member: Member, prefix: list[int], token_ids: list[int], exchange: KvExchange
    ) -> None:
        self._tamper(exchange)
        super().contribute(member, prefix, token_ids, _Changed(exchange, self._change))


class _Changed:
    """A `KvExchange` that changes what is sent."""

    def __init__(self, exchange: KvExchange, change: Change) -> None:
        self._exchange, self._change = exchange, change

    @property
    def route(self) -> Route:
        return self._exchange.route

    def send(self, layer: int, rows: KvRows, queries: Queries) -> None:
        self._exchange.send(layer, self._change(rows), queries)

    def receive(self, layer: int) -> list[HeadRows]:
        return self._exchange.receive(layer)


def is_shameless(exchange: Any) -> None:
    """Sends what it could see itself to be no rows of its model."""
    exchange._check_own = lambda *_: None
