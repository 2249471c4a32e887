"""What an aggregator can do that lies, and who finds out. One test an attack.

The nodes are real and have certificates; the aggregator passes their messages on and changes some.
"""

import struct
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from fedattn.core.errors import (
    FedAttnError,
    IdentityMismatchError,
    TermsRefusedError,
)
from fedattn.core.frame_headers import HEADER_SIZE
from fedattn.core.node_id import AGGREGATOR
from fedattn.core.seals import SEAL_SIZE
from fedattn.model.loading import LoadedModel
from fedattn.passages.choice import Wish
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.requests import key_from_wire
from fedattn.wire.sealing import ContentKey, KeyPair, seal_key
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from tests.harness.hostile import Tricks
from tests.harness.identities import certificates_of
from tests.harness.networks import query
from tests.harness.samples import sealed
from tests.harness.victims import (
    PUBLISHER,
    Victims,
    outcomes,
    reason,
    running_victims,
)

Terms = session_pb2.SessionTerms


@pytest.fixture
async def victims(model: LoadedModel, tmp_path: Path) -> AsyncIterator[Victims]:
    async with running_victims(model, tmp_path) as running:
        yield running


async def test_honest_one_is_not_accused(victims: Victims) -> None:
    report = await victims.ask(Tricks())
    assert set(outcomes(report).values()) == {"COMPLETE"}


class Records(Tricks):
    """Keeps every byte that passes."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.frames: list[bytes] = []

    def opens(self, request: pb.OpenSessionRequest) -> pb.OpenSessionRequest:
        self.messages.append(request.SerializeToString())
        return request

    def says(self, node_id: str, request: pb.ControlRequest) -> Iterable[pb.ControlRequest]:
        self.messages.append(request.SerializeToString())
        yield request

    def sends(self, request: pb.ExchangeRequest) -> Iterable[pb.ExchangeRequest]:
        self.messages.append(request.SerializeToString())
        if request.HasField("chunk"):
            self.frames.append(request.chunk.data)
        yield request


async def test_no_text_and_no_row_passes_in_the_clear(victims: Victims) -> None:
    tricks = Records()
    await victims.ask(tricks)
    passed = b"".join(tricks.messages)
    passages = [node.context.choose(Wish()).passages for node in victims.nodes]
    texts = [passage.text for own in passages for passage in own]
    questions = [query().question]
    for text in (*texts, *questions):
        words = text.split()
        for pair in pairwise(words):  # a word of two letters occurs in sealed bytes by chance
            assert " ".join(pair).encode() not in passed
        assert len(words) > 1
    num_bodies = 0
    for node in victims.nodes:
        for cached in node.frames.snapshot(9).values():
            assert cached.content_key is not None
            for layer, frame in cached.frames.items():
                assert frame in tricks.frames
                header = frame[: HEADER_SIZE - 4]
                body = cached.content_key.open(layer, header, frame[HEADER_SIZE:])
                pieces = {body[start : start + 8] for start in range(0, len(body) - 8, 8)}
                assert not any(piece in passed for piece in pieces if any(piece))
                num_bodies += 1
    assert num_bodies == len(tricks.frames) > 0


# -- frames ----------------------------------------------------------------------------------------


@dataclass
class ChangesFrames(Tricks):
    """Changes the frames of the first member, and says in the report that all is well."""

    change: Callable[[bytearray], bytes]

    def gets(self, response: pb.ExchangeResponse) -> Iterable[pb.ExchangeResponse]:
        if response.HasField("chunk") and response.chunk.sender == 0:
            response.chunk.data = self.change(bytearray(response.chunk.data))
            response.chunk.frame_size = len(response.chunk.data)
        for member in response.report.members:
            member.state, member.detail = session_pb2.OUTCOME_COMPLETE, ""
        yield response


def flip_signs(frame: bytearray) -> bytes:
    frame[HEADER_SIZE + 3] ^= 0x80
    return sealed(frame)


def move_span(frame: bytearray) -> bytes:
    frame[20] ^= 1
    return sealed(frame)


def cut(frame: bytearray) -> bytes:
    del frame[-SEAL_SIZE:]
    frame[28:32] = struct.pack("<I", len(frame) - HEADER_SIZE)
    return sealed(frame)


def unseal(frame: bytearray) -> bytes:
    frame[7] = 0
    return cut(frame)


async def test_changed_rows_are_found_though_checksum_and_report_are_right(
    victims: Victims,
) -> None:
    report = await victims.ask(ChangesFrames(flip_signs))
    assert outcomes(report)["a"] == "LATE"
    assert "frame from a at layer 1 cannot be opened: it is not what its sender sealed" in reason(
        report, "a"
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (move_span, "frame from a at layer 1: first position expected"),
        (cut, "frame from a at layer 1: body size expected"),
        (unseal, "frame from a at layer 1: sealed expected True, got False"),
    ],
)
async def test_frame_made_to_say_something_else_is_refused(
    change: Callable[[bytearray], bytes], complaint: str, victims: Victims
) -> None:
    with pytest.raises(FedAttnError, match=complaint):
        await victims.ask(ChangesFrames(change))


class MovesLayers(Tricks):
    """Shows the rows of block 1 as those of block 2 too."""

    def __init__(self) -> None:
        self.first = b""

    def gets(self, response: pb.ExchangeResponse) -> Iterable[pb.ExchangeResponse]:
        chunk = response.chunk
        if response.HasField("chunk") and chunk.sender == 0:
            if chunk.layer == 1:
                self.first = chunk.data
            elif chunk.layer == 2 and self.first:
                moved = bytearray(self.first)
                moved[8] = 2
                chunk.data = sealed(moved)
        yield response


async def test_rows_of_another_layer_are_found(victims: Victims) -> None:
    report = await victims.ask(MovesLayers())
    assert outcomes(report)["a"] == "LATE"
    assert "frame from a at layer 2 cannot be opened" in reason(report, "a")


class MixesSenders(Tricks):
    """Shows b's sealed rows as a's, in a's header."""

    def __init__(self) -> None:
        self.of_a: dict[int, pb.ExchangeResponse] = {}
        self.of_b: dict[int, bytes] = {}

    def gets(self, response: pb.ExchangeResponse) -> Iterable[pb.ExchangeResponse]:
        chunk = response.chunk
        if not response.HasField("chunk"):
            yield response
            return
        if chunk.sender == 0:
            self.of_a[chunk.layer] = response
        else:
            self.of_b[chunk.layer] = chunk.data[HEADER_SIZE:]
            yield response
        if chunk.layer in self.of_a and chunk.layer in self.of_b:
            mixed = self.of_a.pop(chunk.layer)
            header = mixed.chunk.data[:HEADER_SIZE]
            mixed.chunk.data = sealed(bytearray(header + self.of_b[chunk.layer]))
            yield mixed


