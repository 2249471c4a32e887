"""What may be said of a query by name: the fields of its body, with their types."""

from typing import TypedDict

from fedattn.core.request import Exchange
from fedattn.core.share import Share
from fedattn.core.spans import PrefixMode
from fedattn.rest.faults import checked
from fedattn.rest.fields import CompressionBody, SamplingBody, TurnBody
from fedattn.rest.query import QueryBody
from fedattn.rest.session import SessionBody


class SamplingOptions(TypedDict, total=False):
    """Fields of `SamplingBody`."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    no_repeat_ngram_size: int
    seed: int
    stop: list[str]


class CompressionOptions(TypedDict, total=False):
    """Fields of `CompressionBody`."""

    codec: str
    keep_ratio: float | None
    selector: str
    keep_ends: int
    input_keep_ratio: float
    seed: int


class TurnOptions(TypedDict):
    """Fields of `TurnBody`; speakers are system, user and assistant."""

    speaker: str
    text: str


class SessionOptions(TypedDict, total=False):
    """Fields of `SessionBody`, which documents them."""

    publisher: str | None
    contributors: list[str] | None
    require: list[str]
    plan: str
    publisher_plan: str | None
    exchange: Exchange | str
    asked_plan: str | None
    query_codec: str
    compression: CompressionOptions | CompressionBody
    kv_budget_bytes: int | None
    link_rate_mbit_s: float | None
    link_time_s: float | None
    link_rtt_ms: float | None
    prefix: PrefixMode | str
    independent: bool
    min_participants: int
    deadline_s: float
    max_wait_s: float | None
    node_tokens: int | None
    context_tokens: int | None
    purpose: str
    subject: str


class QueryOptions(SessionOptions, total=False):
    """Fields of `QueryBody` besides the question, which documents them."""

    share: Share | str | None
    topic: str
    min_support: float
    turns: list[TurnOptions | TurnBody]
    sampling: SamplingOptions | SamplingBody
    reuse: bool
    retry: bool
    timeline: bool


def query_of(question: str | QueryBody, options: QueryOptions) -> QueryBody:
    """The query of a question, or a query with some of its fields changed.

    Raises:
        InvalidInputError: names what does not fit.
    """
    given = {"question": question} if isinstance(question, str) else dict(question)
    return checked(QueryBody, **{**given, **options})


def session_of(body: SessionBody | None, options: SessionOptions) -> SessionBody:
    """A session of these options, or one with some of its fields changed.

    Raises:
        InvalidInputError: names what does not fit.
    """
    return checked(SessionBody, **{**dict(body or SessionBody()), **options})
