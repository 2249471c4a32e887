"""Requests for sessions from the wire: what goes out comes back, a hostile one is refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from fedattn.core.budget import ByteBudget
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import MAX_BUDGET_BYTES, MAX_DEADLINE_S, MAX_MEMBERS
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.request import SessionOptions, SessionRequest, describe_prefix
from fedattn.core.spans import PrefixMode
from fedattn.wire.protocol import MAX_PUBLISHER_KEYS
from fedattn.wire.sessions import session_request_from_wire, session_request_to_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2

Damage = Callable[[pb.OpenSessionRequest], object]

REQUEST = SessionRequest(
    node_id="publisher",
    node_token="7" * 32,
    span_len=5,
    prefix=describe_prefix(PrefixMode.PUBLIC, [1, 2, 3]),
    plans=RolePlans(contributors=SyncPlan((1, 2)), publisher=SyncPlan((2,))),
    max_new_tokens=4,
    cached_keys=frozenset({bytes(32), bytes([1] * 32)}),
    options=SessionOptions(
        contributors=("b", "a"),
        budget=ByteBudget(kv_bytes=1000, link_bytes=500, may_choose_codec=True),
        min_participants=3,
        deadline_s=7.5,
        reuse=False,
        wants_timeline=True,
    ),
)


def message() -> pb.OpenSessionRequest:
    sent = session_request_to_wire(REQUEST)
    return pb.OpenSessionRequest.FromString(sent.SerializeToString())


def setting(**fields: Any) -> Damage:
    """Overwrites fields of the request."""

    def damage(request: pb.OpenSessionRequest) -> None:
        for name, value in fields.items():
            setattr(request, name, value)

    return damage


def choosing(**fields: Any) -> Damage:
    """Overwrites fields of its options."""

    def damage(request: pb.OpenSessionRequest) -> None:
        for name, value in fields.items():
            setattr(request.options, name, value)

    return damage


def naming(count: int) -> Damage:
    """Names so many contributors."""
    names = [f"n{place}" for place in range(count)]
    return lambda request: request.options.contributors.extend(names)


def holding(*keys: bytes) -> Damage:
    """Claims to hold the rows of these keys too."""
    return lambda request: request.cached_keys.extend(keys)


def test_request_comes_back_from_the_wire() -> None:
    assert session_request_from_wire(message()) == REQUEST


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (choosing(deadline_s=0.0), "deadline_s must be between 0.001"),
        (choosing(deadline_s=-1.0), "deadline_s must be between 0.001"),
        (choosing(deadline_s=math.nan), "deadline_s must be between 0.001"),
        (choosing(deadline_s=math.inf), "deadline_s must be between 0.001"),
        (choosing(deadline_s=MAX_DEADLINE_S + 1), "deadline_s must be between 0.001"),
        (choosing(min_participants=0), "min_participants must be between 1 and 256, got 0"),
        (choosing(min_participants=MAX_MEMBERS + 1), "min_participants must be between 1 and 256"),
        (naming(MAX_MEMBERS), "number of contributors must be between 0 and 255"),
        (
            lambda request: request.options.contributors.append("a"),
            "'a' is named twice",
        ),
        (choosing(prefix=session_pb2.PREFIX_MODE_FIRST), "prefix mode public differs from that of"),
        (choosing(prefix=99), "99 is not known here"),
        (choosing(independent=True), "leave out their sync layers"),
        (
            lambda request: request.options.budget.MergeFrom(
                session_pb2.ByteBudget(kv_bytes=MAX_BUDGET_BYTES + 1)
            ),
            "kv_bytes of the budget must be between 0 and",
        ),
        (
            lambda request: request.options.ClearField("compression"),
            "codec number 0 is not known here",
        ),
        (setting(span_len=0), "span_len must be between 1 and"),
        (setting(span_len=2**32 - 1), "span_len must be between 1 and"),
        (setting(max_new_tokens=0), "max_new_tokens must be between 1 and"),
        (setting(max_new_tokens=2**32 - 1), "max_new_tokens must be between 1 and"),
        (holding(b""), "size of a cached key must be between 32 and 32, got 0"),
        (holding(bytes(33)), "size of a cached key must be between 32 and 32, got 33"),
        (holding(*[bytes(32)] * MAX_PUBLISHER_KEYS), "number of cached_keys must be between 0 and"),
        (lambda request: request.ClearField("prefix"), "size of the prefix digest must be"),
        (
            lambda request: request.prefix.MergeFrom(session_pb2.PublicPrefix(digest=bytes(31))),
            "size of the prefix digest must be between 32 and 32, got 31",
        ),
        (lambda request: request.ClearField("options"), "deadline_s must be between 0.001"),
    ],
)
def test_request_out_of_range_is_refused_briefly(damage: Damage, complaint: str) -> None:
    request = message()
    damage(request)
    with pytest.raises(InvalidRequestError, match=complaint) as caught:
        session_request_from_wire(request)
    assert len(str(caught.value)) < 300
