"""What the gateway answers with, documented field by field."""

from typing import Literal

from pydantic import BaseModel, Field

from fedattn.core.report import FinishReason
from fedattn.rest.reports import AskedReport, ParticipantReport, Totals


class AnswerSource(BaseModel):
    """A passage that drew the answer's attention."""

    node_id: str = Field(description="Whose passage.", examples=["node-a"])
    passage: int = Field(
        description="Its number there; only on that node it can be looked up, with "
        "`fedattn passages show`.",
        examples=[17],
    )
    share: float = Field(
        description="Share of the attention that all passages drew.", examples=[0.64]
    )


class Retried(BaseModel):
    """Data of `retried`: nodes were lost before the first token, so the query is put once more.

    Another `session` follows, of which the `session` and `layer` before it say nothing.
    """

    without: list[str] = Field(
        description="Nodes that were lost, and take no part now.", examples=[["node-b"]]
    )
    code: str = Field(
        description="Stable code of what the first try failed with.",
        examples=["publisher_unavailable"],
    )
    detail: str = Field(
        description="The same for people.", examples=["publisher node-b cannot be reached"]
    )


class QueryAnswer(BaseModel):
    """The answer to a query and how it came about."""

    session_id: str = Field(
        description="Id of the session.", examples=["5f2b7c1e9a0d4e3f8b6a1c2d3e4f5a6b"]
    )
    answer: str = Field(description="The whole answer.", examples=["Machine 4, with 91 degrees."])
    finish_reason: FinishReason = Field(
        description="end: the model ended; length: max_new_tokens; stop: a stop string.",
        examples=["end"],
    )
    prompt_tokens: int = Field(
        description="Tokens of the global prompt, prefix included.", examples=[212]
    )
    num_tokens: int = Field(description="Tokens of the answer.", examples=[9])
    support: float | None = Field(
        description="How surely the answer points at single rows of passages, 0 to 1; null without "
        "an answer, or if no passage took part.",
        examples=[0.61],
    )
    is_supported: bool = Field(
        description="Whether support is as much as the query's min_support.", examples=[True]
    )
    sources: list[AnswerSource] = Field(
        description="Passages that drew the answer's attention, those with the most first."
    )
    participants: list[ParticipantReport] = Field(
        description="Members in token order, then excluded nodes."
    )
    totals: Totals = Field(description="The session in numbers.")
    asked: AskedReport | None = Field(
        None,
        description="How it was decoded while rows stayed with their owners; null if none did.",
    )
    retried: Retried | None = Field(
        None, description="Who was lost in a first try; null if there was one try only."
    )


class WarmAnswer(BaseModel):
    """Whose rows the publisher has cached now."""

    session_id: str = Field(
        description="Id of the session.", examples=["5f2b7c1e9a0d4e3f8b6a1c2d3e4f5a6b"]
    )
    kv_bytes: int = Field(
        description="Bytes of all frames that travelled, headers included.", examples=[18560]
    )
    participants: list[ParticipantReport] = Field(
        description="Members in token order, then excluded nodes."
    )


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = Field(
        description="Always ok; otherwise a problem document.", examples=["ok"]
    )
