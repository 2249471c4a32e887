"""Answers of a gateway, as good as the real ones."""

from typing import Any

from fedattn.core.report import FinishReason, Outcome, RowSource
from fedattn.core.spans import Role
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.reports import ParticipantReport, RowsReport, Totals


def sample_report(node_id: str, **fields: Any) -> ParticipantReport:
    """A contributor that sent all it should have; `fields` say otherwise."""
    plain = ParticipantReport(
        node_id=node_id,
        role=Role.CONTRIBUTOR,
        state=Outcome.COMPLETE,
        span_len=96,
        text_tokens=96,
        passages=4,
        influence=0.25,
        missing_from_layer=None,
        context_tokens=None,
        context_passages=None,
        context_files=None,
        skipped_files={},
        detail="",
        wait_s=0.25,
        compute_s=0.5,
        bytes_up=2048,
        bytes_down=0,
        layers=[],
        sync_layers=[7],
        compression=RowsReport(codec="int8"),
        rows=RowSource.COMPUTED,
        planned=None,
        timeline=[],
    )
    return plain.model_copy(update=fields)


def sample_answer(**fields: Any) -> QueryAnswer:
    """Two tokens of one contributor and a publisher; `fields` say otherwise."""
    publisher = sample_report("publisher", role=Role.PUBLISHER, bytes_up=0, bytes_down=2048)
    plain = QueryAnswer(
        session_id="5f2b7c1e9a0d4e3f8b6a1c2d3e4f5a6b",
        answer="Pier 4.",
        finish_reason=FinishReason.END,
        prompt_tokens=200,
        num_tokens=3,
        support=0.5,
        is_supported=True,
        sources=[],
        participants=[sample_report("node-a"), publisher],
        totals=Totals(
            time_to_first_token_s=0.75,
            tokens_per_s=8.0,
            kv_bytes=2048,
            planned_kv_bytes=4096,
            kv_bytes_down=2048,
            budget_steps=0,
        ),
    )
    return plain.model_copy(update=fields)
