"""The visibility mask against the definition, written again token by token."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.compression import Compression
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.spans import SessionLayout, build_layout
from fedattn.core.visibility import (
    PREFIX_OWNER,
    KeptPositions,
    computed_positions,
    token_owners,
    visibility_mask,
)
from tests.harness.definition import PUBLIC, dropped_tokens, naive_mask, owner_of
from tests.harness.samples import sample_layout
from tests.harness.strategies import RATIOS, layouts

NUM_HEADS = 2
thinned = st.builds(Compression, input_keep_ratio=RATIOS, seed=st.integers(0, 9))


def with_plan(layout: SessionLayout, layers: tuple[int, ...]) -> SessionLayout:
    """The same spans, every member with these sync layers and all its tokens."""
    members = tuple(
        replace(member, plan=SyncPlan(layers), compression=Compression())
        for member in layout.members
    )
    return replace(layout, members=members)


def drawn(
    layout: SessionLayout,
    layer: int,
    num_generated: int = 0,
    kept: KeptPositions | None = None,
    head: int = 0,
) -> list[str]:
    mask = visibility_mask(layout, layer, num_generated, kept, head=head)
    return ["".join("x" if seen else "." for seen in row) for row in mask]


def docstring_layout(publisher: tuple[int, ...]) -> SessionLayout:
    return build_layout(
        num_layers=2,
        prefix_len=1,
        contributors=[("c", 2)],
        publisher=("p", 2),
        plans=RolePlans(contributors=SyncPlan(()), publisher=SyncPlan(publisher)),
    )


def test_worked_example_of_the_docstring() -> None:
    layout = docstring_layout(publisher=(1,))
    assert drawn(layout, 1) == ["x....", "xx...", "xxx..", "xxxx.", "xxxxx"]
    assert drawn(layout, 0) == ["x....", "xx...", "xxx..", "x..x.", "x..xx"]


def test_worked_example_with_two_contributors() -> None:
    layout = sample_layout(contributors=(1,), publisher=(2,))
    alone = ["x.....", "xx....", "xxx...", "x..x..", "x...x.", "x...xx"]
    assert drawn(layout, 0) == alone
    assert drawn(layout, 1) == [*alone[:3], "xxxx..", *alone[4:]]
    assert drawn(layout, 2) == [*alone[:4], "xxxxx.", "xxxxxx"]


def test_generated_tokens_belong_to_the_publisher() -> None:
    layout = docstring_layout(publisher=(1,))
    assert drawn(layout, 1, num_generated=1)[-1] == "xxxxxx"
    assert drawn(layout, 0, num_generated=1)[-1] == "x..xxx"
    assert token_owners(layout, num_generated=2).tolist() == [PREFIX_OWNER, 0, 0, 1, 1, 1, 1]


@given(layouts(), st.integers(0, 2))
def test_owners_equal_the_definition(layout: SessionLayout, num_generated: int) -> None:
    owners = [owner_of(layout, token) for token in range(layout.num_tokens + num_generated)]
    expected = [PREFIX_OWNER if owner is PUBLIC else owner for owner in owners]
    assert token_owners(layout, num_generated).tolist() == expected


@given(st.data(), layouts(max_span=4, compression=thinned), st.integers(0, 2))
def test_mask_equals_the_definition_whatever_is_kept_and_dropped(
    data: st.DataObject, layout: SessionLayout, num_generated: int
) -> None:
    kept = {
        (place, layer): [
            frozenset(data.draw(st.sets(st.sampled_from(inputs)))) for _ in range(NUM_HEADS)
        ]
        for place, member in enumerate(layout.members)
        if (inputs := member.input_positions().tolist())
        for layer in range(layout.num_layers)
        if data.draw(st.booleans())
    }
    arrays = {
        key: tuple(np.array(sorted(sent), dtype=np.int64) for sent in heads)
        for key, heads in kept.items()
    }
    for layer, head in product(range(layout.num_layers), range(NUM_HEADS)):
        mask = visibility_mask(layout, layer, num_generated, arrays, head=head)
        assert mask.dtype == np.bool_
        assert mask.tolist() == naive_mask(layout, layer, num_generated, kept, head)


@given(layouts(max_span=4, compression=thinned), st.integers(0, 2))
def test_mask_without_row_selection_equals_the_definition(
    layout: SessionLayout, num_generated: int
) -> None:
    for layer in range(layout.num_layers):
        mask = visibility_mask(layout, layer, num_generated)
        assert mask.tolist() == naive_mask(layout, layer, num_generated)


@given(layouts(max_span=4, compression=thinned), st.integers(0, 2))
def test_positions_that_take_part_are_all_but_the_dropped(
    layout: SessionLayout, num_generated: int
) -> None:
    everything = range(layout.num_tokens + num_generated)
    dropped = dropped_tokens(layout)
    taking_part = computed_positions(layout, num_generated)
    assert taking_part.tolist() == [token for token in everything if token not in dropped]


def test_worked_example_with_selected_rows() -> None:
    """Head 0 of a keeps its second row at layer 1 for others, head 1 none; a itself sees both."""
    layout = sample_layout(contributors=(1,), publisher=(1,))
    kept: KeptPositions = {(0, 1): (np.array([2]), np.array([], dtype=np.int64))}
    assert drawn(layout, 1, kept=kept, head=0) == [
        "x.....", "xx....", "xxx...", "x.xx..", "x.xxx.", "x.xxxx",
    ]  # fmt: skip
    assert drawn(layout, 1, kept=kept, head=1) == [
        "x.....", "xx....", "xxx...", "x..x..", "x..xx.", "x..xxx",
    ]  # fmt: skip
    assert np.array_equal(
        visibility_mask(layout, 0, kept=kept), visibility_mask(layout, 0)
    )  # said of layer 1 only


def test_worked_example_with_a_dropped_token() -> None:
    """Of a's two tokens one is computed; the other has neither row nor column."""
    layout = sample_layout(contributors=(1,), publisher=(1,))
    half = replace(layout.members[0], compression=Compression(input_keep_ratio=0.5))
    layout = replace(layout, members=(half, *layout.members[1:]))
    (computed,) = half.input_positions().tolist()
    dropped = 3 - computed
    mask = visibility_mask(layout, 1)
    assert not mask[dropped].any()
    assert not mask[:, dropped].any()
    assert mask[:, computed].tolist() == [
        token >= computed and token != dropped for token in range(6)
    ]


