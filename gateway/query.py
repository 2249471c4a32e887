"""The body of a query, and its way onto the wire. Everything from a client is checked here."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedattn.core.budget import ByteBudget
from fedattn.core.codecs import CODEC_NAMES, DEFAULT_CODEC, codec_by_name
from fedattn.core.compression import MAX_SEED, Compression
from fedattn.core.errors import EmptyQuestionError, InvalidRequestError
from fedattn.core.plans import PlanSpec
from fedattn.core.request import SessionOptions
from fedattn.core.sampling import MAX_NEW_TOKENS, MAX_STOP_LENGTH, MAX_STOP_STRINGS, SamplingParams
from fedattn.core.selection import DEFAULT_SELECTOR, MAX_KEEP_ENDS, SELECTOR_NAMES
from fedattn.core.spans import PrefixMode
from fedattn.wire.convert import sampling_to_wire
from fedattn.wire.protocol import MAX_DEADLINE_S, MAX_MEMBERS, MAX_QUESTION_LENGTH, check_node_id
from fedattn.wire.sessions import options_to_wire
from fedattn.wire.v1 import participant_pb2

MAX_BUDGET_BYTES = 1 << 50
_PLAN_TEXT = (
    "all, none, auto or auto@BLOCKS (what was found best for the model), a schedule with :INTERVAL "
    "or @BLOCKS (uniform, shallow-half, deep-half, progressive, regressive, middle), or zero-based "
    "blocks such as 7,9,10-12"
)


class SamplingBody(BaseModel):
    """How the publisher chooses tokens; the default is greedy.

    The limits are documented here and checked by `fedattn.core.sampling.SamplingParams`.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    max_new_tokens: int = Field(
        default=64,
        description="Most tokens to decode.",
        json_schema_extra={"minimum": 1, "maximum": MAX_NEW_TOKENS},
    )
    temperature: float = Field(
        default=0.0, description="0 is greedy.", json_schema_extra={"minimum": 0, "maximum": 10}
    )
    top_p: float = Field(
        default=1.0,
        description="Smallest set of tokens with this probability mass.",
        json_schema_extra={"minimum": 1e-6, "maximum": 1},
    )
    top_k: int = Field(
        default=0,
        description="The k most likely tokens, 0 for all.",
        json_schema_extra={"minimum": 0, "maximum": 1_000_000},
    )
    seed: int = Field(
        default=0,
        description="Of the random draw, for a temperature above 0.",
        json_schema_extra={"minimum": 0, "maximum": 2**63 - 1},
    )
    stop: list[str] = Field(
        default_factory=list,
        description=f"Decoding ends before any of these, each 1 to {MAX_STOP_LENGTH} characters.",
        examples=[["\n"]],
        json_schema_extra={"maxItems": MAX_STOP_STRINGS},
    )


class SessionBody(BaseModel):
    """Who takes part in a session, and how rows travel."""

    model_config = ConfigDict(extra="forbid", strict=True)

    publisher: str | None = Field(
        None,
        description="Node that publishes the query; the first configured one if absent.",
        examples=["publisher"],
    )
    contributors: list[str] | None = Field(
        None,
        description="Contributing nodes in token order; all that are joined if absent.",
        max_length=MAX_MEMBERS - 1,
        examples=[["node-a", "node-b"]],
    )
    plan: str = Field(
        "auto",
        description=f"Sync plan of the contributors: {_PLAN_TEXT}.",
        examples=["auto", "auto@8", "uniform:4", "7,9,10-12"],
    )
    publisher_plan: str | None = Field(
        None,
        description="Sync plan of the publisher; the same as plan if absent.",
        examples=["all"],
    )
    codec: str = Field(
        DEFAULT_CODEC,
        description=f"How KV rows travel: {', '.join(CODEC_NAMES)}.",
        json_schema_extra={"enum": list(CODEC_NAMES)},
    )
    keep_ratio: Annotated[float, Field(allow_inf_nan=False)] = Field(
        1.0,
        description="Share of a contributor's rows that travel at a sync layer.",
        gt=0,
        le=1,
    )
    selector: str = Field(
        DEFAULT_SELECTOR,
        description=f"Which rows travel if not all: {', '.join(SELECTOR_NAMES)}.",
        json_schema_extra={"enum": list(SELECTOR_NAMES)},
    )
    keep_ends: int = Field(
        0, ge=0, le=MAX_KEEP_ENDS, description="Rows at each end of a span that always travel."
    )
    input_keep_ratio: Annotated[float, Field(allow_inf_nan=False)] = Field(
        1.0,
        description="Share of a contributor's tokens that are computed at all, drawn at random. "
        "What the others say is lost; below 1 answers get worse.",
        gt=0,
        le=1,
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Of the draws of rows and tokens.")
    kv_budget_bytes: int | None = Field(
        None,
        ge=1,
        le=MAX_BUDGET_BYTES,
        description="Most bytes of all frames together, headers included. The aggregator lowers "
        "codec (if it is auto), keep ratio and plan as far as needed.",
        examples=[100_000],
    )
    link_rate_mbit_s: Annotated[float | None, Field(allow_inf_nan=False)] = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Rate of the slowest participant's link; with link_time_s a byte budget for "
        "each link, in either direction.",
        examples=[20.0],
    )
    link_time_s: Annotated[float | None, Field(allow_inf_nan=False)] = Field(
        None,
        gt=0,
        le=MAX_DEADLINE_S,
        description="Time the frames may take on a link of link_rate_mbit_s.",
        examples=[0.5],
    )
    prefix: Literal["public", "first"] = Field(
        "public",
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
        2, ge=1, le=MAX_MEMBERS, description="Fewest participants, publisher included."
    )
    deadline_s: Annotated[float, Field(allow_inf_nan=False)] = Field(
        120.0, gt=0, le=MAX_DEADLINE_S, description="Longest time for everything, seconds."
    )


