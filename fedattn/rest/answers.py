"""What the gateway answers with, documented field by field."""

from dataclasses import asdict
from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, Field
from pydantic.dataclasses import dataclass

from fedattn.core.codecs import CODECS
from fedattn.core.compression import Compression, RowSelection
from fedattn.core.contexts import SkipReason
from fedattn.core.limits import described
from fedattn.core.report import FinishReason, NodeState, Outcome, Pressure, RowSource
from fedattn.core.spans import Role
from fedattn.core.timeline import Activity
from fedattn.rest.problems import Problem


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


class ContextCounts(BaseModel):
    """What is told of a private context: counts, never text or names of files."""

    context_tokens: int | None = Field(
        description="Tokens of its private context, estimated for a long one, 0 for nothing to "
        "give; null if not known.",
        examples=[18400],
    )
    context_passages: int | None = Field(
        description="Passages that its text is cut into; null if not known.", examples=[212]
    )
    context_files: int | None = Field(
        description="Files they are from; null if not known.", examples=[3]
    )
    skipped_files: dict[SkipReason, int] = Field(
        description="Files of its context that were not read, by reason; the node's own log names "
        "them.",
        examples=[{"unknown_kind": 1}],
    )


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


class NodeHealth(BaseModel):
    """How much heat or lack of memory troubles a node."""

    pressure: Pressure = Field(
        description="high: it sends fewer rows; critical: it takes no new sessions.",
        examples=["none"],
    )
    memory_free: float = Field(
        description="Share of its memory that is left, 0 to 1.", examples=[0.62]
    )
    temperature_c: float | None = Field(
        description="Of its hottest sensor, degrees Celsius; null if it has none.",
        examples=[61.5],
    )


class ParticipantInfo(ContextCounts):
    """A node that is joined now, or left within the last hour."""

    node_id: str = Field(description="Id of the node.", examples=["node-a"])
    model_name: str = Field(description="Its model.", examples=["SmolLM2-135M-Instruct"])
    model_fingerprint: str = Field(
        description="SHA-256 of model config and weights.", examples=["9f" * 32]
    )
    num_layers: int = Field(description="Blocks of its model.", examples=[30])
    max_positions: int = Field(description="Tokens in its model's window.", examples=[8192])
    active_sessions: int = Field(description="Sessions it takes part in.", examples=[0])
    left_for_s: float | None = Field(
        None,
        description="Time since it left, seconds; null if it is there.",
        examples=[240.0],
    )
    joined_for_s: float = Field(
        description="How long it has been joined, or was, seconds.", examples=[314.2]
    )
    can_publish: bool = Field(
        description="Whether gateways may publish through it, which its owner decides.",
        examples=[True],
    )
    health: NodeHealth | None = Field(description="By its last heartbeat; null before the first.")
    warnings: list[str] = Field(
        description="What its owner should look at: nothing to give.",
        examples=[["nothing to give: 1 file skipped (1 binary); its log names each file"]],
    )
    state: NodeState = Field(
        description="late: it let others wait the last time, and is asked after all others; "
        "resting: several times in a row, and queries that do not name it go without it for a "
        "while; departed: it left within the last hour, and is described as it was then.",
        examples=["resting"],
    )
    state_reason: str = Field(
        description="How it let them wait, or why it left; empty if state is good.",
        examples=["it did not answer within 5.4 s"],
    )
    rests_for_s: float = Field(
        description="Time until it is asked again, seconds; 0 unless resting.", examples=[24.5]
    )


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = Field(
        description="Always ok; otherwise a problem document.", examples=["ok"]
    )


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
