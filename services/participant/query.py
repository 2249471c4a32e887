"""A query as it comes from the gateway, checked."""

from dataclasses import dataclass

from fedattn.core.compression import Compression
from fedattn.core.errors import EmptyQuestionError
from fedattn.core.plans import PlanSpec
from fedattn.core.profile import Profile, resolve_plans
from fedattn.core.sampling import SamplingParams
from fedattn.core.spans import PrefixMode, RolePlans
from fedattn.wire.convert import (
    compression_from_wire,
    prefix_mode_from_wire,
    require_range,
    sampling_from_wire,
)
from fedattn.wire.protocol import MAX_DEADLINE_S, MAX_QUESTION_LENGTH
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import participant_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A checked query."""

    question: str
    contributors: tuple[str, ...]
    plans: RolePlans
    sampling: SamplingParams
    compression: Compression
    budget: pb.ByteBudget | None
    prefix: PrefixMode
    min_participants: int
    deadline_s: float
    no_reuse: bool
    timeline: bool
    independent: bool


def check_query(
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
        profile: what `auto` plans mean for it, if known.
        asks: whether it must have a question.

    Raises:
        InvalidInputError: names the field and what is wrong.
    """
    if asks and not request.question.strip():
        raise EmptyQuestionError("the question is empty; write what you want to know")
    require_range("question length", len(request.question), 0, MAX_QUESTION_LENGTH)
    require_range("deadline_s", request.deadline_s, 1e-3, MAX_DEADLINE_S)
    publisher = PlanSpec(request.publisher_plan or request.plan)
    contributors = PlanSpec("none" if request.independent else request.plan)
    return Query(
        question=request.question,
        contributors=tuple(request.contributors),
        plans=resolve_plans(contributors, publisher, num_layers, profile),
        sampling=sampling_from_wire(request.sampling),
        compression=compression_from_wire(request.compression),
        budget=request.budget if request.HasField("budget") else None,
        prefix=prefix_mode_from_wire(request.prefix),
        min_participants=request.min_participants,
        deadline_s=request.deadline_s,
        no_reuse=request.no_reuse,
        timeline=request.timeline,
        independent=request.independent,
    )
