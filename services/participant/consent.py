"""The owner's say: whether a session gets rows, how many, and the record of what left."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import structlog

from fedattn.core.consent import Ask
from fedattn.core.errors import (
    FedAttnError,
    InvalidRequestError,
    PolicyRefusedError,
    SessionStateError,
)
from fedattn.core.request import SessionRequest
from fedattn.core.types import KvShape
from fedattn.runtime.approvals import Approval
from fedattn.runtime.audit import AuditEvent, AuditLog
from services.participant.asks import (
    describe_answers,
    describe_rows,
    members_of,
    share_of,
)
from services.participant.audit_events import (
    allowed_event,
    declined_event,
    dropped_event,
    sent_event,
    unbelieved_event,
)
from services.participant.policy import PolicyFile
from services.participant.policy_rules import Policy
from services.participant.threads import NodeThreads

T = TypeVar("T")

_SUMMARY_EVERY_S = 60.0
"""Between two entries that count what could not be believed."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Leave:
    """What the owner lets leave in one session.

    Attributes:
        policy: as it was then.
        ask: what was asked for, at most.
        max_keep_ratio: most of the rows.
        cache_lifetime_s: how long the publisher may cache them.
        approval: a person's, if it needed one.
    """

    policy: Policy
    ask: Ask
    max_keep_ratio: float = 1.0
    cache_lifetime_s: float = 0.0
    approval: Approval | None = None


