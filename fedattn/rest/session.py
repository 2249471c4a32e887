"""The body of a request that opens a session, and what all those that ask have of it."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedattn.core.asked import DEFAULT_QUERY_CODEC, QUERY_CODEC_NAMES
from fedattn.core.asked_costs import Link
from fedattn.core.budget import ByteBudget
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import (
    DEFAULT_DEADLINE_S,
    DEFAULT_MIN_PARTICIPANTS,
    MAX_BUDGET_BYTES,
    MAX_DEADLINE_S,
    MAX_MEMBERS,
    MAX_NODE_TOKENS,
)
from fedattn.core.plans import PLAN_TEXT
from fedattn.core.request import LABEL_TEXT, Exchange, SessionOptions
from fedattn.core.spans import PrefixMode
from fedattn.rest.fields import CompressionBody, NodeId, PlanText, QueryCodecName


class SessionBody(BaseModel):
    """Who takes part in a session, and how rows travel."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    publisher: NodeId | None = Field(
        None,
        description="Node that publishes the query; the gateway chooses if absent.",
        examples=["publisher"],
    )
    contributors: list[NodeId] | None = Field(
        None,
        description="Contributing nodes in token order; all that are joined if absent.",
        max_length=MAX_MEMBERS - 1,
        examples=[["node-a", "node-b"]],
    )
    require: list[NodeId] = Field(
        default_factory=list,
        description="Nodes without which there is no answer: they take part whoever else does, and "
        "unless all their rows come the query fails, and says why. Contributors that are only "
        "named may drop out on the way, and the answer is without them.",
        max_length=MAX_MEMBERS - 1,
        examples=[["node-a"]],
    )
    plan: PlanText = Field(
        "auto",
        description=f"Sync plan of the contributors: {PLAN_TEXT}.",
        examples=["auto", "auto@1/20", "7,9,10-12"],
    )
    publisher_plan: PlanText | None = Field(
        None,
        description="Sync plan of the publisher; the same as plan if absent.",
        examples=["7,9,10-12"],
    )
    exchange: Exchange = Field(
        Exchange.AUTO,
        strict=False,
        description="How contributors let the publisher attend to their rows. rows: they send "
        "them; ask: the rows stay with them, and they answer the publisher's queries at every "
        "asked block and pass; auto: as the policy of each node has it, rows if that leaves both "
        "open.",
    )
    asked_plan: PlanText | None = Field(
        None,
        description="Blocks at which contributors are asked whose rows stay with them; as the "
        "profile says, or those of the publisher, if absent.",
        examples=["7,9,10-12"],
    )
    query_codec: QueryCodecName = Field(
        DEFAULT_QUERY_CODEC,
        description="How queries to such contributors, and what they make of their rows, are "
        f"written: {', '.join(QUERY_CODEC_NAMES)}.",
        json_schema_extra={"enum": list(QUERY_CODEC_NAMES)},
    )
    compression: CompressionBody = Field(
        default_factory=CompressionBody, description="How contributors' rows travel."
    )
    kv_budget_bytes: int | None = Field(
        None,
        ge=1,
        le=MAX_BUDGET_BYTES,
        description="Most bytes of all frames together, headers included. To keep it, the session "
        "goes down the points of the model's profile that send less, those of the given codec.",
        examples=[100_000],
    )
    link_rate_mbit_s: Annotated[float | None, Field(allow_inf_nan=False)] = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Rate of the slowest participant's link; with link_time_s a byte budget for "
        "each link, in either direction; with link_rtt_ms what exchange auto goes by.",
        examples=[20.0],
    )
    link_time_s: Annotated[float | None, Field(allow_inf_nan=False)] = Field(
        None,
        gt=0,
        le=MAX_DEADLINE_S,
        description="Time the frames may take on a link of link_rate_mbit_s.",
        examples=[0.5],
    )
    link_rtt_ms: Annotated[float | None, Field(allow_inf_nan=False)] = Field(
        None,
        ge=0,
        le=60_000,
        description="Time of a small message from a participant to the aggregator and back. With "
        "link_rate_mbit_s: exchange auto asks where that is faster than sending rows.",
        examples=[1.0],
    )
    prefix: PrefixMode = Field(
        PrefixMode.PUBLIC,
        strict=False,
        description="Whether everybody computes the system prompt, or the first participant "
        "owns it like the rest of its span.",
    )
    independent: bool = Field(
        False,
        description="Contributors compute as if each followed the public prefix alone: their rows "
        "are of use in any order, and a changed context invalidates no other. plan is then the "
        "publisher's; contributors attend to nobody.",
    )
    min_participants: int = Field(
        DEFAULT_MIN_PARTICIPANTS,
        ge=1,
        le=MAX_MEMBERS,
        description="Fewest participants, publisher included.",
    )
    deadline_s: Annotated[float, Field(allow_inf_nan=False)] = Field(
        DEFAULT_DEADLINE_S,
        gt=0,
        le=MAX_DEADLINE_S,
        description="Longest time for everything, seconds: waiting for a place too, but for a "
        "query in the background.",
    )
    max_wait_s: Annotated[float | None, Field(allow_inf_nan=False)] = Field(
        None,
        ge=0,
        le=MAX_DEADLINE_S,
        description="Longest wait for a place if there is none, seconds; 0: it is refused at once. "
        "Default: as long as deadline_s, in the background an hour.",
        examples=[30.0],
    )

    node_tokens: int | None = Field(
        None,
        ge=1,
        le=MAX_NODE_TOKENS,
        description="Most tokens of one node's text; default: a third of context_tokens, or an "
        "even share if nodes do not know what is asked.",
        examples=[300],
    )
    context_tokens: int | None = Field(
        None,
        ge=1,
        le=MAX_NODE_TOKENS,
        description="Most tokens of all nodes' texts together; the nodes whose texts fit the "
        "question best take part. Default: as many as suit the model.",
        examples=[900],
    )
    purpose: str = Field(
        "",
        description=f"What the answer is for, in a word that owners' policies know; {LABEL_TEXT}.",
        examples=["maintenance"],
    )
    subject: str = Field(
        "",
        description="Who asks: at a gateway with sign-in who signed in, else as this client says. "
        "The publisher's node signs it; contributors believe it as far as they believe the "
        f"publisher. {LABEL_TEXT.capitalize()}.",
        examples=["anna@ward-1"],
    )

    @property
    def budget(self) -> ByteBudget | None:
        """What may travel; None for no limit."""
        rate, time_s = self.link_rate_mbit_s, self.link_time_s
        link_bytes = None
        if rate is not None and time_s is not None:
            link_bytes = max(1, int(rate * 1e6 / 8 * time_s))
        if link_bytes is None and self.kv_budget_bytes is None:
            return None
        return ByteBudget(kv_bytes=self.kv_budget_bytes, link_bytes=link_bytes)

    @property
    def link(self) -> Link | None:
        """What the exchange is chosen by; None if it does not say."""
        if self.link_rate_mbit_s is None or self.link_rtt_ms is None:
            return None
        return Link(
            bytes_per_s=self.link_rate_mbit_s * 1e6 / 8, round_trip_s=self.link_rtt_ms / 1e3
        )

    @property
    def options(self) -> SessionOptions:
        """What it says about its session."""
        return SessionOptions(
            contributors=tuple(self.contributors or ()),
            budget=self.budget,
            prefix=self.prefix,
            min_participants=self.min_participants,
            deadline_s=self.deadline_s,
            independent=self.independent,
            purpose=self.purpose,
            subject=self.subject,
            node_tokens=self.node_tokens,
            context_tokens=self.context_tokens,
            require=tuple(self.require),
            exchange=self.exchange,
        )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check what no field says alone.

        Raises:
            InvalidRequestError: fields that do not go together.
        """
        uses = [self.link_time_s, self.link_rtt_ms]
        if (self.link_rate_mbit_s is None) != all(use is None for use in uses):
            raise InvalidRequestError(
                "link_rate_mbit_s goes with link_time_s, for a byte budget, or with link_rtt_ms, "
                "for the choice of the exchange; give it with one of them, or none of the three"
            )
        if self.contributors is not None and not self.contributors:
            raise InvalidRequestError(
                "contributors is an empty list; name at least one node, or leave the field out "
                "for all that are joined"
            )
        self.options  # noqa: B018 - checks what goes together
        return self
