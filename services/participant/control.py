"""The control stream: this node's membership at the aggregator, renewed for ever."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, NoReturn

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from fedattn.core.errors import (
    AggregatorUnavailableError,
    DuplicateNodeError,
    FedAttnError,
    IncompatibleError,
    InternalError,
    InvalidInputError,
    NodeBusyError,
    ProtocolMismatchError,
)
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.security import Certificates
from fedattn.wire.status import raise_if_cancelled
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.contribution import decline
from services.participant.contributor import Contributor
from services.participant.door import Door
from services.participant.introduction import heartbeat, join_message
from services.participant.node import ParticipantNode

log = structlog.get_logger(__name__)


_Outgoing = asyncio.Queue[pb.ControlRequest | None]
"""Messages for the aggregator; None ends the stream."""
_MAX_ANSWERS = 64
"""Invitations that are answered at once, or whose answer waits to be sent."""
_FIRST_PAUSE_S = 0.2
_SETTLED_S = 10.0
"""After so long a membership its loss is no failure in a row: pauses are short again."""


class Membership:
    """Whether the node is joined, for those who want to follow it."""

    def __init__(self) -> None:
        self._is_joined = False
        self._since = 0.0
        self._changed = asyncio.Event()

    def is_set(self) -> bool:
        """True while joined."""
        return self._is_joined

    def is_settled(self) -> bool:
        """True once joined for a while."""
        return self._is_joined and time.monotonic() - self._since >= _SETTLED_S

    def turn(self, *, joined: bool) -> None:
        """Set, and wake all followers."""
        self._is_joined = joined
        self._since = time.monotonic()
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
        aggregators: Aggregators,
        reconnect_max_s: float,
        door: Door | None = None,
    ) -> None:
        self._node = node
        self._contributor = contributor
        self._aggregators = aggregators
        self._reconnect_max_s = reconnect_max_s
        self._door = door
        self.joined = Membership()
        self._outgoing: _Outgoing = asyncio.Queue()
        self._is_leaving = False
        self._joined_with: Certificates | None = None
        self._refusals: dict[str, str] = {}
        """Why aggregators whose last word was that they speak another version do not admit it."""

    @property
    def _certificates(self) -> Certificates | None:
        own = self._node.identity.certificates
        return None if own is None else own.current

    @property
    def _has_newer_certificate(self) -> bool:
        return self._joined_with is not self._certificates

    def leave(self) -> bool:
        """Say goodbye, after which `run` ends; False if there is nobody to say it to."""
        if self.joined.is_set():
            self._is_leaving = True
            self._outgoing.put_nowait(pb.ControlRequest(goodbye=pb.Goodbye()))
        return self._is_leaving

    async def run(self) -> None:
        """Stay joined until cancelled, or `leave`; pauses between failures are random and grow.

        Raises:
            IncompatibleError, InvalidInputError: the aggregator will never admit this node. A
                duplicate id is retried, since the lost older connection will end; and one that
                speaks another version is passed over, unless all do.
        """
        while not self._is_leaving:
            raise_if_cancelled()  # what ended the stream may have been a cancellation
            retrying = AsyncRetrying(
                retry=retry_if_exception(_may_pass),
                wait=self._pause_s,
                before_sleep=lambda state: log.warning(
                    "not_joined", error=str(state.outcome.exception()) if state.outcome else ""
                ),
            )
            await retrying(self._live)
            pause_s = min(_FIRST_PAUSE_S, self._reconnect_max_s)
            await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - no secret

    def _pause_s(self, state: RetryCallState) -> float:
        """A random time after a failure."""
        num, most_s = self._aggregators.num_given, self._reconnect_max_s
        return random.uniform(0, longest_pause_s(state.attempt_number, num, most_s))  # noqa: S311 - no secret

    async def _live(self) -> None:
        """One life of the stream; returns if it had lasted, so that pauses are short again."""
        outgoing: _Outgoing = asyncio.Queue()  # a few messages a session, sessions are bounded
        self._outgoing = outgoing
        tasks: set[asyncio.Task[None]] = set()
        home = self._aggregators.home
        self._refusals.pop(home.address, None)
        try:
            await self._follow(home, outgoing, tasks)
        except ProtocolMismatchError as error:
            self._refuse(home, str(error))
        finally:
            self._leave(home)
            outgoing.put_nowait(None)  # ends _requests, which the ended call no longer does
            for task in tasks:
                task.cancel()

    def _refuse(self, home: AggregatorClient, why: str) -> NoReturn:
        """Go on to an aggregator of this node's version: they are upgraded one after the other.

        Raises:
            ProtocolMismatchError: all speak another one.
            AggregatorUnavailableError: this one does.
        """
        self._refusals[home.address] = why
        num_refusals, num_given = len(self._refusals), self._aggregators.num_given
        if num_refusals < num_given:
            raise AggregatorUnavailableError(
                f"the aggregator at {home.address} speaks another version: {why}; "
                f"{num_refusals} of {num_given} addresses refused so, the next is tried"
            )
        raise ProtocolMismatchError(
            "; ".join(f"{address}: {text}" for address, text in self._refusals.items())
        )

    async def _follow(
        self, home: AggregatorClient, outgoing: _Outgoing, tasks: set[asyncio.Task[None]]
    ) -> None:
        """Take commands until the stream ends.

        Raises:
            FedAttnError: it failed, and had not lasted.
        """
        try:
            with home.control(self._requests(outgoing)) as responses:
                async for response in responses:
                    self._handle(response, outgoing, tasks)
        except FedAttnError as error:
            if self._is_on_purpose(str(error)):
                return
            if not self.joined.is_settled() or not _may_pass(error):
                raise
            log.warning("aggregator_lost", error=str(error))
            return
        if self._is_on_purpose():
            return
        if not self.joined.is_settled():
            when = "soon after" if self.joined.is_set() else "before"
            raise AggregatorUnavailableError(
                f"the aggregator at {home.address} ended the stream {when} this node had joined"
            )
        log.warning("aggregator_left")

    def _is_on_purpose(self, error: str = "") -> bool:
        """Whether this node wants its stream to end."""
        if self._is_leaving:
            log.info("left", error=error)
        elif self._has_newer_certificate:
            log.info("joins_again", reason="it has a newer certificate", error=error)
        else:
            return False
        return True

    def _leave(self, home: AggregatorClient) -> None:
        """Nothing comes through this aggregator any more; the next one may be joined."""
        if not self._has_newer_certificate:
            self._aggregators.move_on(home)
        self.joined.turn(joined=False)
        self._contributor.forget_invitations()
        if self._door is not None:
            self._door.hang_up()

    async def _requests(self, outgoing: _Outgoing) -> AsyncIterator[pb.ControlRequest]:
        self._joined_with = self._certificates
        yield pb.ControlRequest(join=join_message(self._node))
        while (request := await outgoing.get()) is not None:
            yield request
            if request.HasField("goodbye"):
                return

    def _handle(
        self,
        response: pb.ControlResponse,
        outgoing: _Outgoing,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        match response.WhichOneof("body"):
            case "welcome":
                self._check_first_welcome()
                log.info(
                    "joined", aggregator=self._aggregators.home.address, node=self._node.node_id
                )
                self._node.token = response.welcome.node_token
                self.joined.turn(joined=True)
                interval_s = max(0.05, response.welcome.heartbeat_interval_s)
                _spawn(tasks, self._beat(interval_s, outgoing))
            case "invite":
                self._invited(response.invite, outgoing, tasks)
            case "start":
                self._contributor.start(
                    response.start,
                    lambda reply: outgoing.put_nowait(pb.ControlRequest(invite_reply=reply)),
                )
            case "cancel":
                self._contributor.cancel(response.cancel)
            case "tunnel" if self._door is not None:
                self._door.take(response.tunnel)

    def _check_first_welcome(self) -> None:
        """A stream has one membership, with one token and one heartbeat."""
        if self.joined.is_set():
            raise AggregatorUnavailableError(
                f"the aggregator at {self._aggregators.home.address} welcomed this node twice "
                f"on one stream; expected one welcome; this node joins again"
            )

    async def _beat(self, interval_s: float, outgoing: _Outgoing) -> None:
        """Say that the node lives; leave, to join again, once it has a newer certificate.

        What it announced was signed with the older one, which expires. It waits for an idle moment,
        at the longest until the aggregator ends the stream because the older one has expired, or
        the older channel is closed, which other calls have replaced.
        """
        while True:
            await asyncio.sleep(interval_s)
            is_idle = self._node.admission.active_sessions == 0
            if is_idle and self._has_newer_certificate:
                outgoing.put_nowait(pb.ControlRequest(goodbye=pb.Goodbye()))
                return
            await outgoing.put(pb.ControlRequest(heartbeat=heartbeat(self._node)))

    def _invited(
        self, invite: pb.Invite, outgoing: _Outgoing, tasks: set[asyncio.Task[None]]
    ) -> None:
        """Answer, unless so many answers are due that only a flood can be the reason."""
        num_answers = len(tasks) - 1 + outgoing.qsize()  # one of the tasks beats
        if num_answers < _MAX_ANSWERS:
            _spawn(tasks, self._reply(invite, outgoing))
            return
        log.warning("flooded", answers=num_answers)
        if num_answers < 2 * _MAX_ANSWERS:  # who does not read answers gets no more of them
            busy = NodeBusyError(f"{self._node.node_id} answers {num_answers} invitations already")
            reply = decline(invite.session_id, busy)
            outgoing.put_nowait(pb.ControlRequest(invite_reply=reply))

    async def _reply(self, invite: pb.Invite, outgoing: _Outgoing) -> None:
        try:
            reply = await self._contributor.answer(invite)
        except Exception:  # border: a defect here must not keep the publisher waiting
            log.exception("invitation_failed", session=invite.session_id)
            reply = decline(invite.session_id, InternalError("it failed; see its log"))
        await outgoing.put(pb.ControlRequest(invite_reply=reply))


def longest_pause_s(num_failures: int, num_aggregators: int, most_s: float) -> float:
    """Between two attempts to join; doubles with each round of failures at all aggregators."""
    num_rounds = (num_failures - 1) // num_aggregators
    return min(_FIRST_PAUSE_S * 2.0 ** min(num_rounds, 32), most_s)


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
