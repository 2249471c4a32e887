"""Entries of the owner's record: what each of them says."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fedattn.core.consent import Ask
from fedattn.core.errors import FedAttnError
from fedattn.core.request import SessionRequest
from fedattn.runtime.audit import AuditEvent
from services.participant.asks import sync_layers


def allowed_event(ask: Ask) -> AuditEvent:
    """The owner's policy lets a session have what it asked for, at most this."""
    return AuditEvent(
        event="allowed",
        session=ask.session_id,
        publisher=ask.publisher,
        subject=ask.subject,
        purpose=ask.purpose,
        share=ask.share,
        blocks=ask.layers,
        rows=ask.num_rows,
        keep_ratio=ask.keep_ratio,
        bytes=ask.num_bytes,
        outcome="allowed",
    )


def dropped_event(ask: Ask) -> AuditEvent:
    """A session that was allowed never began."""
    return _of_ask("dropped", ask, "not_begun")


def sent_event(
    ask: Ask, frames: Mapping[int, int], receivers: Iterable[str], outcome: str
) -> AuditEvent:
    """What left in a session.

    Args:
        ask: that was allowed.
        frames: bytes by block.
        receivers: ids of the nodes that could read them.
        outcome: how it ended: complete, or the code of an error.
    """
    event = _of_ask("sent", ask, outcome)
    return replace(
        event,
        blocks=tuple(sorted(frames)),
        bytes=sum(frames.values()),
        receivers=tuple(sorted(receivers)) if frames else (),
    )


def _of_ask(kind: str, ask: Ask, outcome: str) -> AuditEvent:
    """Without what was asked for."""
    return replace(
        allowed_event(ask),
        event=kind,
        outcome=outcome,
        blocks=(),
        rows=0,
        keep_ratio=0.0,
        bytes=0,
    )


def declined_event(session_id: str, request: SessionRequest, error: FedAttnError) -> AuditEvent:
    """A session gets nothing, for this reason."""
    return AuditEvent(
        event="declined",
        session=session_id,
        publisher=request.node_id,
        subject=request.options.subject,
        purpose=request.options.purpose,
        share=request.options.share.value,
        blocks=sync_layers(request),
        outcome=error.code,
        detail=str(error),
    )


def unbelieved_event(count: int) -> AuditEvent:
    """So many invitations could not be believed."""
    detail = f"{count} invitations that no publisher can be shown to have asked for"
    return AuditEvent(event="unbelieved", outcome="declined", detail=detail)
