"""Bodies of requests. Making one checks it: whoever holds a body holds a good one.

What a core value limits is documented and checked by that value; only what stands in no core value
is limited here.
"""

from dataclasses import field, replace
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from fedattn.core.asked import DEFAULT_QUERY_CODEC, QUERY_CODEC_NAMES, query_codec_by_name
from fedattn.core.asked_costs import Link
from fedattn.core.budget import ByteBudget
from fedattn.core.codecs import CODEC_NAMES, DEFAULT_CODEC, codec_by_name
from fedattn.core.compression import SETTINGS_FIELDS, Compression, RowSettings
from fedattn.core.errors import EmptyQuestionError, InvalidRequestError
from fedattn.core.limits import (
    DEFAULT_DEADLINE_S,
    DEFAULT_MIN_PARTICIPANTS,
    MAX_BUDGET_BYTES,
    MAX_DEADLINE_S,
    MAX_MEMBERS,
    MAX_NODE_TOKENS,
    MAX_QUESTION_LENGTH,
    MAX_TOPIC_LENGTH,
    described,
    limited,
)
from fedattn.core.node_id import check_node_id
from fedattn.core.plans import PLAN_TEXT, PlanSpec
from fedattn.core.profile import CompressionWish
from fedattn.core.request import LABEL_TEXT, Exchange, SessionOptions
from fedattn.core.sampling import MAX_STOP_LENGTH, MAX_STOP_STRINGS, SamplingParams
from fedattn.core.selection import SELECTOR_NAMES, check_selector
from fedattn.core.share import Share
from fedattn.core.spans import PrefixMode
from fedattn.core.turns import MAX_TURNS, MAX_TURNS_LENGTH, Turn, check_turns

AUTO = "auto"
"""Leaves a choice to the profile of the model."""
_BODY = ConfigDict(extra="forbid")


def _check_codec(name: str) -> str:
    codec_by_name(name)
    return name


def _check_query_codec(name: str) -> str:
    query_codec_by_name(name)
    return name


NodeId = Annotated[str, AfterValidator(check_node_id)]
PlanText = Annotated[str, AfterValidator(lambda text: PlanSpec(text).text)]
CodecName = Annotated[str, AfterValidator(_check_codec)]
QueryCodecName = Annotated[str, AfterValidator(_check_query_codec)]
SelectorName = Annotated[
    str, AfterValidator(lambda name: name if name == AUTO else check_selector(name))
]