class QueryBody(SessionBody):
    """A collaborative query."""

    question: str = Field(
        description="The question. It goes to the publisher's node only, and into no log.",
        max_length=MAX_QUESTION_LENGTH,
        examples=["Which machine reported the highest temperature?"],
        json_schema_extra={"minLength": 1},
    )
    sampling: SamplingBody = Field(
        default_factory=SamplingBody, description="How to choose tokens."
    )
    reuse: bool = Field(
        True,
        description="Whether rows held or kept since earlier queries are used; the answer is the "
        "same.",
    )
    timeline: bool = Field(
        False, description="Whether the report tells what every participant did when."
    )
    stream: bool = Field(
        False, description="Answer with server-sent events instead of one document."
    )


def query_to_wire(body: QueryBody) -> participant_pb2.QueryRequest:
    """Check what the schema does not say, and convert.

    Raises:
        EmptyQuestionError, InvalidPlanError, InvalidSamplingError, InvalidRequestError: what
            the client must change.
    """
    if not body.question.strip():
        raise EmptyQuestionError("the question is empty; ask something")
    return _to_wire(body, body.question, _to_sampling(body.sampling), _to_options(body))


def session_to_wire(body: SessionBody) -> participant_pb2.QueryRequest:
    """Check and convert all but the question.

    Raises:
        InvalidPlanError, InvalidRequestError: what the client must change.
    """
    return _to_wire(body, "", SamplingParams(), _to_options(body))


def _to_wire(
    body: SessionBody, question: str, sampling: SamplingParams, options: SessionOptions
) -> participant_pb2.QueryRequest:
    return participant_pb2.QueryRequest(
        question=question,
        plan=PlanSpec(body.plan).text,
        publisher_plan="" if body.publisher_plan is None else PlanSpec(body.publisher_plan).text,
        sampling=sampling_to_wire(sampling),
        options=options_to_wire(options),
    )


def _to_options(body: SessionBody) -> SessionOptions:
    return SessionOptions(
        contributors=tuple(_check_contributors(body.contributors)),
        compression=_to_compression(body),
        budget=_to_budget(body),
        prefix=PrefixMode(body.prefix),
        min_participants=body.min_participants,
        deadline_s=body.deadline_s,
        reuse=body.reuse if isinstance(body, QueryBody) else True,
        wants_timeline=isinstance(body, QueryBody) and body.timeline,
        independent=body.independent,
    )


def _to_compression(body: SessionBody) -> Compression:
    return Compression(
        codec=codec_by_name(body.codec),
        keep_ratio=body.keep_ratio,
        selector=body.selector,
        keep_ends=body.keep_ends,
        input_keep_ratio=body.input_keep_ratio,
        seed=body.seed,
    )


def _to_budget(body: SessionBody) -> ByteBudget | None:
    rate, time_s = body.link_rate_mbit_s, body.link_time_s
    if (rate is None) != (time_s is None):
        raise InvalidRequestError(
            "link_rate_mbit_s and link_time_s make a byte budget together; give both or neither"
        )
    link_bytes = None if rate is None or time_s is None else max(1, int(rate * 1e6 / 8 * time_s))
    if link_bytes is None and body.kv_budget_bytes is None:
        return None
    return ByteBudget(
        kv_bytes=body.kv_budget_bytes,
        link_bytes=link_bytes,
        may_choose_codec=body.codec == DEFAULT_CODEC,
    )


def _check_contributors(node_ids: list[str] | None) -> list[str]:
    if node_ids is None:
        return []
    if not node_ids:
        raise InvalidRequestError(
            "contributors is an empty list; name at least one node, or leave the field out for "
            "all that are joined"
        )
    return [check_node_id(node_id) for node_id in node_ids]


def _to_sampling(body: SamplingBody) -> SamplingParams:
    return SamplingParams(
        max_new_tokens=body.max_new_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        seed=body.seed,
        stop=tuple(body.stop),
    )
