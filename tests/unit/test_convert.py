"""Conversions: what goes out comes back, and a hostile message is an invalid request."""

import hashlib
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.codecs import CODECS
from fedattn.core.compression import Compression
from fedattn.core.costs import ModelSizes
from fedattn.core.errors import InvalidRequestError, InvalidSamplingError
from fedattn.core.node_id import check_node_id
from fedattn.core.request import describe_prefix
from fedattn.core.sampling import SamplingParams
from fedattn.core.spans import PrefixMode
from fedattn.core.types import KvShape
from fedattn.wire import convert, session_options
from fedattn.wire.v1 import participant_pb2, session_pb2
from tests.harness.strategies import compressions


@given(st.integers(1, 1024), st.integers(1, 65535), st.integers(1, 65535))
def test_shape_comes_back_from_the_wire(layers: int, heads: int, head_dim: int) -> None:
    shape = KvShape(num_layers=layers, num_kv_heads=heads, head_dim=head_dim)
    assert convert.shape_from_wire(convert.shape_to_wire(shape)) == shape


def test_codec_comes_back_from_its_number_and_an_unknown_one_is_refused() -> None:
    assert [convert.codec_from_wire(int(codec.codec_id)) for codec in CODECS] == list(CODECS)
    with pytest.raises(InvalidRequestError, match="codec number 99 is not known here"):
        convert.codec_from_wire(99)


@given(compressions(12))
def test_compression_comes_back_from_the_wire(compression: Compression) -> None:
    message = convert.compression_to_wire(compression)
    copy = session_pb2.Compression.FromString(message.SerializeToString())
    assert convert.compression_from_wire(copy) == compression


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"codec_id": 0}, "codec number 0 is not known here"),
        ({"codec_id": 2**32 - 1}, "codec number 4294967295 is not known here"),
        ({"keep_ratio": 0.0}, "keep_ratio must be above 0"),
        ({"keep_ratio": math.nan}, "keep_ratio must be above 0"),
        ({"input_keep_ratio": 1.5}, "input_keep_ratio must be above 0 and at most 1"),
        ({"input_keep_ratio": -math.inf}, "input_keep_ratio must be above 0 and at most 1"),
        ({"selector": ""}, "unknown selector ''"),
        ({"selector": "x" * 100_000}, "unknown selector 'xxx"),
        ({"keep_ends": 2**32 - 1}, "keep_ends must be between 0 and"),
        ({"seed": 2**63}, "seed must be between 0 and"),
    ],
)
def test_compression_out_of_range_is_refused_briefly(
    fields: dict[str, Any], complaint: str
) -> None:
    message = convert.compression_to_wire(Compression())
    for name, value in fields.items():
        setattr(message, name, value)
    with pytest.raises(InvalidRequestError, match=complaint) as caught:
        convert.compression_from_wire(message)
    assert len(str(caught.value)) < 300


SHAPE = KvShape(num_layers=3, num_kv_heads=2, head_dim=8)
SIZES = ModelSizes(
    kv=SHAPE, hidden_size=64, num_query_heads=8, intermediate_size=128, vocab_size=1000,
    weight_bytes=1 << 30,
)  # fmt: skip


@pytest.mark.parametrize("windows", [(), (512, None, 4096)])
def test_sizes_come_back_from_the_wire(windows: tuple[int | None, ...]) -> None:
    sizes = replace(SIZES, windows=windows)
    assert convert.sizes_from_wire(convert.sizes_to_wire(sizes), SHAPE) == sizes


@pytest.mark.parametrize(
    ("windows", "complaint"),
    [
        ([512], "number of windows must be between 3 and 3, got 1"),
        ([0] * 100_000, "number of windows must be between 3 and 3, got 100000"),
        ([512, 0, 2**32 - 1], "window must be between 0 and"),
    ],
)
def test_windows_of_other_blocks_are_refused(windows: list[int], complaint: str) -> None:
    message = convert.sizes_to_wire(SIZES)
    message.windows.extend(windows)
    with pytest.raises(InvalidRequestError, match=complaint):
        convert.sizes_from_wire(message, SHAPE)


@pytest.mark.parametrize("windows", [(512,), (512, 0, None)])
def test_sizes_with_windows_that_no_model_has_are_impossible(
    windows: tuple[int | None, ...],
) -> None:
    with pytest.raises(ValueError, match="windows: expected"):
        replace(SIZES, windows=windows)


def test_prefix_travels_as_length_and_digest_of_its_token_ids() -> None:
    prefix = session_options.prefix_to_wire(describe_prefix(PrefixMode.PUBLIC, [1, 258]))
    ids = bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0])
    assert prefix.digest == hashlib.sha256(ids).digest()
    assert prefix.num_tokens == 2
    assert prefix.mode == session_pb2.PREFIX_MODE_PUBLIC


def test_sampling_comes_back_from_the_wire() -> None:
    sampling = SamplingParams(
        max_new_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        repetition_penalty=1.3,
        no_repeat_ngram_size=3,
        seed=2**63 - 1,
        stop=("\n", "é"),
    )
    assert convert.sampling_from_wire(convert.sampling_to_wire(sampling)) == sampling


def test_a_sender_that_knows_no_repetition_gets_answers_with_repetition() -> None:
    sampling = convert.sampling_from_wire(participant_pb2.Sampling(max_new_tokens=8, top_p=1.0))
    assert sampling == SamplingParams.most_likely(8)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_new_tokens": 2**32 - 1},
        {"temperature": math.nan},
        {"temperature": -math.inf},
        {"top_p": math.nan},
        {"repetition_penalty": 0.5},
        {"repetition_penalty": math.nan},
        {"repetition_penalty": math.inf},
        {"no_repeat_ngram_size": 2**32 - 1},
        {"seed": 2**64 - 1},
        {"stop": [""]},
        {"stop": ["x"] * 1000},
    ],
)
def test_sampling_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    message = participant_pb2.Sampling(max_new_tokens=8, top_p=1.0)
    if not fields:
        message.Clear()
    message.MergeFrom(participant_pb2.Sampling(**fields))
    with pytest.raises(InvalidSamplingError):
        convert.sampling_from_wire(message)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 1.1])
def test_number_out_of_range_is_an_invalid_request(value: float) -> None:
    with pytest.raises(InvalidRequestError, match="deadline must be between 0 and 1, got"):
        convert.require_range("deadline", value, 0, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_range_without_an_upper_end_still_takes_finite_numbers_only(value: float) -> None:
    with pytest.raises(InvalidRequestError, match="wait must be between 0 and inf, got"):
        convert.require_range("wait", value, 0, math.inf)


@pytest.mark.parametrize("node_id", ["a", "Node-7.local_2", "x" * 64])
def test_good_node_id_is_returned(node_id: str) -> None:
    assert check_node_id(node_id) == node_id


@pytest.mark.parametrize(
    "node_id", ["", "x" * 65, "a b", "a\n", "\na", "a/b", "é", "\u0661", "a\0", "x" * 100_000]
)
def test_bad_node_id_is_refused_and_quoted_briefly(node_id: str) -> None:
    with pytest.raises(InvalidRequestError, match="expected 1 to 64 characters") as caught:
        check_node_id(node_id)
    assert len(str(caught.value)) < 500