@given(layouts())
def test_syncing_at_every_layer_is_plain_causal_attention(layout: SessionLayout) -> None:
    central = with_plan(layout, tuple(range(layout.num_layers)))
    size = layout.num_tokens
    for layer in range(layout.num_layers):
        assert np.array_equal(visibility_mask(central, layer), np.tri(size, dtype=np.bool_))


@given(layouts())
def test_never_syncing_is_the_publisher_alone_with_the_prefix(layout: SessionLayout) -> None:
    span = layout.publisher.span
    known = np.r_[0 : layout.prefix_len, span.start : span.stop]
    others = np.arange(layout.prefix_len, span.start)
    for layer in range(layout.num_layers):
        mask = visibility_mask(with_plan(layout, ()), layer)
        assert np.array_equal(mask[np.ix_(known, known)], np.tri(len(known), dtype=np.bool_))
        assert not mask[span.start :, others].any()


@pytest.mark.parametrize("layer", range(5))
def test_plan_of_the_publisher_changes_nothing_for_contributors(layer: int) -> None:
    quiet, eager = sample_layout((1, 3), ()), sample_layout((1, 3), (0, 1, 2, 3, 4))
    first = quiet.publisher.span.start
    assert np.array_equal(
        visibility_mask(quiet, layer)[:first], visibility_mask(eager, layer)[:first]
    )
