"""Session terms from the wire: what goes out comes back, a hostile one is an invalid request."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.errors import InvalidInputError, InvalidPlanError, InvalidRequestError
from fedattn.core.limits import MAX_MEMBERS
from fedattn.core.spans import SessionLayout
from fedattn.core.terms import SessionTerms
from fedattn.core.types import KvShape
from fedattn.wire.terms import terms_from_wire, terms_to_wire
from fedattn.wire.v1 import session_pb2
from tests.harness.samples import sample_layout
from tests.harness.strategies import compressions, layouts

UINT32 = st.integers(0, 2**32 - 1)
Damage = Callable[[session_pb2.SessionTerms], object]


def terms_of(layout: SessionLayout) -> SessionTerms:
    return SessionTerms(
        session_id="5" * 32,
        layout=layout,
        shape=KvShape(num_layers=layout.num_layers, num_kv_heads=2, head_dim=64),
        deadline_s=30.0,
        progress_timeout_s=5.0,
        min_participants=2,
        wants_timeline=True,
    )


def to_wire(layout: SessionLayout) -> session_pb2.SessionTerms:
    message = terms_to_wire(terms_of(layout))
    return session_pb2.SessionTerms.FromString(message.SerializeToString())


def sample_message() -> session_pb2.SessionTerms:
    """Prefix 1, a 1-3, b 3-4, publisher p 4-6, five layers."""
    return to_wire(sample_layout(contributors=(1, 3), publisher=(2,)))


def setting(place: int, **fields: Any) -> Damage:
    """Overwrites fields of one member."""

    def damage(message: session_pb2.SessionTerms) -> None:
        for name, value in fields.items():
            setattr(message.members[place], name, value)

    return damage


def syncing(place: int, *layers: int) -> Damage:
    """Overwrites the sync layers of one member."""

    def damage(message: session_pb2.SessionTerms) -> None:
        message.members[place].sync_layers[:] = layers

    return damage


def compressing(place: int, **fields: Any) -> Damage:
    """Overwrites fields of one member's compression."""

    def damage(message: session_pb2.SessionTerms) -> None:
        for name, value in fields.items():
            setattr(message.members[place].compression, name, value)

    return damage


def shaped(**sizes: int) -> Damage:
    return lambda message: message.shape.MergeFrom(session_pb2.KvShape(**sizes))


def crowd(message: session_pb2.SessionTerms) -> None:
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


@given(layouts(compression=compressions(), shifted=True))
def test_terms_come_back_from_the_wire(layout: SessionLayout) -> None:
    assert terms_from_wire(to_wire(layout)) == terms_of(layout)


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
        (setting(0, position_offset=1), "cannot compute before the prefix ends"),
        (setting(1, position_offset=3), "cannot compute before the prefix ends"),
        (setting(1, position_offset=2), "b attends to others, so it cannot be shifted"),
        (setting(2, position_offset=1), "p attends to others, so it cannot be shifted"),
        (setting(1, node_id=""), "node id ''"),
        (setting(1, node_id="a b"), "node id 'a b'"),
        (setting(1, role=session_pb2.ROLE_UNSPECIFIED), "role 0 is not known here"),
        (setting(1, role=7), "role 7 is not known here"),
        (setting(0, role=session_pb2.ROLE_PUBLISHER), "exactly one publisher"),
        (setting(2, role=session_pb2.ROLE_CONTRIBUTOR), "needs a publisher"),
        (lambda message: message.members.pop(), "needs a publisher"),
        (lambda message: message.ClearField("members"), "number of members must be between 1"),
        (compressing(1, codec_id=99), "codec number 99 is not known here"),
        (compressing(0, keep_ratio=0.0), "keep_ratio must be above 0"),
        (compressing(2, selector="best"), "unknown selector 'best'"),
        (lambda message: message.members[1].ClearField("compression"), "codec number 0"),
        (setting(0, cache_key=bytes(33)), "size of cache_key must be between 0 and 32, got 33"),
        (setting(0, cache_lifetime_s=-1), "cache_lifetime_s must be between 0"),
        (lambda message: message.ClearField("deadline_s"), "deadline_s must be between"),
        (lambda message: message.ClearField("progress_timeout_s"), "progress_timeout_s must be"),
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
        terms_from_wire(message)


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
        terms_from_wire(message)


@pytest.mark.parametrize(
    "damage",
    [
        setting(1, node_id="x" * 100_000),
        setting(1, node_id="x" * 100_000, role=0),
        syncing(1, *([3] * 20_000)),
    ],
    ids=["long id", "long id without role", "many layers"],
)
def test_refusal_of_a_long_message_is_short(damage: Damage) -> None:
    message = sample_message()
    damage(message)
    with pytest.raises(InvalidInputError) as caught:
        terms_from_wire(message)
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
        layout = terms_from_wire(message).layout
    except (InvalidRequestError, InvalidPlanError):
        return
    assert to_wire(layout).members == message.members
