"""A session goes down the rungs of its request until its rows fit, and never beyond its budget."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.budget import FEWER_ROWS, ByteBudget, Rung, fit_budget, rungs_of
from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.costs import session_bytes
from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import PlanSpec, RolePlans
from fedattn.core.selection import DEFAULT_SELECTOR, LEARNED
from fedattn.core.spans import SessionLayout, build_layout
from fedattn.core.types import KvShape

SHAPE = KvShape(num_layers=8, num_kv_heads=2, head_dim=16)
NUM_HEADS = SHAPE.num_layers * SHAPE.num_kv_heads


def kept(codec: str, keep_ratio: float) -> Compression:
    if keep_ratio == 1:
        return Compression(codec=codec_by_name(codec))
    return Compression(
        codec=codec_by_name(codec),
        keep_ratio=keep_ratio,
        selector=LEARNED,
        head_shares=bytes([int(255 * keep_ratio)] * NUM_HEADS),
    )


RUNGS = rungs_of(
    kept("entropy-fine", 1), [kept("entropy-medium", 0.5), kept("entropy-coarse", 0.2)]
)


def layout(*lengths: int, rung: Rung = RUNGS[0], can_score: bool = True) -> SessionLayout:
    sync = PlanSpec("1-7").resolve(SHAPE.num_layers)
    wished = build_layout(
        num_layers=SHAPE.num_layers,
        prefix_len=4,
        contributors=[(f"n{index}", length) for index, length in enumerate(lengths)],
        publisher=("publisher", 9),
        plans=RolePlans(contributors=sync, publisher=sync),
    )
    own = rung.of_member(can_score=can_score, max_keep_ratio=1.0)
    members = (replace(member, compression=own) for member in wished.contributors)
    publisher = replace(wished.publisher, compression=rung.compression)
    return replace(wished, members=(*members, publisher))


def total(session: SessionLayout) -> int:
    return sum(member.total_up for member in session_bytes(session, SHAPE))


def busiest(session: SessionLayout) -> int:
    return max(max(m.total_up, m.total_down) for m in session_bytes(session, SHAPE))


def test_first_rung_that_fits_is_taken() -> None:
    layouts = [layout(40, 60, rung=rung) for rung in RUNGS]
    assert fit_budget(layouts, SHAPE, ByteBudget()) is layouts[0]
    for wished in layouts[:3]:
        assert fit_budget(layouts, SHAPE, ByteBudget(kv_bytes=total(wished))) is wished
        assert fit_budget(layouts, SHAPE, ByteBudget(link_bytes=busiest(wished))) is wished


def test_budget_that_nothing_keeps_is_refused_with_what_would_do() -> None:
    layouts = [layout(40, 60, rung=rung) for rung in RUNGS]
    least = f"take {total(layouts[-1])} bytes at least, and {busiest(layouts[-1])} on the busiest"
    with pytest.raises(InvalidRequestError, match=least):
        fit_budget(layouts, SHAPE, ByteBudget(kv_bytes=10))


@given(
    lengths=st.lists(st.integers(0, 80), min_size=1, max_size=4),
    share=st.floats(0.02, 1.2),
    per_link=st.booleans(),
    can_score=st.booleans(),
)
def test_budget_is_never_exceeded(
    lengths: list[int], share: float, per_link: bool, can_score: bool
) -> None:
    measure = busiest if per_link else total
    layouts = [layout(*lengths, rung=rung, can_score=can_score) for rung in RUNGS]
    limit = int(measure(layouts[0]) * share)
    budget = ByteBudget(link_bytes=limit) if per_link else ByteBudget(kv_bytes=limit)
    try:
        result = fit_budget(layouts, SHAPE, budget)
    except InvalidRequestError:
        assert measure(layouts[-1]) > limit
        return
    assert measure(result) <= limit


def test_who_cannot_score_sends_all_rows_and_at_last_fewer() -> None:
    own = [rung.of_member(can_score=False, max_keep_ratio=1.0) for rung in RUNGS]
    assert [one.codec.name for one in own[:3]] == [
        "entropy-fine", "entropy-medium", "entropy-coarse"
    ]  # fmt: skip
    assert [one.keep_ratio for one in own] == [1.0, 1.0, 1.0, *FEWER_ROWS]
    assert {(one.selector, one.head_shares) for one in own} == {(DEFAULT_SELECTOR, b"")}


def test_who_can_score_stays_on_the_last_rung_meanwhile() -> None:
    own = [rung.of_member(can_score=True, max_keep_ratio=1.0) for rung in RUNGS]
    assert own[3:] == [kept("entropy-coarse", 0.2)] * len(FEWER_ROWS)


@pytest.mark.parametrize("can_score", [True, False])
def test_nobody_sends_more_than_it_is_willing_to(can_score: bool) -> None:
    own = RUNGS[1].of_member(can_score=can_score, max_keep_ratio=0.25)
    assert own.keep_ratio == 0.25
    assert set(own.head_shares) == ({63} if can_score else set())


def test_rows_chosen_without_scores_need_no_more_rungs() -> None:
    assert [rung.compression for rung in rungs_of(kept("int8", 1), [])] == [kept("int8", 1)]
