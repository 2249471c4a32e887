"""Layouts: which token orders a session may have."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidPlanError
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.spans import Member, Role, SessionLayout, Span, build_layout
from tests.harness.samples import sample_layout
from tests.harness.strategies import compressions

NONE = SyncPlan(())


def member(node_id: str, start: int, stop: int, role: Role = Role.CONTRIBUTOR) -> Member:
    return Member(node_id=node_id, role=role, span=Span(start, stop), plan=NONE)


def publisher(start: int, stop: int) -> Member:
    return member("p", start, stop, Role.PUBLISHER)


def layout_of(*members: Member, prefix_len: int = 0) -> SessionLayout:
    return SessionLayout(num_layers=4, prefix_len=prefix_len, members=members)


def test_layout_puts_prefix_then_contributors_then_publisher() -> None:
    layout = sample_layout(contributors=(1,), publisher=(2,))
    assert [(m.node_id, m.span, m.plan.layers) for m in layout.members] == [
        ("a", Span(1, 3), (1,)),
        ("b", Span(3, 4), (1,)),
        ("p", Span(4, 6), (2,)),
    ]
    assert layout.num_tokens == 6
    assert layout.publisher.node_id == "p"
    assert [m.role for m in layout.contributors] == [Role.CONTRIBUTOR, Role.CONTRIBUTOR]
    assert [layout.index_of(node_id) for node_id in ("a", "b", "p")] == [0, 1, 2]


def test_node_outside_the_session_has_no_place() -> None:
    with pytest.raises(KeyError, match="stranger"):
        sample_layout((), ()).index_of("stranger")


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (-2, -1)])
def test_span_refuses_negative_and_backward_ranges(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="0 <= start <= stop"):
        Span(start, stop)


def test_span_length_counts_its_tokens() -> None:
    assert len(Span(2, 5)) == 3
    assert len(Span(4, 4)) == 0


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ((), "needs a publisher"),
        ((member("a", 0, 2),), "needs a publisher"),
        ((publisher(0, 2), member("a", 2, 3)), "its span comes last"),
        ((member("q", 0, 1, Role.PUBLISHER), publisher(1, 2)), "exactly one publisher"),
        ((member("p", 0, 1), publisher(1, 2)), "takes part in a session once"),
        ((member("a", 1, 2), publisher(2, 3)), "at 0, got 1"),
        ((member("a", 0, 2), publisher(1, 3)), "must be adjacent"),
        ((member("a", 0, 2), publisher(3, 4)), "must be adjacent"),
    ],
)
def test_layout_refuses_a_token_order_without_meaning(
    members: tuple[Member, ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        layout_of(*members)


def test_first_span_starts_where_the_public_prefix_ends() -> None:
    assert layout_of(publisher(3, 4), prefix_len=3).num_tokens == 4
    with pytest.raises(ValueError, match="at 3, got 2"):
        layout_of(publisher(2, 4), prefix_len=3)


def test_layout_refuses_a_plan_outside_the_model() -> None:
    wide = replace(publisher(0, 1), plan=SyncPlan((4,)))
    with pytest.raises(InvalidPlanError, match="block 4"):
        layout_of(wide)


@given(st.integers(0, 4), st.lists(st.integers(0, 4), max_size=4), st.integers(0, 4))
def test_built_spans_cover_every_token_after_the_prefix_once(
    prefix_len: int, lengths: list[int], publisher_len: int
) -> None:
    layout = build_layout(
        num_layers=4,
        prefix_len=prefix_len,
        contributors=[(f"n{place}", length) for place, length in enumerate(lengths)],
        publisher=("p", publisher_len),
        plans=RolePlans(contributors=NONE, publisher=NONE),
    )
    covered = [t for m in layout.members for t in range(m.span.start, m.span.stop)]
    assert covered == list(range(prefix_len, layout.num_tokens))
    assert [len(m.span) for m in layout.members] == [*lengths, publisher_len]


def compressed(role: Role, length: int = 10, **settings: Any) -> Member:
    plain = member("a", 10, 10 + length, role)
    return replace(plain, compression=Compression(**settings))


def test_worked_example_of_the_docstring() -> None:
    half = compressed(Role.CONTRIBUTOR, input_keep_ratio=0.5, keep_ratio=0.5)
    assert (half.num_inputs, half.head_counts(0, 2)) == (5, (2, 2))


def test_publisher_computes_all_its_tokens() -> None:
    asking = compressed(Role.PUBLISHER, input_keep_ratio=0.1)
    assert asking.input_positions().tolist() == list(range(10, 20))


def test_member_without_tokens_computes_and_sends_nothing() -> None:
    empty = compressed(Role.CONTRIBUTOR, length=0, input_keep_ratio=0.5)
    assert (empty.num_inputs, empty.head_counts(0, 2)) == (0, (0, 0))
    assert empty.input_positions().tolist() == []


@given(compressions(), st.integers(1, 60))
def test_computed_positions_are_drawn_from_the_span_once_for_all(
    compression: Compression, length: int
) -> None:
    drawing = replace(member("a", 7, 7 + length), compression=compression)
    positions = drawing.input_positions().tolist()
    assert positions == sorted(set(positions))
    assert set(positions) <= set(range(7, 7 + length))
    assert len(positions) == drawing.num_inputs
    assert 1 <= max(drawing.head_counts(0, 2)) <= drawing.num_inputs <= length
    assert drawing.input_positions().tolist() == positions


def test_computed_positions_differ_between_seeds_and_spans() -> None:
    drawn = [compressed(Role.CONTRIBUTOR, 60, input_keep_ratio=0.5, seed=s) for s in (1, 2)]
    drawn.append(replace(drawn[0], span=Span(70, 130)))
    offsets = {tuple(d.input_positions() - d.span.start) for d in drawn}
    assert len(offsets) == 3
