"""A query as it comes from the gateway, checked."""

from dataclasses import dataclass, field, replace
from typing import assert_never

from fedattn.core.asked import DEFAULT_QUERY_CODEC, query_codec_by_name
from fedattn.core.asked_costs import Link
from fedattn.core.errors import EmptyQuestionError
from fedattn.core.limits import MAX_QUESTION_LENGTH, MAX_TOPIC_LENGTH
from fedattn.core.plans import PlanSpec
from fedattn.core.profile import Profile, Resolved, resolve
from fedattn.core.request import SessionOptions
from fedattn.core.sampling import SamplingParams
from fedattn.core.share import Hint, Share
from fedattn.core.turns import Speaker, Turn
from fedattn.wire.convert import require_range, sampling_from_wire, wish_from_wire
from fedattn.wire.session_options import options_from_wire
from fedattn.wire.turns import turns_from_wire
from fedattn.wire.v1 import participant_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A checked query.

    Attributes:
        resolved: plans of both roles, and how rows travel.
        question: empty if rows are only to be fetched ahead.
        turns: what was said before it.
        sampling: how to choose tokens.
        options: of the session.
        topic: words that contributors are told, if they are told a topic.
        min_support: least support of an answer that counts as supported, 0 to 1.
        query_codec: how queries are written to contributors whose rows stay with them.
        link: of all nodes, by which exchange `auto` is settled; None if it does not say.
    """

    resolved: Resolved
    question: str = ""
    turns: tuple[Turn, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    options: SessionOptions = field(default_factory=SessionOptions)
    topic: str = ""
    min_support: float = 0.0
    query_codec: str = DEFAULT_QUERY_CODEC
    link: Link | None = None

    @property
    def words(self) -> str:
        """What passages are chosen by: all that the user said, the question first.

        A question such as "And when?" names nothing; earlier ones say what it is about.
        """
        said = [turn.text for turn in self.turns if turn.speaker is Speaker.USER]
        return "\n".join([self.question, *reversed(said)])

    @property
    def hint(self) -> Hint | None:
        """What contributors are told of the question."""
        match self.options.share:
            case Share.NOTHING:
                return None
            case Share.TOPIC:
                return Hint.of(self.topic)
            case Share.QUESTION:
                return Hint.of(self.words)
            case other:
                assert_never(other)


def query_from_wire(
    request: participant_pb2.QueryRequest,
    num_layers: int,
    profile: Profile | None,
    *,
    asks: bool = True,
) -> Query:
    """Check and convert a request.

    Args:
        request: as it came.
        num_layers: blocks of the model.
        profile: what is found of it, if anything: it says what the query leaves open.
        asks: whether it must have a question.

    Raises:
        InvalidInputError: names the field and what is wrong.
    """
    if asks and not request.question.strip():
        raise EmptyQuestionError("the question is empty; write what you want to know")
    require_range("question length", len(request.question), 0, MAX_QUESTION_LENGTH)
    options = options_from_wire(request.options)
    if not asks:  # there is no question to tell anything of
        options = replace(options, share=Share.NOTHING)
    require_range("min_support", request.min_support, 0, 1)
    if options.share is Share.TOPIC:
        require_range("length of topic", len(request.topic.strip()), 1, MAX_TOPIC_LENGTH)
    publisher = PlanSpec(request.publisher_plan or request.plan)
    contributors = PlanSpec("none" if options.independent else request.plan)
    wish = wish_from_wire(request.compression) if request.HasField("compression") else None
    resolved = resolve(contributors, publisher, num_layers, profile, wish)
    if request.asked_plan:
        asked = PlanSpec(request.asked_plan).resolve(num_layers)
        resolved = replace(resolved, plans=replace(resolved.plans, asked=asked))
    query_codec = request.query_codec or DEFAULT_QUERY_CODEC
    query_codec_by_name(query_codec)
    return Query(
        question=request.question,
        turns=turns_from_wire(request.turns),
        resolved=resolved,
        query_codec=query_codec,
        sampling=sampling_from_wire(request.sampling),
        options=options,
        topic=request.topic,
        min_support=request.min_support,
        link=_link_from_wire(request.link) if request.HasField("link") else None,
    )


def _link_from_wire(link: participant_pb2.Link) -> Link:
    return Link(bytes_per_s=link.bytes_per_s, round_trip_s=link.round_trip_s)


def default_query(num_layers: int, profile: Profile | None) -> Query:
    """A query with default settings and no question, for fetching rows ahead."""
    auto = PlanSpec("auto")
    return Query(resolved=resolve(auto, auto, num_layers, profile))
