"""The owner's say: whether a session gets rows, how many, and the record of what left."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import structlog

from fedattn.core.consent import Ask
from fedattn.core.errors import FedAttnError
from fedattn.core.request import SessionRequest
from fedattn.core.spans import Member, Role, Span
from fedattn.core.transfer import max_upload_size
from fedattn.core.types import KvShape
from fedattn.runtime.audit import AuditEvent, AuditLog
from services.participant.policy import PolicyFile
from services.participant.policy_rules import Policy
from services.participant.threads import NodeThreads

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """What the owner lets leave in one session.

    Attributes:
        policy: as it was then.
        ask: what was asked for, at most.
        max_keep_ratio: most of the rows.
        cache_lifetime_s: how long the publisher may cache them.
    """

    policy: Policy
    ask: Ask
    max_keep_ratio: float
    cache_lifetime_s: float


@dataclass(slots=True)
class Consent:
    """Asks the policy, and writes down what came of it. Lives on the event loop.

    Args:
        policy: of the owner.
        audit: the record; None for none.
        threads: of the node; the record waits for the disk.
    """

    policy: PolicyFile
    audit: AuditLog | None
    threads: NodeThreads
    _open: dict[str, Leave] = field(default_factory=dict)

    async def give_leave(  # noqa: PLR0913 - spelt out
        self,
        session_id: str,
        request: SessionRequest,
        span_len: int,
        *,
        num_withheld: int,
        shape: KvShape,
        pressure_keep_ratio: float,
        lifetime_s: float,
    ) -> Leave:
        """Let a session have rows, and write that down before any leaves.

        Args:
            session_id: of the session.
            request: of its publisher.
            span_len: tokens of this node's span.
            num_withheld: rows that stay in any case.
            shape: of its rows.
            pressure_keep_ratio: most of the rows that heat and memory allow.
            lifetime_s: how long the node's settings let others cache rows.

        Raises:
            PolicyRefusedError, ApprovalNeededError: the owner does not want it, or has to decide.
            ConfigurationError: it cannot be written down, so it does not happen.
        """
        policy = self.policy.current()
        most = min(pressure_keep_ratio, policy.max_keep_ratio(span_len))
        ratio = min(most, request.options.compression.keep_ratio)
        ask = _describe(session_id, request, span_len, num_withheld, shape, ratio)
        self.policy.check(ask)
        lifetime_s = policy.cap_lifetime(lifetime_s)
        leave = Leave(policy=policy, ask=ask, max_keep_ratio=most, cache_lifetime_s=lifetime_s)
        self._open[session_id] = leave
        try:
            await self._note(_event("allowed", ask, outcome="allowed"))
        except BaseException:
            self._settle(session_id, 0)
            raise
        return leave

    async def refuse(
        self, session_id: str, request: SessionRequest | None, error: FedAttnError
    ) -> None:
        """Write down that a session gets nothing; there is no request if it cannot be believed."""
        event = AuditEvent(
            event="declined", session=session_id, outcome=error.code, detail=str(error)
        )
        if request is not None:
            event = replace(
                event,
                publisher=request.node_id,
                subject=request.options.subject,
                purpose=request.options.purpose,
                blocks=_layers(request),
            )
        await self._note_or_log(event)

    def drop(self, session_id: str) -> None:
        """A session that was let in never began."""
        self._settle(session_id, 0)

    async def note_sent(
        self,
        session_id: str,
        frames: dict[int, int],
        receivers: Iterable[str],
        outcome: str,
    ) -> None:
        """Write down what left.

        Args:
            session_id: of a session that was let in.
            frames: bytes by block.
            receivers: ids of the nodes that could read them.
            outcome: how it ended: complete, or the code of an error.
        """
        leave = self._settle(session_id, sum(frames.values()))
        if leave is None:
            return
        event = _event("sent", leave.ask, outcome=outcome)
        event = replace(
            event,
            blocks=tuple(sorted(frames)),
            rows=leave.ask.num_rows if frames else 0,
            bytes=sum(frames.values()),
            receivers=tuple(sorted(receivers)) if frames else (),
        )
        await self._note_or_log(event)

    def close(self) -> None:
        """End the record."""
        if self.audit is not None:
            self.audit.close()

    def _settle(self, session_id: str, num_bytes: int) -> Leave | None:
        leave = self._open.pop(session_id, None)
        if leave is not None:
            self.policy.note_sent(num_bytes, session_id)
        return leave

    async def _note(self, event: AuditEvent) -> None:
        audit = self.audit
        if audit is not None:
            await self.threads.run(lambda: audit.append(event))

    async def _note_or_log(self, event: AuditEvent) -> None:
        """What has happened is not undone by a full disk."""
        try:
            await self._note(event)
        except FedAttnError:
            log.exception("audit_failed", session=event.session)


def _layers(request: SessionRequest) -> tuple[int, ...]:
    """Blocks at which a contributor may have to send rows, at most."""
    return tuple(sorted({*request.plans.publisher.layers, *request.plans.contributors.layers}))


def _describe(  # noqa: PLR0913, PLR0917 - spelt out
    session_id: str,
    request: SessionRequest,
    span_len: int,
    num_withheld: int,
    shape: KvShape,
    ratio: float,
) -> Ask:
    """The most that a request can take of a node."""
    compression = replace(request.options.compression, keep_ratio=ratio)
    member = Member(
        node_id="this",
        role=Role.CONTRIBUTOR,
        span=Span(0, span_len),
        plan=request.plans.contributors,
        compression=compression,
        num_withheld=num_withheld,
        is_sealed=request.key is not None,
    )
    layers = _layers(request)
    return Ask(
        publisher=request.node_id,
        subject=request.options.subject,
        purpose=request.options.purpose,
        layers=layers,
        num_rows=member.num_sent,
        num_bytes=len(layers) * max_upload_size(member, shape),
        session_id=session_id,
    )


def _event(kind: str, ask: Ask, *, outcome: str) -> AuditEvent:
    return AuditEvent(
        event=kind,
        session=ask.session_id,
        publisher=ask.publisher,
        subject=ask.subject,
        purpose=ask.purpose,
        blocks=ask.layers,
        rows=ask.num_rows,
        bytes=ask.num_bytes,
        outcome=outcome,
    )
