"""Byte budgets are kept, use what they allow, and give up quality in the documented order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.budget import ByteBudget, fit_budget, middle_layers
from fedattn.core.codecs import Codec, codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.costs import session_bytes
from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import PlanSpec, RolePlans, SyncPlan
from fedattn.core.spans import SessionLayout, build_layout
from fedattn.core.types import KvShape

SHAPE = KvShape(num_layers=8, num_kv_heads=2, head_dim=16)
LADDER = tuple(codec_by_name(name) for name in ("int8", "entropy-medium", "entropy-coarse"))
FINEST = LADDER[:1]


def layout(*lengths: int, plan: str = "1-7") -> SessionLayout:
    sync = PlanSpec(plan).resolve(SHAPE.num_layers)
    return build_layout(
        num_layers=SHAPE.num_layers,
        prefix_len=4,
        contributors=[(f"n{index}", length) for index, length in enumerate(lengths)],
        publisher=("publisher", 9),
        plans=RolePlans(contributors=sync, publisher=sync),
        compression=Compression(codec=LADDER[0]),
    )


def total(session: SessionLayout) -> int:
    return sum(member.total_up for member in session_bytes(session, SHAPE))


def busiest(session: SessionLayout) -> int:
    return max(max(m.total_up, m.total_down) for m in session_bytes(session, SHAPE))


def fitted(session: SessionLayout, share: float, codecs: tuple[Codec, ...]) -> SessionLayout:
    budget = ByteBudget(kv_bytes=int(total(session) * share))
    return fit_budget(session, SHAPE, budget, codecs)


def test_budget_that_is_large_enough_changes_nothing() -> None:
    wished = layout(40, 60)
    assert fitted(wished, 1.0, LADDER) == wished
    assert fit_budget(wished, SHAPE, ByteBudget(), LADDER) == wished


def test_codec_goes_first() -> None:
    wished = layout(40, 60)
    result = fitted(wished, 0.5, LADDER)
    assert {member.compression.codec.name for member in result.members} == {"entropy-medium"}
    assert {member.compression.keep_ratio for member in result.members} == {1.0}
    assert [member.plan for member in result.members] == [member.plan for member in wished.members]


def test_then_the_keep_ratio_with_the_codec_that_was_asked_for() -> None:
    result = fitted(layout(40, 60), 0.7, FINEST)
    assert {member.compression.codec.name for member in result.members} == {"int8"}
    assert 0.6 < result.members[0].compression.keep_ratio <= 0.7
    assert result.publisher.plan == layout(40, 60).publisher.plan


def test_then_sync_layers_from_both_ends() -> None:
    result = fitted(layout(40, 60), 0.25, FINEST)
    assert result.members[0].compression.keep_ratio >= 0.5
    assert result.publisher.plan.layers == (3, 4, 5)


def test_last_of_all_single_rows() -> None:
    result = fitted(layout(40, 60), 0.01, FINEST)
    assert result.publisher.plan.layers == (4,)
    assert result.members[0].num_sent < 10


def test_budget_below_one_row_a_contributor_is_refused_with_what_would_do() -> None:
    with pytest.raises(InvalidRequestError, match=r"take \d+ bytes, and \d+ on the busiest"):
        fit_budget(layout(40, 60), SHAPE, ByteBudget(kv_bytes=10), LADDER)


def test_link_budget_holds_for_the_publishers_downlink() -> None:
    wished = layout(200, 10)
    limit = busiest(wished) * 3 // 4
    result = fit_budget(wished, SHAPE, ByteBudget(link_bytes=limit), FINEST)
    assert 0.95 * limit < busiest(result) <= limit


@given(
    lengths=st.lists(st.integers(0, 80), min_size=1, max_size=4),
    share=st.floats(0.02, 1.2),
    per_link=st.booleans(),
    may_choose=st.booleans(),
)
def test_budget_is_never_exceeded(
    lengths: list[int], share: float, per_link: bool, may_choose: bool
) -> None:
    wished = layout(*lengths)
    limit = int((busiest if per_link else total)(wished) * share)
    budget = ByteBudget(link_bytes=limit) if per_link else ByteBudget(kv_bytes=limit)
    try:
        result = fit_budget(wished, SHAPE, budget, LADDER if may_choose else FINEST)
    except InvalidRequestError:
        return
    assert (busiest if per_link else total)(result) <= limit
    assert [member.span for member in result.members] == [member.span for member in wished.members]


def test_middle_of_a_plan() -> None:
    plan = SyncPlan((1, 2, 3, 4, 5))
    assert middle_layers(plan, 1.0) == plan
    assert middle_layers(plan, 0.5).layers == (2, 3, 4)
    assert middle_layers(plan, 0.2).layers == (3,)
    assert middle_layers(SyncPlan(()), 0.5).layers == ()
