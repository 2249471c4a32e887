"""The aggregator's record of sessions: who asked whom for what, and how many bytes passed."""

import asyncio

import structlog

from fedattn.core.errors import FedAttnError
from fedattn.core.request import SessionRequest
from fedattn.core.session import SessionState
from fedattn.core.terms import SessionTerms
from fedattn.runtime.audit import AuditEvent, AuditLog
from services.aggregator.opened import OpenedSession

log = structlog.get_logger(__name__)


class SessionRecord:
    """Writes an entry when a session opens, ends or is refused. Lives on the event loop.

    Args:
        audit: where they go; None for nowhere.
    """

    def __init__(self, audit: AuditLog | None) -> None:
        self._audit = audit

    async def opened(self, opened: OpenedSession) -> None:
        """A session has been laid out."""
        await self._append(_event("opened", opened.request, opened.terms.session_id, opened))

    async def closed(self, opened: OpenedSession, state: SessionState) -> None:
        """A session is over."""
        session_id = opened.terms.session_id
        total = sum(sum(ledger.bytes_up.values()) for ledger in state.ledgers)
        lost = [
            state.member(index).node_id
            for index, ledger in enumerate(state.ledgers)
            if ledger.missing_from is not None
        ]
        outcome = "complete" if state.is_clean else "incomplete"
        detail = f"went on without {', '.join(lost)}" if lost else ""
        event = _event("closed", opened.request, session_id, opened, total, outcome, detail)
        await self._append(event)

    async def refused(self, request: SessionRequest | None, error: FedAttnError) -> None:
        """A session was not opened; there is no request if it could not be read."""
        await self._append(_event("refused", request, "", outcome=error.code, detail=str(error)))

    async def _append(self, event: AuditEvent) -> None:
        if self._audit is None:
            return
        try:
            await asyncio.to_thread(self._audit.append, event)
        except FedAttnError:  # what passes is sealed, and the nodes keep records of their own
            log.exception("audit_failed", session=event.session)


def _num_rows(terms: SessionTerms) -> int:
    """Rows of one head at one block that all contributors send, in the mean."""
    layers, num_heads = terms.layout.publisher.plan.layers, terms.shape.num_kv_heads
    return round(sum(one.mean_rows(layers, num_heads) for one in terms.layout.contributors))


def _event(  # noqa: PLR0913, PLR0917 - spelt out
    kind: str,
    request: SessionRequest | None,
    session_id: str,
    opened: OpenedSession | None = None,
    num_bytes: int = 0,
    outcome: str = "",
    detail: str = "",
) -> AuditEvent:
    members = () if opened is None else opened.terms.layout.members
    return AuditEvent(
        event=kind,
        session=session_id,
        publisher="" if request is None else request.node_id,
        subject="" if request is None else request.options.subject,
        purpose="" if request is None else request.options.purpose,
        blocks=() if request is None else request.plans.publisher.layers,
        rows=0 if opened is None else _num_rows(opened.terms),
        bytes=num_bytes,
        receivers=tuple(member.node_id for member in members),
        outcome=outcome,
        detail=detail,
    )
