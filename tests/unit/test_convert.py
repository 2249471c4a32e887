"""Conversions: what goes out comes back, and a hostile message is an invalid request."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.chunks import MAX_CHUNK_SIZE, Chunk
from fedattn.core.codecs import CODECS
from fedattn.core.errors import (
    InvalidInputError,
    InvalidPlanError,
    InvalidRequestError,
    InvalidSamplingError,
)
from fedattn.core.plans import SyncPlan
from fedattn.core.sampling import Sampling
from fedattn.core.spans import PrefixMode, SessionLayout
from fedattn.core.types import KvShape
from fedattn.wire import convert
from fedattn.wire.protocol import MAX_MEMBERS, MAX_MESSAGE_SIZE, check_node_id
from fedattn.wire.v1 import aggregator_pb2, participant_pb2, session_pb2
from tests.unit.samples import sample_layout
from tests.unit.strategies import layouts

UINT32 = st.integers(0, 2**32 - 1)
Damage = Callable[[session_pb2.SessionLayout], object]


def to_wire(layout: SessionLayout) -> session_pb2.SessionLayout:
    message = session_pb2.SessionLayout(
        shape=session_pb2.KvShape(num_layers=layout.num_layers, num_kv_heads=2, head_dim=64),
        prefix_len=layout.prefix_len,
        members=convert.layout_to_wire(layout),
    )
    return session_pb2.SessionLayout.FromString(message.SerializeToString())


def sample_message() -> session_pb2.SessionLayout:
    """Prefix 1, a 1-3, b 3-4, publisher p 4-6, five layers."""
    return to_wire(sample_layout(contributors=(1, 3), publisher=(2,)))


def setting(place: int, **fields: Any) -> Damage:
    """Overwrites fields of one member."""

    def damage(message: session_pb2.SessionLayout) -> None:
        for name, value in fields.items():
            setattr(message.members[place], name, value)

    return damage


def syncing(place: int, *layers: int) -> Damage:
    """Overwrites the sync layers of one member."""

    def damage(message: session_pb2.SessionLayout) -> None:
        message.members[place].sync_layers[:] = layers

    return damage


def shaped(**sizes: int) -> Damage:
    return lambda message: message.shape.MergeFrom(session_pb2.KvShape(**sizes))


def crowd(message: session_pb2.SessionLayout) -> None:
    """One member more than the limit, all spans empty."""
    del message.members[:]
    for place in range(MAX_MEMBERS + 1):
        message.members.add(
            node_id=f"n{place}",
            role=session_pb2.ROLE_PUBLISHER
            if place == MAX_MEMBERS
            else session_pb2.ROLE_CONTRIBUTOR,
            span_start=1,
            span_stop=1,
        )


@given(layouts())
def test_layout_comes_back_from_the_wire(layout: SessionLayout) -> None:
    assert convert.layout_from_wire(to_wire(layout)) == layout


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (setting(1, span_start=2), "adjacent"),
        (setting(1, span_start=2, span_stop=2), "adjacent"),
        (setting(2, span_start=5), "adjacent"),
        (setting(1, span_start=4, span_stop=3), "0 <= start <= stop"),
        (setting(0, span_start=0), "starts after the public prefix"),
        (setting(0, span_start=2), "starts after the public prefix"),
        (setting(1, node_id="a"), "takes part in a session once"),
        (setting(1, node_id=""), "node id ''"),
        (setting(1, node_id="a b"), "node id 'a b'"),
        (setting(1, role=session_pb2.ROLE_UNSPECIFIED), "has no role"),
        (setting(1, role=7), "has no role"),
        (setting(0, role=session_pb2.ROLE_PUBLISHER), "exactly one publisher"),
        (setting(2, role=session_pb2.ROLE_CONTRIBUTOR), "needs a publisher"),
        (lambda message: message.members.pop(), "needs a publisher"),
        (lambda message: message.ClearField("members"), "number of members must be between 1"),
        (crowd, "number of members must be between 1 and 256, got 257"),
        (
            lambda message: message.ClearField("shape"),
            "num_layers must be between 1 and 1024, got 0",
        ),
        (shaped(num_layers=1025), "num_layers must be between 1 and 1024, got 1025"),
        (shaped(num_kv_heads=65536), "num_kv_heads must be between 1 and 65535, got 65536"),
        (shaped(head_dim=2**32 - 1), "head_dim must be between 1 and 65535, got 4294967295"),
    ],
)
def test_layout_that_contradicts_itself_is_an_invalid_request(
    damage: Damage, complaint: str
) -> None:
    message = sample_message()
    damage(message)
    with pytest.raises(InvalidRequestError, match=complaint):
        convert.layout_from_wire(message)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (syncing(0, 1, 5), "block 5, but the model has blocks 0 to 4"),
        (syncing(2, 2**32 - 1), "block 4294967295"),
        (syncing(0, 3, 1), "sorted, unique"),
        (syncing(1, 2, 2), "sorted, unique"),
        (shaped(num_layers=3), "block 3, but the model has blocks 0 to 2"),
    ],
)
def test_layout_with_an_impossible_plan_is_an_invalid_plan(damage: Damage, complaint: str) -> None:
    message = sample_message()
    damage(message)
    with pytest.raises(InvalidPlanError, match=complaint):
        convert.layout_from_wire(message)


@pytest.mark.parametrize(
    "damage",
    [
        setting(1, node_id="x" * 100_000),
        pytest.param(
            setting(1, node_id="x" * 100_000, role=0),
            marks=pytest.mark.xfail(
                strict=True, reason="bug: convert quotes a node id before it is checked"
            ),
        ),
        pytest.param(
            syncing(1, *([3] * 20_000)),
            marks=pytest.mark.xfail(
                strict=True, reason="bug: SyncPlan quotes any number of layers"
            ),
        ),
    ],
    ids=["long id", "long id without role", "many layers"],
)
def test_refusal_of_a_long_message_is_short(damage: Damage) -> None:
    message = sample_message()
    damage(message)
    with pytest.raises(InvalidInputError) as caught:
        convert.layout_from_wire(message)
    assert len(str(caught.value)) < 1000


@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.one_of(
                st.fixed_dictionaries({"span_start": UINT32}),
                st.fixed_dictionaries({"span_stop": UINT32}),
                st.fixed_dictionaries({"span_start": st.integers(0, 6)}),
                st.fixed_dictionaries({"span_stop": st.integers(0, 6)}),
                st.fixed_dictionaries({"role": st.integers(0, 4)}),
                st.fixed_dictionaries({"node_id": st.text(max_size=3)}),
            ),
        ),
        max_size=4,
    ),
    sizes=st.fixed_dictionaries(
        {}, optional={"num_layers": UINT32, "num_kv_heads": UINT32, "head_dim": UINT32}
    ),
    layers=st.lists(UINT32, max_size=4),
    prefix_len=UINT32 | st.just(1),
)
def test_any_layout_is_read_or_refused_as_invalid_input(
    edits: list[tuple[int, dict[str, Any]]],
    sizes: dict[str, int],
    layers: list[int],
    prefix_len: int,
) -> None:
    message = sample_message()
    message.prefix_len = prefix_len
    message.members[0].sync_layers[:] = layers
    shaped(**sizes)(message)
    for place, fields in edits:
        setting(place, **fields)(message)
    try:
        layout = convert.layout_from_wire(message)
    except (InvalidRequestError, InvalidPlanError):
        return
    assert to_wire(layout).members == message.members


@given(st.integers(1, 1024), st.integers(1, 65535), st.integers(1, 65535))
def test_shape_comes_back_from_the_wire(layers: int, heads: int, head_dim: int) -> None:
    shape = KvShape(num_layers=layers, num_kv_heads=heads, head_dim=head_dim)
    assert convert.shape_from_wire(convert.shape_to_wire(shape)) == shape


def test_plan_from_the_wire_is_checked_against_the_model() -> None:
    assert convert.plan_from_wire([1, 3], 4) == SyncPlan((1, 3))
    for layers in ([4], [3, 1], [1, 1]):
        with pytest.raises(InvalidPlanError):
            convert.plan_from_wire(layers, 4)


def test_codec_comes_back_from_its_number_and_an_unknown_one_is_refused() -> None:
    assert [convert.codec_from_wire(int(codec.codec_id)) for codec in CODECS] == list(CODECS)
    with pytest.raises(InvalidRequestError, match="codec number 99 is not known here"):
        convert.codec_from_wire(99)


@pytest.mark.parametrize("mode", PrefixMode)
def test_prefix_mode_comes_back_from_the_wire(mode: PrefixMode) -> None:
    assert convert.prefix_mode_from_wire(convert.prefix_mode_to_wire(mode)) is mode


@pytest.mark.parametrize("number", [0, 3, -1])
def test_unknown_prefix_mode_is_refused(number: int) -> None:
    with pytest.raises(InvalidRequestError, match="use public or first"):
        convert.prefix_mode_from_wire(session_pb2.PrefixMode.ValueType(number))


def test_prefix_travels_as_length_and_digest_of_its_token_ids() -> None:
    prefix = convert.prefix_to_wire(PrefixMode.PUBLIC, [1, 258])
    ids = bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0])
    assert prefix.digest == hashlib.sha256(ids).digest()
    assert prefix.num_tokens == 2
    assert prefix.mode == session_pb2.PREFIX_MODE_PUBLIC


def test_chunk_comes_back_from_the_wire_with_its_sender() -> None:
    chunk = Chunk(layer=3, offset=7, frame_size=100, data=b"abc")
    message = convert.chunk_to_wire(chunk, sender=5)
    assert message.sender == 5
    assert convert.chunk_from_wire(message) == chunk


def test_largest_chunk_with_its_envelope_is_within_the_message_limit() -> None:
    largest = 2**32 - 1
    chunk = Chunk(layer=largest, offset=largest, frame_size=largest, data=bytes(MAX_CHUNK_SIZE))
    wire = convert.chunk_to_wire(chunk, sender=largest)
    for envelope in (
        aggregator_pb2.ExchangeRequest(chunk=wire),
        aggregator_pb2.ExchangeResponse(chunk=wire),
    ):
        assert envelope.ByteSize() <= MAX_MESSAGE_SIZE


def test_sampling_comes_back_from_the_wire() -> None:
    sampling = Sampling(
        max_new_tokens=9, temperature=0.5, top_p=0.9, top_k=40, seed=2**63 - 1, stop=("\n", "é")
    )
    assert convert.sampling_from_wire(convert.sampling_to_wire(sampling)) == sampling


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_new_tokens": 2**32 - 1},
        {"temperature": math.nan},
        {"temperature": -math.inf},
        {"top_p": math.nan},
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
