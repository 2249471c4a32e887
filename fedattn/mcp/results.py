"""What the tools answer with: what an agent can use of what a gateway tells."""

from typing import Self

from pydantic import BaseModel, Field

from fedattn.core.report import FinishReason, Outcome
from fedattn.core.spans import Role
from fedattn.rest.answers import AnswerSource, QueryAnswer
from fedattn.rest.participants import ParticipantInfo
from fedattn.rest.reports import ParticipantReport


class TookPart(BaseModel):
    """What one node did for the answer."""

    node_id: str = Field(description="Id of the node.")
    role: Role = Field(description="publisher: it asked and wrote the answer; contributor.")
    state: Outcome = Field(
        description="How its part ended; empty: it had nothing to give; departed: it had left, and "
        "the answer is without its text."
    )
    detail: str = Field(description="Reason if not all went well, else empty.")
    text_tokens: int = Field(description="Tokens of its private text that took part.")
    influence: float | None = Field(
        description="Share of the answer's attention that its text drew, 0 to 1; null if unknown."
    )

    @classmethod
    def of(cls, report: ParticipantReport) -> Self:
        """What a report says."""
        return cls(**{name: getattr(report, name) for name in cls.model_fields})


class FederationAnswer(BaseModel):
    """The answer to a question, and what it rests on."""

    answer: str = Field(description="The whole answer.")
    finish_reason: FinishReason = Field(
        description="end: the model ended; length: cut at max_new_tokens; stop: a stop string."
    )
    support: float | None = Field(
        description="How surely the answer points at passages of the texts, 0 to 1; null if none "
        "took part."
    )
    is_supported: bool = Field(description="Whether support is as much as min_support.")
    participants: list[TookPart] = Field(description="Nodes that took part, then those left out.")
    sources: list[AnswerSource] = Field(
        description="Passages that drew the answer's attention, those with the most first; their "
        "texts stay on their nodes."
    )
    session_id: str = Field(description="Names the session in the logs of the nodes.")

    @classmethod
    def of(cls, answer: QueryAnswer) -> Self:
        """What a gateway answered."""
        return cls(
            answer=answer.answer,
            finish_reason=answer.finish_reason,
            support=answer.support,
            is_supported=answer.is_supported,
            participants=[TookPart.of(report) for report in answer.participants],
            sources=answer.sources,
            session_id=answer.session_id,
        )


class Nodes(BaseModel):
    """The nodes that are joined now, and those that left within the last hour."""

    nodes: list[ParticipantInfo] = Field(description="Those joined, by id; then those that left.")
