"""The control stream: this node's membership at the aggregator, renewed for ever."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import structlog
from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from fedattn.core.errors import (
    AggregatorUnavailableError,
    DuplicateNodeError,
    FedAttnError,
    IncompatibleError,
    InvalidInputError,
)
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.contexts import window_use_from_wire
from fedattn.wire.status import raise_if_cancelled
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.context_log import log_window
from services.participant.contribution import Contributor
from services.participant.introduction import heartbeat, join_message
from services.participant.node import ParticipantNode

log = structlog.get_logger(__name__)


_Outgoing = asyncio.Queue[pb.ControlRequest | None]
"""Messages for the aggregator; None ends the stream."""


class Membership:
    """Whether the node is joined, for those who want to follow it."""

    def __init__(self) -> None:
        self._is_joined = False
        self._changed = asyncio.Event()

    def is_set(self) -> bool:
        """True while joined."""
        return self._is_joined

    def turn(self, *, joined: bool) -> None:
        """Set, and wake all followers."""
        self._is_joined = joined
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_joined(self) -> None:
        """Wait until the node is joined."""
        while not self._is_joined:
            await self.changed()

    async def changed(self) -> None:
        """Wait for the next turn."""
        await self._changed.wait()


class ControlLoop:
    """Joins, heartbeats, takes commands; joins again whenever the stream breaks."""

    def __init__(
        self,
        node: ParticipantNode,
        contributor: Contributor,
        aggregator: AggregatorClient,
        reconnect_max_s: float,
    ) -> None:
        self._node = node
        self._contributor = contributor
        self._aggregator = aggregator
        self._reconnect_max_s = reconnect_max_s
        self.joined = Membership()

    async def run(self) -> None:
        """Stay joined until cancelled.

        Raises:
            IncompatibleError, InvalidInputError: the aggregator will never admit this node. A
                duplicate id is retried, since the lost older connection will end.
        """
        while True:
            raise_if_cancelled()  # what ended the stream may have been a cancellation
            retrying = AsyncRetrying(
                retry=retry_if_exception(_may_pass),
                wait=wait_random_exponential(multiplier=0.2, max=self._reconnect_max_s),
                before_sleep=lambda state: log.warning(
                    "not_joined", error=str(state.outcome.exception()) if state.outcome else ""
                ),
            )
            await retrying(self._live)

    async def _live(self) -> None:
        """One life of the stream; returns if it had been joined, so that retries start anew."""
        outgoing: _Outgoing = asyncio.Queue()  # a few messages a session, sessions are bounded
        tasks: set[asyncio.Task[None]] = set()
        try:
            with self._aggregator.control(self._requests(outgoing)) as responses:
                async for response in responses:
                    self._handle(response, outgoing, tasks)
        except FedAttnError as error:
            if not self.joined.is_set() or not _may_pass(error):
                raise
            log.warning("aggregator_lost", error=str(error))
        else:
            if not self.joined.is_set():
                raise AggregatorUnavailableError(
                    f"the aggregator at {self._aggregator.address} ended the stream before this "
                    f"node had joined"
                )
            log.warning("aggregator_left")
        finally:
            self.joined.turn(joined=False)
            self._contributor.forget_invitations()
            outgoing.put_nowait(None)  # ends _requests, which the ended call no longer does
            for task in tasks:
                task.cancel()

    async def _requests(self, outgoing: _Outgoing) -> AsyncIterator[pb.ControlRequest]:
        yield pb.ControlRequest(join=join_message(self._node))
        while (request := await outgoing.get()) is not None:
            yield request

    def _handle(
        self,
        response: pb.ControlResponse,
        outgoing: _Outgoing,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        match response.WhichOneof("body"):
            case "welcome":
                log.info("joined", aggregator=self._aggregator.address, node=self._node.node_id)
                self._node.token = response.welcome.node_token
                self.joined.turn(joined=True)
                interval_s = max(0.05, response.welcome.heartbeat_interval_s)
                _spawn(tasks, self._beat(interval_s, outgoing))
            case "invite":
                _spawn(tasks, self._reply(response.invite, outgoing))
            case "start":
                self._contributor.start(
                    response.start,
                    lambda reply: outgoing.put_nowait(pb.ControlRequest(invite_reply=reply)),
                )
            case "cancel":
                self._contributor.cancel(response.cancel)
            case "window":
                log_window(window_use_from_wire(response.window))

    async def _beat(self, interval_s: float, outgoing: _Outgoing) -> None:
        while True:
            await asyncio.sleep(interval_s)
            await outgoing.put(pb.ControlRequest(heartbeat=heartbeat(self._node)))

    async def _reply(self, invite: pb.Invite, outgoing: _Outgoing) -> None:
        reply = await self._contributor.answer(invite)
        await outgoing.put(pb.ControlRequest(invite_reply=reply))


def _may_pass(error: BaseException) -> bool:
    """Whether joining may succeed later."""
    if isinstance(error, DuplicateNodeError):
        return True
    final = IncompatibleError | InvalidInputError
    return isinstance(error, FedAttnError) and not isinstance(error, final)


def _spawn(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
