"""Requests for sessions from the wire: what goes out comes back, a hostile one is refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from fedattn.core.budget import ByteBudget
from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import MAX_BUDGET_BYTES, MAX_DEADLINE_S, MAX_MEMBERS
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.request import Kem, PublicKey, SessionOptions, SessionRequest, describe_prefix
from fedattn.core.spans import PrefixMode
from fedattn.wire.protocol import MAX_PUBLISHER_KEYS
from fedattn.wire.requests import opening_from_wire, request_from_wire, request_to_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2

Damage = Callable[[session_pb2.SessionRequest], object]

REQUEST = SessionRequest(
    node_id="publisher",
    span_len=5,
    prefix=describe_prefix(PrefixMode.PUBLIC, [1, 2, 3]),
    plans=RolePlans(contributors=SyncPlan((1, 2)), publisher=SyncPlan((2,))),
    max_new_tokens=4,
    compression=Compression(codec=codec_by_name("int8"), keep_ratio=0.5),
    coarser=(
        Compression(keep_ratio=0.2, selector="learned", head_shares=bytes([0, 50, 255, 1])),
        Compression(keep_ratio=0.1, selector="recency", keep_ends=2, seed=3),
    ),
    options=SessionOptions(
        contributors=("b", "a"),
        budget=ByteBudget(kv_bytes=1000, link_bytes=500),
        min_participants=3,
        deadline_s=7.5,
        reuse=False,
        wants_timeline=True,
        subject="anna@desk",
        purpose="audit",
    ),
    key=PublicKey(kem=Kem.X25519, data=bytes(32)),
)


def message() -> session_pb2.SessionRequest:
    return session_pb2.SessionRequest.FromString(request_to_wire(REQUEST).SerializeToString())


def setting(**fields: Any) -> Damage:
    """Overwrites fields of the request."""

    def damage(request: session_pb2.SessionRequest) -> None:
        for name, value in fields.items():
            setattr(request, name, value)

    return damage


def choosing(**fields: Any) -> Damage:
    """Overwrites fields of its options."""

    def damage(request: session_pb2.SessionRequest) -> None:
        for name, value in fields.items():
            setattr(request.options, name, value)

    return damage


def naming(count: int) -> Damage:
    """Names so many contributors."""
    names = [f"n{place}" for place in range(count)]
    return lambda request: request.options.contributors.extend(names)


def test_request_comes_back_from_the_wire() -> None:
    assert request_from_wire(message().SerializeToString()) == REQUEST


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
            lambda request: request.ClearField("compression"),
            "codec number 0 is not known here",
        ),
        (
            lambda request: request.compression.MergeFrom(
                session_pb2.Compression(selector="learned")
            ),
            "learned goes with the shares of heads",
        ),
        (
            lambda request: request.coarser[0].MergeFrom(
                session_pb2.Compression(head_shares=bytes(65537))
            ),
            "number of head_shares must be between 0 and 65536",
        ),
        (
            lambda request: request.coarser.extend(15 * [request.compression]),
            "number of coarser must be between 0 and 16, got 17",
        ),
        (
            lambda request: request.options.ClearField("budget"),
            "up to 16 compressions with a byte budget and none without, got 2",
        ),
        (setting(span_len=0), "span_len must be between 1 and"),
        (setting(span_len=2**32 - 1), "span_len must be between 1 and"),
        (setting(max_new_tokens=0), "max_new_tokens must be between 1 and"),
        (setting(max_new_tokens=2**32 - 1), "max_new_tokens must be between 1 and"),
        (setting(nonce=b""), "size of the nonce must be between 16 and 16, got 0"),
        (setting(issued_at_s=math.inf), "issued_at_s must be between 0 and"),
        (choosing(purpose="a" * 65), "purpose: expected up to 64 letters"),
        (choosing(subject="two\nlines"), "subject: expected up to 64 letters"),
        (
            lambda request: request.key.MergeFrom(session_pb2.PublicKey(data=bytes(31))),
            "size of a public key must be between 32 and 32, got 31",
        ),
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
        request_from_wire(request.SerializeToString())
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ([b""], "size of a cached key must be between 32 and 32, got 0"),
        ([bytes(33)], "size of a cached key must be between 32 and 32, got 33"),
        ([bytes(32)] * (MAX_PUBLISHER_KEYS + 1), "number of cached_keys must be between 0 and"),
    ],
)
def test_keys_that_are_none_are_refused(keys: list[bytes], complaint: str) -> None:
    signed = session_pb2.Signed(payload=message().SerializeToString())
    with pytest.raises(InvalidRequestError, match=complaint):
        opening_from_wire(pb.OpenSessionRequest(request=signed, cached_keys=keys))


def test_bytes_that_are_no_request_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="its bytes are no such message"):
        request_from_wire(b"\xff")
