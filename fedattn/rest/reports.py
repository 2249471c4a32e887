"""What a session and its members did, in numbers, documented field by field."""

from dataclasses import asdict
from typing import Self

from pydantic import BaseModel, Field
from pydantic.dataclasses import dataclass

from fedattn.core.codecs import CODECS
from fedattn.core.compression import Compression, RowSelection
from fedattn.core.limits import described
from fedattn.core.report import Outcome, RowSource
from fedattn.core.spans import Role
from fedattn.core.timeline import Activity
from fedattn.rest.participants import ContextCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsReport(RowSelection):
    """How rows travelled."""

    codec: str = described(
        "",
        f"How they were written: {', '.join(codec.name for codec in CODECS)}.",
    )

    @classmethod
    def of(cls, compression: Compression, num_rows: int) -> Self:
        """The report of a compression of so many rows."""
        selection = {**compression.selection, "keep_ratio": compression.share_of(num_rows)}
        return cls(codec=compression.codec.name, **selection)


class LayerTraffic(BaseModel):
    """What one participant moved at one layer."""

    layer: int = Field(description="Zero-based block.", examples=[7])
    up: int = Field(description="Bytes to the aggregator, headers included.", examples=[18560])
    down: int = Field(description="Bytes from the aggregator, headers included.", examples=[0])


class PlannedCost(BaseModel):
    """What the cost model foretold of one participant."""

    bytes_up: int = Field(
        description="Most KV bytes it sends; exact for codecs of fixed size.", examples=[18816]
    )
    bytes_down: int = Field(description="Most KV bytes it receives.", examples=[0])
    flops_prefill: int = Field(
        description="Floating-point operations of its prefill.", examples=[21000000000]
    )
    flops_decode: int = Field(
        description="Floating-point operations of decoding; 0 for contributors.", examples=[0]
    )
    peak_memory_bytes: int = Field(
        description="Weights, KV rows and the largest block's tensors, bytes.",
        examples=[560000000],
    )


class TimelineSlice(BaseModel):
    """One piece of a participant's work."""

    activity: Activity = Field(
        description="open: until everybody had said its length; compute: the model, up to the rows "
        "of a block; encode: writing own rows; send: handing them to the network; wait: for rows "
        "of others or room to send; decode: reading them; generate: tokens of the answer.",
        examples=["compute"],
    )
    layer: int = Field(description="Zero-based block it was for.", examples=[7])
    begin_s: float = Field(
        description="Seconds since the query came to the publisher. Clocks of the nodes meet where "
        "each learned of the session, so they differ by the delays of their links.",
        examples=[0.31],
    )
    duration_s: float = Field(description="Seconds.", examples=[0.04])


class ParticipantReport(ContextCounts):
    """What one participant did in a session."""

    node_id: str = Field(description="Id of the node.", examples=["node-a"])
    role: Role = Field(description="What it did.", examples=["contributor"])
    state: Outcome = Field(
        description="How its part ended; empty: it had nothing to give and took no part; departed: "
        "it had left within the last hour, so that the answer is without it.",
        examples=["lost"],
    )
    span_len: int = Field(description="Tokens of its span.", examples=[96])
    text_tokens: int = Field(
        description="Tokens of its text that took part: its span without prefix and question.",
        examples=[310],
    )
    passages: int = Field(description="Passages of its text that took part.", examples=[4])
    influence: float | None = Field(
        description="Share of the answer's attention to all members' rows that its rows drew, 0 to "
        "1, passages or not; null without an answer.",
        examples=[0.41],
    )
    missing_from_layer: int | None = Field(
        description="First layer it was left out at; null unless lost or late.", examples=[21]
    )
    detail: str = Field(
        description="Reason if not all went well, else empty.", examples=["connection lost"]
    )
    wait_s: float = Field(description="Time it waited for rows, seconds.", examples=[0.08])
    compute_s: float = Field(description="Time it computed, seconds.", examples=[0.41])
    bytes_up: int = Field(description="KV bytes it sent.", examples=[18560])
    bytes_down: int = Field(description="KV bytes it received.", examples=[0])
    layers: list[LayerTraffic] = Field(description="By layer; where nothing moved, absent.")
    sync_layers: list[int] = Field(
        description="Zero-based blocks at which it attended to other spans.", examples=[[7, 9]]
    )
    compression: RowsReport | None = Field(
        description="How its rows travelled; null for excluded nodes.",
        examples=[asdict(RowsReport(codec="entropy-medium", keep_ratio=0.3, selector="learned"))],
    )
    rows: RowSource | None = Field(
        description="computed: it computed its rows; contributor_cache: it sent frames it had "
        "cached; publisher_cache: the publisher had its rows cached and nothing travelled; asked: "
        "they stayed with it, and it answered queries. Null if nobody counted.",
        examples=["publisher_cache"],
    )
    round_trips: int = Field(
        0,
        description="Pieces of queries that it answered; of the publisher, those it sent.",
        examples=[0],
    )
    planned: PlannedCost | None = Field(
        description="What was foretold for it; null for excluded nodes."
    )
    timeline: list[TimelineSlice] = Field(
        description="What it did when, by its own clock; empty unless the query asked for it."
    )


class Totals(BaseModel):
    """The session in numbers."""

    time_to_first_token_s: float = Field(
        description="From the arrival of the query at the publisher, seconds.", examples=[0.9]
    )
    tokens_per_s: float | None = Field(
        description="Decoding speed after the first token; null below two tokens.",
        examples=[24.5],
    )
    kv_bytes: int = Field(
        description="Bytes of all frames, each counted once, headers included.", examples=[18560]
    )
    planned_kv_bytes: int = Field(
        description="Most bytes that were foretold; kv_bytes never exceeds it.", examples=[18816]
    )
    kv_bytes_down: int = Field(
        description="Bytes of all frames as delivered to receivers.", examples=[18560]
    )
    asked_bytes: int = Field(
        0,
        description="Bytes of queries to contributors whose rows stay with them, and of their "
        "answers, each counted once.",
        examples=[0],
    )
    budget_steps: int = Field(
        description="Steps that the session went down to keep its byte budget, of those that the "
        "model's profile allows; 0: everything is as was asked. The participants say how their "
        "rows travelled.",
        examples=[1],
    )


class AskedReport(BaseModel):
    """Decoding while rows stay with contributors: tokens are drafted, then asked about together."""

    passes: int = Field(
        description="Passes that asked, behind the prefill; each at all asked blocks.",
        examples=[14],
    )
    drafted: int = Field(description="Tokens that were drafted.", examples=[22])
    accepted: int = Field(description="Drafts that became tokens of the answer.", examples=[17])
    draft_s: float = Field(description="Time that drafting took, seconds.", examples=[0.61])
    pass_s: float = Field(
        description="Time that the passes took, waiting included, seconds.", examples=[1.1]
    )
