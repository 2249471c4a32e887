"""What the gateway tells while a query runs, documented field by field."""

from typing import TypeAlias

from pydantic import BaseModel, Field

from fedattn.core.spans import Role
from fedattn.rest.answers import QueryAnswer, Retried
from fedattn.rest.problems import Problem
from fedattn.rest.reports import ParticipantReport


class QueuedEvent(BaseModel):
    """Data of `queued`: the query waits for a place, here."""

    place: int = Field(
        description="Its place among the queries that wait for the same publisher, from 1.",
        examples=[3],
    )
    of: int = Field(description="How many these are.", examples=[7])
    estimate_s: float | None = Field(
        description="About how long it will wait, by what recent queries took, seconds; null while "
        "none was measured.",
        examples=[12.4],
    )

    @property
    def words(self) -> str:
        """For people, such as `waiting: 3 of 7, about 12 s`."""
        about = "" if self.estimate_s is None else f", about {self.estimate_s:.0f} s"
        return f"waiting: {self.place} of {self.of}{about}"


class SessionMember(BaseModel):
    """One participant's place in the global token order."""

    node_id: str = Field(description="Id of the node.", examples=["node-a"])
    role: Role = Field(description="What it does.", examples=["contributor"])
    span_start: int = Field(description="First token position of its span.", examples=[24])
    span_stop: int = Field(description="One past its last position.", examples=[120])
    sync_layers: list[int] = Field(
        description="Zero-based blocks at which it attends to other spans.", examples=[[7, 9]]
    )


class SessionEvent(BaseModel):
    """Data of `session`: the session is open."""

    session_id: str = Field(
        description="Id of the session.", examples=["5f2b7c1e9a0d4e3f8b6a1c2d3e4f5a6b"]
    )
    prefix_len: int = Field(description="Tokens of the public prefix.", examples=[24])
    num_layers: int = Field(description="Blocks of the model.", examples=[30])
    row_bytes: int = Field(
        description="Bytes of one token's keys and values at one block, at 2 bytes a number: raw, "
        "as bf16 has them.",
        examples=[768],
    )
    members: list[SessionMember] = Field(description="Token order; the publisher is last.")
    excluded: list[ParticipantReport] = Field(
        description="Nodes that take no part: joined ones, and those that left within the last "
        "hour."
    )
    spends_approval: bool = Field(
        False, description="Whether a person approved this session, and has to approve another."
    )


class RowArrival(BaseModel):
    """The rows of one sender at one block."""

    node_id: str = Field(description="Whose rows.", examples=["node-a"])
    num_rows: int = Field(description="Rows that came for one head, in the mean.", examples=[96])
    num_bytes: int = Field(
        description="Bytes of the frame, header included; 0 if the publisher had the rows cached.",
        examples=[18560],
    )
    wait_s: float = Field(
        description="From when the publisher needed the rows until they were there, seconds; 0 if "
        "they were before.",
        examples=[0.02],
    )


class LayerEvent(BaseModel):
    """Data of `layer`: the publisher has passed a sync layer."""

    layer: int = Field(description="Zero-based block.", examples=[7])
    num_rows: int = Field(
        description="Rows that came from others for one head, in the mean.", examples=[96]
    )
    wait_s: float = Field(description="Time it waited for them, seconds.", examples=[0.02])
    arrivals: list[RowArrival] = Field(
        description="What came from each sender, in token order; who is left out is absent."
    )


class TokenEvent(BaseModel):
    """Data of `token`: a piece of the answer."""

    text: str = Field(description="Text that is final.", examples=["Machine"])


QueryEvent: TypeAlias = QueuedEvent | SessionEvent | LayerEvent | Retried | TokenEvent | QueryAnswer
"""What happens during a query, in this order; the answer is the last. After `Retried` it begins
anew."""

EVENT_MODELS: dict[str, type[BaseModel]] = {
    "queued": QueuedEvent,
    "session": SessionEvent,
    "layer": LayerEvent,
    "retried": Retried,
    "token": TokenEvent,
    "report": QueryAnswer,
    "error": Problem,
}
"""Name of each server-sent event -> the model of its data. The stream ends with one of the last
two."""
