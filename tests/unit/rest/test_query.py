"""Bodies of requests: what a caller may ask, and what it is told if it may not."""

from dataclasses import fields
from typing import Any

import pytest
from pydantic import TypeAdapter

from fedattn.core.budget import ByteBudget
from fedattn.core.codecs import CODEC_NAMES, codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import FedAttnError, InvalidRequestError, InvalidSamplingError
from fedattn.core.profile import CompressionWish
from fedattn.core.sampling import SamplingParams
from fedattn.core.spans import PrefixMode
from fedattn.rest.faults import checked
from fedattn.rest.field_names import similar_own_field
from fedattn.rest.fields import CompressionBody, SamplingBody
from fedattn.rest.query import QueryBody
from fedattn.rest.reports import RowsReport
from fedattn.rest.session import SessionBody
from fedattn.wire.v1 import participant_pb2, session_pb2

HALF = "\udce4"  # what Python makes of a byte that is no UTF-8


def test_defaults_are_those_of_the_core() -> None:
    body = QueryBody(question="Who?")
    assert body.compression.value == CompressionWish()
    plain = {entry.name: getattr(body.sampling, entry.name) for entry in fields(SamplingParams)}
    assert SamplingParams(**plain) == SamplingParams()


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_compression_there_and_back(name: str) -> None:
    asked = CompressionBody(codec=name, keep_ratio=0.5, selector="recency", keep_ends=2, seed=3)
    assert asked.value.codec is (None if name == "auto" else codec_by_name(name))
    assert CompressionBody.of(asked.value).value == asked.value


def test_a_body_comes_back_from_its_json() -> None:
    body = QueryBody(
        question="Who?",
        contributors=["a", "b"],
        compression=CompressionBody(codec="auto", keep_ratio=0.5),
        sampling=SamplingBody(stop=("\n",), temperature=0.5),
        prefix=PrefixMode.FIRST,
        deadline_s=30,
    )
    assert QueryBody.model_validate_json(body.model_dump_json()) == body
    assert QueryBody.model_validate(body.model_dump(mode="json")) == body


@pytest.mark.parametrize(
    ("model", "name", "limits"),
    [
        (SamplingBody, "max_new_tokens", {"minimum": 1, "maximum": 8192}),
        (SamplingBody, "top_p", {"minimum": 1e-6, "maximum": 1}),
        (CompressionBody, "keep_ratio", {"exclusiveMinimum": 0, "maximum": 1}),
        (CompressionBody, "keep_ends", {"minimum": 0, "maximum": 1024}),
    ],
)
def test_the_schema_shows_limits_that_the_core_checks(
    model: type, name: str, limits: dict[str, float]
) -> None:
    schema = TypeAdapter(model).json_schema()["properties"][name]
    assert schema["description"]
    assert {key: schema[key] for key in limits} == limits
    for value in (limits["maximum"] + 1, min(limits.values()) - 1):
        with pytest.raises(FedAttnError, match=name):
            model(**{name: value})


@pytest.mark.parametrize(
    ("fields", "budget"),
    [
        ({}, None),
        ({"kv_budget_bytes": 5000}, ByteBudget(kv_bytes=5000)),
        (
            {"link_rate_mbit_s": 8, "link_time_s": 0.5},
            ByteBudget(link_bytes=500_000),
        ),
        (
            {"link_rate_mbit_s": 1e-9, "link_time_s": 1e-9},
            ByteBudget(link_bytes=1),
        ),
    ],
)
def test_budgets(fields: dict[str, Any], budget: ByteBudget | None) -> None:
    assert SessionBody(**fields, compression=CompressionBody(codec="bf16")).budget == budget


def test_what_is_left_open_is_a_wish_of_its_own() -> None:
    given = CompressionBody(codec="int8", keep_ratio=1.0, selector="learned", seed=3).value
    assert (given.codec, given.keep_ratio, given.selector) == (
        codec_by_name("int8"), 1.0, "learned"
    )  # fmt: skip
    assert given.settings == Compression(seed=3)
    with pytest.raises(InvalidRequestError, match="unknown selector 'best'"):
        checked(CompressionBody, selector="best")


@pytest.mark.parametrize(
    "fields",
    [
        {"question": f"Who? {HALF}"},
        {"publisher": HALF},
        {"contributors": ["a", HALF]},
        {"plan": HALF},
        {"publisher_plan": f"all{HALF}"},
        {"prefix": HALF},
        {"compression": {"codec": HALF}},
        {"compression": {"selector": HALF}},
        {"sampling": {"stop": ["a", HALF]}},
        {HALF: 1},
        {"sampling": {HALF: 1}},
        {"stream": HALF},
    ],
)
def test_half_characters_are_refused_in_every_text(fields: dict[str, Any]) -> None:
    with pytest.raises(FedAttnError) as caught:
        checked(QueryBody.model_validate, {"question": "Who?", **fields})
    assert caught.value.code.startswith("invalid_")


def test_checked_names_every_field_that_does_not_fit_and_repeats_no_text() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        checked(QueryBody.model_validate, {"question": ["secret"], "deadline_s": "secret", "x": 1})
    text = str(caught.value)
    for words in (
        "question: ",
        "a list of 1 items",
        "deadline_s: ",
        "text of 6 characters",
        "field `x`",
    ):
        assert words in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"codec": "int8"}, "unknown field `codec`; did you mean `compression.codec`?"),
        ({"max_tokens": 3}, "did you mean `sampling.max_new_tokens`?"),
        ({"contributers": []}, "did you mean `contributors`?"),
        ({"sampling": {"topk": 2}}, "unknown field `sampling.topk`; did you mean `sampling.top_k`"),
        ({"hello": 1}, "unknown field `hello`; /openapi.json has all fields"),
        ({"question": "?" * 40_000}, "question: at most 32768 characters, got text of 40000"),
        ({"node_tokens": 0}, "node_tokens: at least 1, got 0"),
        ({"stream": 3}, "stream: true or false, got 3"),
    ],
)
def test_what_does_not_fit_is_told_in_our_words(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        checked(QueryBody.model_validate, {"question": "Who?", **fields})
    assert words in str(caught.value)


def test_fields_of_another_api_are_not_held_to_be_ours() -> None:
    assert similar_own_field("temperatur") is None
    assert similar_own_field("fedattn.codec") == "fedattn.compression.codec"


def test_a_wrong_number_keeps_the_code_of_the_core() -> None:
    with pytest.raises(InvalidSamplingError, match="top_k must be between 0 and 1000000, got -1"):
        SamplingBody(top_k=-1)
    with pytest.raises(InvalidSamplingError, match="top_p"):
        SamplingBody(top_p=float("nan"))


@pytest.mark.parametrize(
    ("core", "body", "message", "renamed"),
    [
        (SamplingParams, SamplingBody, participant_pb2.Sampling, {}),
        (RowsReport, CompressionBody, session_pb2.CompressionWish, {"codec": "codec_id"}),
        (RowsReport, RowsReport, session_pb2.CompressionWish, {"codec": "codec_id"}),
    ],
)
def test_a_field_of_the_core_is_one_of_rest_and_of_the_wire_by_the_same_name(
    core: Any, body: Any, message: Any, renamed: dict[str, str]
) -> None:
    names = {entry.name for entry in fields(core)}
    assert set(TypeAdapter(body).json_schema()["properties"]) == names
    assert set(message.DESCRIPTOR.fields_by_name) == {renamed.get(n, n) for n in names}