async def test_rows_of_another_sender_are_found(victims: Victims) -> None:
    report = await victims.ask(MixesSenders(), plan="none", publisher_plan="1,2,3")
    assert outcomes(report)["a"] == "LATE"
    assert "frame from a at layer 1 cannot be opened" in reason(report, "a")


class Replays(Tricks):
    """Records the first session's frames of a, and keys if asked to, and shows them again."""

    def __init__(self, *, with_keys: bool) -> None:
        self.with_keys = with_keys
        self.frames: dict[int, bytes] = {}
        self.keys: dict[int, session_pb2.SealedKey] = {}

    def gets(self, response: pb.ExchangeResponse) -> Iterable[pb.ExchangeResponse]:
        chunk, key = response.chunk, response.key
        if response.HasField("chunk") and chunk.sender == 0:
            chunk.data = self.frames.setdefault(chunk.layer, chunk.data)
        if response.HasField("key") and key.sender == 0 and self.with_keys:
            copy = session_pb2.SealedKey.FromString(key.SerializeToString())
            key.CopyFrom(self.keys.setdefault(key.receiver, copy))
        yield response


@pytest.mark.parametrize(
    ("with_keys", "complaint"),
    [
        (False, "it is not what its sender sealed"),
        (True, "the key in the name of a is not what a signed"),
    ],
)
async def test_rows_of_another_session_are_found(
    with_keys: bool, complaint: str, victims: Victims
) -> None:
    tricks = Replays(with_keys=with_keys)
    first = await victims.ask(tricks)
    assert outcomes(first)["a"] == "COMPLETE"
    report = await victims.ask(tricks)
    assert outcomes(report)["a"] == "LATE"
    assert complaint in reason(report, "a")


class Drops(Tricks):
    """Keeps the frames of a to itself, and reports them as passed on."""

    def gets(self, response: pb.ExchangeResponse) -> Iterable[pb.ExchangeResponse]:
        if not (response.HasField("chunk") and response.chunk.sender == 0):
            for member in response.report.members:
                member.state = session_pb2.OUTCOME_COMPLETE
            yield response