@dataclass(slots=True)
class Consent:
    """Asks the policy, and writes down what came of it. Lives on the event loop.

    Args:
        policy: of the owner.
        audit: the record; None for none.
        threads: of the node; files are read and written in them.
        monotonic: clock of the summaries.
    """

    policy: PolicyFile
    audit: AuditLog | None
    threads: NodeThreads
    monotonic: Callable[[], float] = time.monotonic
    _open: dict[str, Leave] = field(default_factory=dict)
    _deciding: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _num_unbelieved: int = 0
    _summarized_at: float = -math.inf

    async def current_policy(self) -> Policy:
        """The policy as its file says it now.

        Raises:
            PolicyRefusedError: there is none to go by; the log says why.
        """
        return await self._decide(self.policy.current)

    async def give_leave(  # noqa: PLR0913 - spelt out
        self,
        session_id: str,
        request: SessionRequest,
        span_len: int,
        *,
        policy: Policy,
        num_withheld: int = 0,
        shape: KvShape,
        pressure_keep_ratio: float,
        can_score: bool,
        lifetime_s: float,
        part_size: int | None = None,
    ) -> Leave:
        """Let a session have rows, and write that down before any leaves.

        Args:
            session_id: of the session.
            request: of its publisher.
            span_len: tokens of this node's span, at most.
            policy: as it was when the span was read.
            num_withheld: rows that stay in any case.
            shape: of its rows.
            pressure_keep_ratio: most of the rows that heat and memory allow.
            can_score: whether this node has scores to choose rows by.
            lifetime_s: how long the node's settings let others cache rows.
            part_size: bytes of what it makes of one token's queries at a block, if it is asked;
                None if it sends rows.

        Raises:
            PolicyRefusedError, ApprovalNeededError: the owner does not want it, or has to decide.
            ConfigurationError: it cannot be written down, so it does not happen.
            SessionStateError: a session of this id has leave already.
            InvalidRequestError: shares of heads hide how many rows are asked for.
        """
        if part_size is not None:
            ask = describe_answers(session_id, request, part_size)
            return await self._let(Leave(policy, ask))
        most = min(pressure_keep_ratio, policy.max_keep_ratio(span_len))
        members = members_of(
            request, span_len, num_withheld, can_score=can_score, max_keep_ratio=most
        )
        ask = describe_rows(session_id, request, members, shape)
        if ask.keep_ratio * span_len > most * span_len + 1:  # each head rounds up
            raise InvalidRequestError(
                f"of the rows of {len(ask.layers)} blocks at most {most:.0%} may be sent, the "
                f"shares of heads that were asked for send {ask.keep_ratio:.0%}, more than their "
                f"keep ratio says; ask with a profile of this model"
            )
        lifetime_s = policy.cap_lifetime(lifetime_s)
        return await self._let(Leave(policy, ask, max_keep_ratio=most, cache_lifetime_s=lifetime_s))

    async def _let(self, leave: Leave) -> Leave:
        giving = self._spawn(self._give(leave, leave.policy))
        try:
            return await asyncio.shield(giving)
        except asyncio.CancelledError:
            self._spawn(self._take_back(giving))
            raise

    def spend_answers(self, session_id: str, count: int, num_bytes: int) -> None:
        """Count answers to a publisher's queries before they are made; as of `PolicyFile`."""
        leave = self._open.get(session_id)
        if leave is None:
            raise PolicyRefusedError("its owner has let no such session ask")
        self.policy.spend_answers(leave.policy, session_id, count, num_bytes)

    def refuse(
        self, session_id: str, request: SessionRequest | None, error: FedAttnError
    ) -> "asyncio.Future[None]":
        """Write down that a session gets nothing; whoever awaits it knows that it is written.

        What cannot be believed, and so has no request, is only counted: anybody between could fill
        the record with it, and push out what is true. An entry now and then has the count.
        """
        return asyncio.shield(self._spawn(self._refuse(session_id, request, error)))

    async def _refuse(
        self, session_id: str, request: SessionRequest | None, error: FedAttnError
    ) -> None:
        if request is None:
            self._num_unbelieved += 1
            return
        await self._note_or_log(declined_event(session_id, request, error))

    def drop(self, session_id: str) -> None:
        """A session that was let in never began; its approval is good for another."""
        leave = self._settle(session_id, 0)
        if leave is not None:
            self._spawn(self._note_dropped(leave))

    async def note_sent(  # noqa: PLR0913 - spelt out
        self,
        session_id: str,
        frames: dict[int, int],
        receivers: Iterable[str],
        outcome: str,
        *,
        num_rows: float,
        span_len: int,
        passages: tuple[int, ...] = (),
        num_answers: int = 0,
    ) -> None:
        """Write down what left.

        Args:
            session_id: of a session that was let in.
            frames: bytes by block.
            receivers: ids of the nodes that could read them.
            outcome: how it ended: complete, or the code of an error.
            num_rows: rows of one head in each of them, in the mean.
            span_len: tokens of the span.
            passages: numbers of the passages they are of.
            num_answers: tokens whose queries were answered, those of each block counted; then no
                row has left.
        """
        leave = self._settle(session_id, sum(frames.values()))
        if leave is None:
            return
        event = sent_event(leave.ask, frames, receivers, outcome)
        event = replace(event, answers=num_answers, passages=passages if frames else ())
        if frames and not num_answers:
            keep_ratio = share_of(num_rows, span_len)
            event = replace(event, rows=math.ceil(num_rows), keep_ratio=keep_ratio)
        await self._note_or_log(event)

    async def settled(self) -> None:
        """Wait until all that has happened is written down."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """End the record."""
        if self.audit is None:
            return
        try:
            for event in self._summary():
                self.audit.append(event)
        except FedAttnError:
            log.exception("audit_failed", unbelieved=self._num_unbelieved)
        self.audit.close()

    async def _give(self, leave: Leave, policy: Policy) -> Leave:
        """Ask the policy and write down its yes; not to be cancelled in between."""
        ask = leave.ask
        if ask.session_id in self._open:
            raise SessionStateError("a session of this id has the owner's leave already")
        self._open[ask.session_id] = leave
        try:
            approval = await self._decide(lambda: self.policy.check(ask, policy))
        except BaseException:
            del self._open[ask.session_id]
            raise
        leave = self._open[ask.session_id] = replace(leave, approval=approval)
        try:
            await self._note(allowed_event(ask))
        except BaseException:
            self._settle(ask.session_id, 0)
            await self._return_approval(leave)
            raise
        return leave

    async def _take_back(self, giving: asyncio.Task[Leave]) -> None:
        """Nobody waits for this leave any more."""
        with suppress(FedAttnError):
            self.drop((await giving).ask.session_id)

    async def _note_dropped(self, leave: Leave) -> None:
        await self._return_approval(leave)
        await self._note_or_log(dropped_event(leave.ask))

    async def _return_approval(self, leave: Leave) -> None:
        used = leave.approval
        if used is not None:
            await self._decide(lambda: self.policy.give_back(used))

    async def _decide(self, work: Callable[[], T]) -> T:
        """Run blocking work on the policy in a thread, one after the other.

        It goes on to its end if nobody waits for it any more: nothing else may begin before.
        """

        async def alone() -> T:
            async with self._deciding:
                return await self.threads.run(work)

        return await asyncio.shield(self._spawn(alone()))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _settle(self, session_id: str, num_bytes: int) -> Leave | None:
        leave = self._open.pop(session_id, None)
        if leave is not None:
            self.policy.note_sent(num_bytes, session_id)
        return leave

    async def _note(self, event: AuditEvent) -> None:
        audit = self.audit
        if audit is None:
            return
        if self.monotonic() >= self._summarized_at + _SUMMARY_EVERY_S:
            events = (*self._summary(), event)
        else:
            events = (event,)
        await self.threads.run(lambda: [audit.append(one) for one in events])

    def _summary(self) -> tuple[AuditEvent, ...]:
        """The entry that counts what could not be believed since the last; none for nothing."""
        count, self._num_unbelieved = self._num_unbelieved, 0
        if not count:
            return ()
        self._summarized_at = self.monotonic()
        return (unbelieved_event(count),)

    async def _note_or_log(self, event: AuditEvent) -> None:
        """What has happened is not undone by a full disk, and is written if nobody waits."""

        async def note() -> None:
            try:
                await self._note(event)
            except FedAttnError:
                log.exception("audit_failed", session=event.session)

        await asyncio.shield(self._spawn(note()))
