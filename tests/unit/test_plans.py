"""Sync plans: what users may write, and what it means for a model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.errors import InvalidPlanError
from fedattn.core.plans import MAX_LAYERS, PlanSpec, SyncPlan, format_layers
from tests.harness.strategies import layer_tuples

GRAMMAR_HINT = (
    "use all, none, auto, auto@1/RATIO, one of uniform, shallow-half, deep-half, progressive, "
    "regressive, middle with :INTERVAL or @BLOCKS, or a list such as 7,9,10-12"
)
LONGEST_PLAN = ",".join(str(layer) for layer in range(0, MAX_LAYERS, 2))


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("all", (0, 1, 2, 3, 4, 5)),
        ("none", ()),
        ("auto", (1, 2, 3, 4, 5)),
        ("middle@1", (3,)),
        ("middle:2", (2, 3, 4)),
        ("uniform@4", (0, 1, 3, 4)),
        ("shallow-half@2", (0, 1)),
        ("deep-half@2", (4, 5)),
        ("progressive@3", (0, 2, 5)),
        ("regressive@3", (0, 3, 5)),
        ("uniform:1", (0, 1, 2, 3, 4, 5)),
        ("uniform:4", (0, 4)),
        ("uniform: 2", (0, 2, 4)),
        ("uniform:1023", (0,)),
        ("3", (3,)),
        ("0,2-4", (0, 2, 3, 4)),
        ("4,1", (1, 4)),
        ("1-3,2-4,3", (1, 2, 3, 4)),
        ("2-2", (2,)),
        ("  all  ", (0, 1, 2, 3, 4, 5)),
        (" 1 , 3 - 4 ", (1, 3, 4)),
        ("0003", (3,)),
    ],
)
def test_plan_text_resolves_to_layers_of_a_six_layer_model(
    text: str, layers: tuple[int, ...]
) -> None:
    assert PlanSpec(text).resolve(6).layers == layers


@pytest.mark.parametrize(
    "text",
    ["", " ", "al", "ALL", "all,1", "all:3", "none:0", "uniform", "uniform:", "uniform:x",
     "uniform:2:3", "uniform:-1", "1,", ",1", "1,,2", "1;2", "1 2", "-3", "3-", "1--3", "1-2-3",
     "auto:2", "auto@", "auto@2", "auto@20/1", "auto@1/", "auto@1/x",
     "uniform@", "middle", "all@2", "uniform@2@3", "deep-half@x",
     "+3", "1.0", "1e1", "0x1", "1_0", "\u0663", "\u00b2", "00001", "every"],
)  # fmt: skip
def test_text_outside_the_grammar_is_refused_and_the_grammar_shown(text: str) -> None:
    with pytest.raises(InvalidPlanError) as caught:
        PlanSpec(text)
    assert GRAMMAR_HINT in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "number", "low"),
    [
        ("1024", 1024, 0),
        ("3-9999", 9999, 0),
        ("uniform:0", 0, 1),
        ("uniform:1024", 1024, 1),
        ("auto@1/0", 0, 1),
        ("middle@1024", 1024, 1),
    ],
)
def test_number_outside_the_grammar_is_refused_with_the_range(
    text: str, number: int, low: int
) -> None:
    with pytest.raises(InvalidPlanError, match=rf"{number} is outside {low} to 1023"):
        PlanSpec(text)


@pytest.mark.parametrize(
    ("text", "fewer_bytes"), [("auto", None), ("auto@1/20", 20.0), ("auto@ 1 / 8", 8.0)]
)
def test_auto_may_say_how_many_bytes_it_saves(text: str, fewer_bytes: float | None) -> None:
    assert PlanSpec(text).fewer_bytes == fewer_bytes
    assert PlanSpec(text).is_auto


def test_backward_range_is_named() -> None:
    with pytest.raises(InvalidPlanError, match=r"'1,9-7': range 9-7 runs backwards"):
        PlanSpec("1,9-7")


def test_refusal_of_a_long_text_quotes_only_its_beginning() -> None:
    with pytest.raises(InvalidPlanError) as caught:
        PlanSpec("secret " * 10_000)
    assert len(str(caught.value)) < 300


def test_refusal_of_a_long_backward_range_quotes_only_its_beginning() -> None:
    with pytest.raises(InvalidPlanError) as caught:
        PlanSpec("1," * 10_000 + "3-2")
    assert len(str(caught.value)) < 300


def test_text_much_longer_than_any_plan_is_refused() -> None:
    with pytest.raises(InvalidPlanError):
        PlanSpec(",".join(["1"] * 20_000))


@pytest.mark.parametrize("text", ["all:", "none:", "auto: "])
def test_plan_without_argument_takes_no_colon(text: str) -> None:
    with pytest.raises(InvalidPlanError):
        PlanSpec(text.strip())


def test_longest_plan_that_format_writes_is_accepted() -> None:
    assert format_layers(PlanSpec(LONGEST_PLAN).resolve(MAX_LAYERS).layers) == LONGEST_PLAN


def test_layer_the_model_does_not_have_is_refused_with_the_ones_it_has() -> None:
    spec = PlanSpec("3,7-9")
    with pytest.raises(InvalidPlanError, match=r"block 8, but the model has blocks 0 to 7"):
        spec.resolve(8)
    assert spec.resolve(10).layers == (3, 7, 8, 9)


@pytest.mark.parametrize("layers", [(2, 1), (1, 1), (-1, 0), (-1,)])
def test_sync_plan_refuses_unsorted_repeated_and_negative_layers(layers: tuple[int, ...]) -> None:
    with pytest.raises(InvalidPlanError, match="sorted, unique and not negative"):
        SyncPlan(layers)


def test_sync_plan_answers_membership_and_prints_as_its_shortest_text() -> None:
    plan = SyncPlan((7, 9, 10, 11))
    assert [layer for layer in range(13) if layer in plan] == [7, 9, 10, 11]
    assert str(plan) == "7,9-11"
    assert str(SyncPlan(())) == "none"


@given(layer_tuples(40).filter(bool))
def test_formatted_layers_read_back_as_the_same_layers(layers: tuple[int, ...]) -> None:
    assert PlanSpec(format_layers(layers)).resolve(40).layers == layers


@given(st.integers(1, 100), st.integers(1, 120))
def test_uniform_plan_takes_every_multiple_of_its_interval(num_layers: int, interval: int) -> None:
    expected = tuple(layer for layer in range(num_layers) if layer % interval == 0)
    assert PlanSpec(f"uniform:{interval}").resolve(num_layers).layers == expected


@given(st.one_of(st.text(max_size=12), st.text("0123456789,-: alnoeuifrmt", max_size=12)))
def test_any_text_is_a_valid_plan_or_an_invalid_plan_error(text: str) -> None:
    try:
        plan = PlanSpec(text).resolve(MAX_LAYERS)
    except InvalidPlanError:
        return
    assert plan.layers == tuple(sorted(set(plan.layers)))
    assert all(0 <= layer < MAX_LAYERS for layer in plan.layers)