async def test_rows_that_do_not_come_are_missed(victims: Victims) -> None:
    report = await victims.ask(Drops(), independent=True)
    assert outcomes(report)["a"] == "LATE"


class NamesNoPublisher(Tricks):
    """Reports the publisher in another role, or not at all."""

    def __init__(self, *, is_left_out: bool) -> None:
        self.is_left_out = is_left_out

    def gets(self, response: pb.ExchangeResponse) -> Iterable[pb.ExchangeResponse]:
        for member in response.report.members:
            member.role = session_pb2.ROLE_CONTRIBUTOR
        if self.is_left_out and response.HasField("report"):
            del response.report.members[-1]
        yield response


@pytest.mark.parametrize("is_left_out", [False, True])
async def test_report_that_names_no_publisher_ends_no_query(
    is_left_out: bool, victims: Victims
) -> None:
    report = await victims.ask(NamesNoPublisher(is_left_out=is_left_out), timeline=True)
    (own,) = (one for one in report.members if one.node_id == PUBLISHER)
    assert session_pb2.ACTIVITY_GENERATE in {piece.activity for piece in own.timeline}


class OwnKey(Tricks):
    """Seals rows of its own with a key of its own, in a's name."""

    def __init__(self) -> None:
        self.publisher = KeyPair().public

    def opens(self, request: pb.OpenSessionRequest) -> pb.OpenSessionRequest:
        asked = session_pb2.SessionRequest.FromString(request.request.payload)
        self.publisher = key_from_wire(asked.key)
        return request

    def gets(self, response: pb.ExchangeResponse) -> Iterable[pb.ExchangeResponse]:
        if response.HasField("key") and response.key.sender == 0:
            sealed = seal_key(ContentKey(), self.publisher, b"whatever")
            own = Identity(certificates_of(AGGREGATOR))
            response.key.sealed = sealed
            response.key.signature = own.signature(Kind.KEY, b"whatever" + sealed)
        yield response


async def test_key_that_a_member_did_not_sign_is_found(victims: Victims) -> None:
    report = await victims.ask(OwnKey())
    assert outcomes(report)["a"] == "LATE"
    assert "the key in the name of a is not what a signed" in reason(report, "a")


# -- who is who ------------------------------------------------------------------------------------


class SwapsKeys(Tricks):
    """Puts a public key of its own into what a contributor agreed to."""

    def says(self, node_id: str, request: pb.ControlRequest) -> Iterable[pb.ControlRequest]:
        if node_id == "a" and request.invite_reply.HasField("statement"):
            signed = request.invite_reply.statement
            statement = session_pb2.MemberStatement.FromString(signed.payload)
            statement.key.data = KeyPair().public.data
            self.replace(signed, statement)
        yield request

    def replace(self, signed: session_pb2.Signed, now: session_pb2.MemberStatement) -> None:
        signed.payload = now.SerializeToString()


class EnrolsItself(SwapsKeys):
    """The same, signed with the aggregator's own certificate."""

    def replace(self, signed: session_pb2.Signed, now: session_pb2.MemberStatement) -> None:
        own = Identity(certificates_of(AGGREGATOR))
        signed.CopyFrom(own.sign(Kind.STATEMENT, now.SerializeToString()))


@pytest.mark.parametrize(
    ("tricks", "complaint"),
    [
        (SwapsKeys(), "the statement in the name of a is not what a signed"),
        (EnrolsItself(), "the statement in the name of a bears the certificate of .'aggregator'"),
    ],
)
async def test_member_that_is_not_who_it_is_said_to_be_is_refused(
    tricks: Tricks, complaint: str, victims: Victims
) -> None:
    with pytest.raises(IdentityMismatchError, match=complaint):
        await victims.ask(tricks)


# -- what was asked for ----------------------------------------------------------------------------


@dataclass
class LiesOut(Tricks):
    """Shows the contributors, or everybody, other terms than the publisher asked for."""

    change: Callable[[Terms], object]
    to_publisher: bool = False

    def told(self, node_id: str, response: pb.ControlResponse) -> Iterable[pb.ControlResponse]:
        if response.HasField("start"):
            self.change(response.start.terms)
        yield response

    def opened(self, response: pb.OpenSessionResponse) -> pb.OpenSessionResponse:
        if self.to_publisher:
            self.change(response.start.terms)
        return response