@dataclass(frozen=True, slots=True, kw_only=True, config=_BODY)
class SamplingBody(SamplingParams):
    """How the publisher chooses tokens; the default is greedy."""

    stop: tuple[str, ...] = field(
        default=(),
        metadata={
            "description": f"Decoding ends before any of these, each 1 to {MAX_STOP_LENGTH} "
            "characters.",
            "examples": [["\n"]],
            "json_schema_extra": {"maxItems": MAX_STOP_STRINGS},
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=_BODY)
class CompressionBody(RowSettings):
    """What contributors leave out of their KV rows, and how they write the rest.

    What is left open is as the profile of the model at the publisher's node says.
    """

    codec: CodecName = described(
        DEFAULT_CODEC,
        f"How KV rows are written: {', '.join(CODEC_NAMES)}. auto: as the profile says.",
        choices=CODEC_NAMES,
    )
    keep_ratio: float | None = limited(
        None,
        "Share of the computed rows that travel, of all heads at all sync layers together; as the "
        "profile says if absent.",
        0,
        1,
        is_low_excluded=True,
    )
    selector: SelectorName = described(
        AUTO,
        f"Which rows travel if not all: auto, {', '.join(SELECTOR_NAMES)}. auto: learned if there "
        "is a profile.",
        choices=(AUTO, *SELECTOR_NAMES),
    )

    @classmethod
    def of(cls, wish: CompressionWish) -> Self:
        """The body that says a wish."""
        settings = {name: getattr(wish.settings, name) for name in SETTINGS_FIELDS}
        return cls(
            codec=DEFAULT_CODEC if wish.codec is None else wish.codec.name,
            keep_ratio=wish.keep_ratio,
            selector=AUTO if wish.selector is None else wish.selector,
            **settings,
        )

    @property
    def value(self) -> CompressionWish:
        """What it asks for."""
        settings = {name: getattr(self, name) for name in SETTINGS_FIELDS}
        return CompressionWish(
            codec=None if self.codec == DEFAULT_CODEC else codec_by_name(self.codec),
            keep_ratio=self.keep_ratio,
            selector=None if self.selector == AUTO else self.selector,
            settings=Compression(**settings),
        )


@dataclass(frozen=True, slots=True, kw_only=True, config=_BODY)
class TurnBody(Turn):
    """What one speaker said before the question."""

    text: str = field(
        repr=False, metadata={"description": "What was said.", "examples": ["Machine 4."]}
    )


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
        examples=["auto", "auto@1/20", "uniform:4", "7,9,10-12"],
    )
    publisher_plan: PlanText | None = Field(
        None,
        description="Sync plan of the publisher; the same as plan if absent.",
        examples=["all"],
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


class AskBody(SessionBody):
    """How a question is asked, whatever it is."""

    share: Share | None = Field(
        None,
        strict=False,
        description="What contributors may know of the question, to choose what takes part of "
        "their texts: nothing, the topic given here, or the question. It is sealed to each of "
        "them; the aggregator learns none of it. Default: as the gateway is set.",
        examples=["question"],
    )
    topic: str = Field(
        "",
        max_length=MAX_TOPIC_LENGTH,
        description="Words that contributors are told instead of the question, if share is topic.",
        examples=["pump pressure alarms"],
    )
    min_support: Annotated[float, Field(allow_inf_nan=False)] = Field(
        0.0,
        ge=0,
        le=1,
        description="Least support of an answer that counts as supported by the texts.",
        examples=[0.3],
    )
    reuse: bool = Field(
        True,
        description="Whether rows cached since earlier queries are used; the answer is the same.",
    )
    retry: bool = Field(
        True,
        description="Whether the query is put once more, without the nodes that were lost, if it "
        "fails for them before its first token and there is time left. Never once a person's "
        "approval was spent, and with another publisher only where none was named.",
    )
    timeline: bool = Field(
        False, description="Whether the report tells what every participant did when."
    )

    @property
    def options(self) -> SessionOptions:
        """What it says about its session."""
        share = Share.NOTHING if self.share is None else self.share
        return replace(super().options, reuse=self.reuse, wants_timeline=self.timeline, share=share)

    @model_validator(mode="after")
    def _check_topic(self) -> Self:
        """Check that words go with the topic they are, and only with it."""
        is_told = bool(self.topic.strip())
        if is_told != (self.share is Share.TOPIC):
            raise InvalidRequestError(
                "share topic and the words of the topic go together; give both or neither"
            )
        return self


class QueryBody(AskBody):
    """A collaborative query."""

    question: str = Field(
        description="The question. It goes to the publisher's node, to contributors if `share` "
        "says so, and into no log.",
        max_length=MAX_QUESTION_LENGTH,
        examples=["Which machine reported the highest temperature?"],
        json_schema_extra={"minLength": 1},
    )
    turns: list[TurnBody] = Field(
        default_factory=list,
        description="What was said before the question, in order. It goes to the publisher's node, "
        "and what the user said to contributors too, if `share` is question: they choose by it. "
        f"{MAX_TURNS_LENGTH} characters together.",
        max_length=MAX_TURNS,
        examples=[[{"speaker": "user", "text": "Which machine is hot?"}]],
    )
    sampling: SamplingBody = Field(
        default_factory=SamplingBody, description="How to choose tokens."
    )
    stream: bool = Field(
        False, description="Answer with server-sent events instead of one document."
    )
    background: bool = Field(
        False,
        description="Answer at once with a job, whose answer and events are read later.",
    )

    @model_validator(mode="after")
    def _check_question(self) -> Self:
        """Check that something is asked, after no more than may be said before.

        Raises:
            EmptyQuestionError: nothing is asked.
            InvalidRequestError: the turns are too long together, or it is a streamed job.
        """
        if not self.question.strip():
            raise EmptyQuestionError("the question is empty; ask something")
        if self.background and self.stream:
            raise InvalidRequestError(
                "background and stream do not go together; leave stream out, and read the job's "
                "events at /v1/queries/ID/events"
            )
        check_turns(self.turns)
        return self
