"""What the gateway tells of the nodes that are joined, documented field by field."""

from pydantic import BaseModel, Field

from fedattn.core.contexts import SkipReason
from fedattn.core.report import NodeState, Pressure


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
