"""Which nodes are joined, and through which of them a caller may ask."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from fedattn.core.errors import (
    AggregatorUnavailableError,
    FedAttnError,
    NotAllowedError,
    PolicyRefusedError,
    PublisherUnavailableError,
    UnavailableError,
    UnknownParticipantError,
)
from fedattn.core.node_id import check_node_id
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.v1 import aggregator_pb2 as pb
from gateway.callers import Caller

_CONNECT_TIMEOUT_S = 2.0
_LIST_TIMEOUT_S, _NEXT_AFTER_S = 10.0, 3.0
"""Longest wait for a listing, and where another aggregator may be asked instead."""
_LOOK_AGAIN_S, _NUM_LOOKS = 0.25, 12
"""Where a node has gone whose aggregator was lost is looked for so often, so many times."""
FRESH_S = 1.0
"""How long a listing serves further queries."""


class Directory:
    """What an aggregator lists: the nodes of all its federation, and where they are.

    Args:
        aggregators: one of them is asked; if it cannot be reached, the next.
        default: the publisher of queries that name none; None for the first by id.
        clock: seconds since some moment.
    """

    def __init__(
        self,
        aggregators: Aggregators,
        default: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._aggregators, self._default, self._clock = aggregators, default, clock
        self._asking = asyncio.Lock()
        self._asked_at = self._failed_at = -math.inf
        self._failure: FedAttnError | None = None
        self._listing = pb.ListNodesResponse()
        self._asked = aggregators.home
        self._within_s = _LIST_TIMEOUT_S if aggregators.num_given == 1 else _NEXT_AFTER_S

    @property
    def publishers(self) -> tuple[str, ...]:
        """Nodes that took queries when last looked: the default first, the others by id."""
        found = [node.node_id for node in self._listing.nodes if node.publishes]
        return tuple(sorted(found, key=lambda node_id: (node_id != self._default, node_id)))

    async def look(self, *, max_age_s: float = 0.0) -> pb.ListNodesResponse:
        """All nodes that are joined.

        Args:
            max_age_s: of a listing that will do, seconds.

        Raises:
            FedAttnError: the aggregator cannot say.
        """
        begun = self._clock()
        async with self._asking:  # those who wait take what the first one gets
            if self._failure is not None and self._failed_at > begun:
                raise self._failure.with_traceback(None)
            if self._asked_at < begun - max_age_s:
                await self._ask()
        return self._listing

    async def _ask(self) -> None:
        now = self._clock()
        for attempt in count(1):
            asked = self._aggregators.home
            with suppress(AggregatorUnavailableError):  # the call says what is wrong
                await asked.reach(_CONNECT_TIMEOUT_S)
            try:
                self._listing = await asked.list_nodes(pb.ListNodesRequest(), self._within_s)
                break
            except FedAttnError as error:
                self._aggregators.move_on(asked)
                is_last = attempt >= self._aggregators.num_given
                if is_last or not isinstance(error, UnavailableError):
                    self._failure, self._failed_at = error, self._clock()
                    raise
        self._asked, self._asked_at = asked, now

    def aggregator_of(self, node_id: str) -> AggregatorClient:
        """Where a node is joined, by what was last listed.

        Raises:
            AggregatorUnavailableError: the address of that aggregator is of no use.
        """
        for node in self._listing.nodes:
            if node.node_id == node_id and node.aggregator:
                return self._aggregators.at(node.aggregator)
        return self._asked

    async def _look_everywhere(self, wanted: str | None) -> None:
        """Find a publisher that has joined since, or that the aggregator asked so far cannot know.

        While NATS is lost each aggregator knows its own nodes only, and says which others live.
        """
        for _ in range(self._aggregators.num_given):
            await self.look()
            is_found = bool(self.publishers) if wanted is None else wanted in self.publishers
            if is_found or len(self._listing.aggregators) >= self._aggregators.num_given:
                return
            self._aggregators.move_on(self._asked)

    async def moved(self, node_id: str, lost: AggregatorClient) -> AggregatorClient | None:
        """Where a node is joined now whose aggregator was lost; None if it stays away.

        Args:
            node_id: of the node; it joins at its next aggregator within a second.
            lost: where it was.

        Raises:
            FedAttnError: no aggregator can say.
        """
        for _ in range(_NUM_LOOKS if self._aggregators.num_given > 1 else 0):
            await self.look()
            found = self.aggregator_of(node_id)
            if found.address != lost.address and node_id in self.publishers:
                return found
            await asyncio.sleep(_LOOK_AGAIN_S)
        return None

    async def choose(
        self, caller: Caller, publisher: str | None, without: frozenset[str] = frozenset()
    ) -> str:
        """The node to publish through.

        Args:
            caller: who asks.
            publisher: named by the query, and checked; None for the default, or the first that the
                caller may ask.
            without: nodes that were lost a moment ago; none of them is the default.

        Raises:
            NotAllowedError: the caller may not ask there.
            UnknownParticipantError: it is not joined.
            PolicyRefusedError: its owner lets no gateway ask through it.
            PublisherUnavailableError: no node takes queries.
            FedAttnError: the aggregator cannot say.
        """
        await self.look(max_age_s=FRESH_S)
        wanted = publisher or self._default
        if not self.publishers or (wanted or self.publishers[0]) not in self.publishers:
            await self._look_everywhere(wanted)
        if publisher is not None:
            return self._named(publisher)
        return self._default_for(caller, without)

    def _named(self, publisher: str) -> str:
        if publisher in self.publishers:
            return publisher
        if any(node.node_id == publisher for node in self._listing.nodes):
            raise PolicyRefusedError(
                f"node {publisher} takes no queries; its owner lets it with the setting `publish`"
            )
        raise UnknownParticipantError(
            f"publisher {publisher!r} is not joined; nodes that take queries are "
            f"{', '.join(self.publishers) or 'none'}"
        )

    def _default_for(self, caller: Caller, without: frozenset[str]) -> str:
        default = self._default
        if default is not None and caller.may_publish(default) and default not in self.publishers:
            raise PublisherUnavailableError(
                f"publisher {default} of FEDATTN_GATEWAY_PUBLISHER is not joined, or takes no "
                f"queries; start its participant with --publish, or name another publisher"
            )
        others = [node_id for node_id in self.publishers if node_id not in without]
        if not others:
            raise _nobody()
        allowed = next(filter(caller.may_publish, others), None)
        if allowed is None:
            raise _not_allowed(caller, "any node that takes queries now")
        return allowed

    async def check_ready(self) -> None:
        """Return if there is a node to publish through.

        Raises:
            PublisherUnavailableError: no node takes queries.
            FedAttnError: the aggregator cannot say.
        """
        await self.look(max_age_s=FRESH_S)
        if not self.publishers:
            raise _nobody()


def check_allowed(caller: Caller, publisher: str | None) -> None:
    """Refuse a publisher that the query names and the caller may not ask.

    Raises:
        NotAllowedError: that is so.
        InvalidRequestError: it is no node id.
    """
    if publisher is not None and not caller.may_publish(check_node_id(publisher)):
        raise _not_allowed(caller, publisher)


def _nobody() -> PublisherUnavailableError:
    return PublisherUnavailableError(
        "no joined node takes queries; start a participant with --publish"
    )


def _not_allowed(caller: Caller, where: str) -> NotAllowedError:
    return NotAllowedError(
        f"{caller.subject!r} may not ask through {where}; ask whoever runs the gateway to allow it"
    )