def every_block(terms: Terms) -> None:
    for member in terms.members:
        member.sync_layers[:] = range(terms.shape.num_layers)


def other_codec(terms: Terms) -> None:
    for member in terms.members:
        member.compression.codec_id = 3


def no_seals(terms: Terms) -> None:
    terms.sealed = False


def cached_for_ever(terms: Terms) -> None:
    terms.members[0].cache_lifetime_s = 86_400


def other_key(terms: Terms) -> None:
    terms.members[0].cache_key = bytes(32)


def claims_cached(terms: Terms) -> None:
    terms.members[0].is_cached_by_owner = True


LIES = [
    (other_key, "cache key of a: asked"),
    (claims_cached, "the terms count on cached rows of a, which nobody asked for"),
    (every_block, "sync layers of a: asked 1-3, the aggregator laid out 0-4"),
    (other_codec, "compression of a: asked fp32, 1 of the rows, value-weighted, the aggregator"),
    (no_seals, "sealing of a: asked True, the aggregator laid out False"),
    (cached_for_ever, "seconds that a lets its rows be cached, up to: asked 60"),
]
each_lie = pytest.mark.parametrize(("change", "complaint"), LIES)


@each_lie
async def test_contributors_refuse_terms_that_nobody_asked_for(
    change: Callable[[Terms], object], complaint: str, victims: Victims
) -> None:
    with pytest.raises(FedAttnError):
        await victims.ask(LiesOut(change), min_participants=2)
    assert complaint in victims.said("terms_refused")
    assert not victims.said("contributed")


@each_lie
async def test_publisher_refuses_them_too(
    change: Callable[[Terms], object], complaint: str, victims: Victims
) -> None:
    with pytest.raises(TermsRefusedError) as caught:
        await victims.ask(LiesOut(change, to_publisher=True))
    assert complaint in str(caught.value)


async def test_members_that_were_shown_different_terms_cannot_read_each_other(
    victims: Victims,
) -> None:
    def sooner(terms: Terms) -> None:
        terms.deadline_s -= 1  # less than was asked for, so nobody need refuse it

    report = await victims.ask(LiesOut(sooner), min_participants=1)
    assert outcomes(report) == {"a": "LATE", "b": "LATE", PUBLISHER: "COMPLETE"}
    assert "is not what a signed" in reason(report, "a")


class AsksForMore(Tricks):
    """Changes what the publisher signed on its way to the contributors."""

    def told(self, node_id: str, response: pb.ControlResponse) -> Iterable[pb.ControlResponse]:
        if response.HasField("invite"):
            asked = session_pb2.SessionRequest.FromString(response.invite.request.payload)
            asked.publisher_sync_layers[:] = range(4)
            response.invite.request.payload = asked.SerializeToString()
        yield response


async def test_request_that_its_publisher_did_not_sign_is_declined(victims: Victims) -> None:
    complaint = "the request in the name of publisher is not what publisher"
    with pytest.raises(IdentityMismatchError, match=complaint):
        await victims.ask(AsksForMore())
    assert not victims.said("contributed")


class ShowsAgain(Tricks):
    """Invites with a request that was good for an earlier session."""

    def __init__(self) -> None:
        self.first: dict[str, session_pb2.Signed] = {}

    def told(self, node_id: str, response: pb.ControlResponse) -> Iterable[pb.ControlResponse]:
        if response.HasField("invite"):
            signed = response.invite.request
            copy = session_pb2.Signed.FromString(signed.SerializeToString())
            signed.CopyFrom(self.first.setdefault(node_id, copy))
        yield response


async def test_request_is_good_for_one_session(victims: Victims) -> None:
    tricks = ShowsAgain()
    await victims.ask(tricks)
    with pytest.raises(FedAttnError, match="a request is good for one session"):
        await victims.ask(tricks)


class KeepsWord(Tricks):
    """Shows what a contributor agreed to in an earlier session."""

    def __init__(self) -> None:
        self.first: session_pb2.Signed | None = None

    def opened(self, response: pb.OpenSessionResponse) -> pb.OpenSessionResponse:
        said = response.start.statements[0]
        self.first = self.first or session_pb2.Signed.FromString(said.SerializeToString())
        said.CopyFrom(self.first)
        return response


async def test_word_given_in_one_session_is_not_good_for_another(victims: Victims) -> None:
    tricks = KeepsWord()
    await victims.ask(tricks)
    with pytest.raises(TermsRefusedError, match="session of a: asked"):
        await victims.ask(tricks)
