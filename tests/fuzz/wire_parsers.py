"""Every conversion of a message that a node, an aggregator or a publisher may have made up."""

import hashlib
import time
from functools import cache

from fedattn.core.agreement import MemberStatement, PassageSpan
from fedattn.core.budget import ByteBudget
from fedattn.core.chunks import Chunk
from fedattn.core.compression import Compression
from fedattn.core.contexts import ContextSummary, SkipReason
from fedattn.core.errors import FedAttnError
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.profile import CompressionWish
from fedattn.core.request import Kem, SessionOptions, SessionRequest, describe_prefix
from fedattn.core.sampling import SamplingParams
from fedattn.core.share import Hint, Share
from fedattn.core.spans import PrefixMode, build_layout
from fedattn.core.terms import SessionTerms
from fedattn.core.timeline import Activity, Slice
from fedattn.core.turns import Speaker, Turn
from fedattn.core.types import KvShape
from fedattn.wire import convert
from fedattn.wire.contexts import context_from_wire, context_to_wire
from fedattn.wire.exchange import read_request, write_chunk
from fedattn.wire.hints import open_hint, read_node_key, seal_hint, sign_node_key
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.protocol import PROTOCOL_VERSION
from fedattn.wire.requests import (
    KEY_SIZES,
    Opening,
    key_from_wire,
    opening_from_wire,
    opening_to_wire,
    request_from_wire,
    request_to_wire,
    statement_from_wire,
    statement_to_wire,
)
from fedattn.wire.sealing import KeyPair, seal
from fedattn.wire.session_options import options_to_wire
from fedattn.wire.terms import terms_from_wire, terms_to_wire
from fedattn.wire.timeline import timeline_from_wire, timeline_to_wire
from fedattn.wire.turns import turns_to_wire
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import participant_pb2, session_pb2
from gateway.report import event_from_wire, participant_from_wire, warm_from_wire
from services.aggregator.registry import NodeRegistry
from services.participant.query import query_from_wire
from services.participant.terms import RequestReader, read_statements
from tests.fuzz.parser import Parser, message_parser
from tests.harness.gateway import node_info, opened, result
from tests.harness.identities import certificates_of

_SHAPE = KvShape(num_layers=5, num_kv_heads=3, head_dim=8)
_PLANS = RolePlans(contributors=SyncPlan((1, 2)), publisher=SyncPlan((2, 4)))
_CONTEXT = ContextSummary(
    is_given=True, num_tokens=90, num_passages=3, num_files=2, skipped=((SkipReason.BLANK, 1),)
)
_KEYS = KeyPair()
_LEARNED = Compression(
    keep_ratio=0.5,
    selector="learned",
    head_shares=bytes([127] * _SHAPE.num_layers * _SHAPE.num_kv_heads),
)


@cache
def wire_parsers() -> tuple[Parser, ...]:
    """All of them."""
    return (*_of_sessions(), *_of_identities(), *_of_membership(), *_of_answers())


def _request() -> SessionRequest:
    return SessionRequest(
        node_id="a",
        span_len=64,
        prefix=describe_prefix(PrefixMode.PUBLIC, [1, 2]),
        plans=_PLANS,
        max_new_tokens=4,
        coarser=(_LEARNED,),
        options=SessionOptions(
            contributors=("b",),
            budget=ByteBudget(kv_bytes=10_000),
            share=Share.QUESTION,
        ),
        key=_KEYS.public,
        hint_digest=_hint().digest,
        issued_at_s=time.time(),
    )


def _statement() -> MemberStatement:
    return MemberStatement(
        session_id="s",
        request_digest=hashlib.sha256(b"").digest(),
        node_id="b",
        span_len=64,
        max_keep_ratio=0.5,
        can_score=True,
        key=_KEYS.public,
        passages=(PassageSpan(7, 30), PassageSpan(9, 30)),
        fit=0.5,
    )


@cache
def _hint() -> Hint:
    return Hint.of("Which pump is hot?")


def _terms() -> SessionTerms:
    layout = build_layout(
        num_layers=_SHAPE.num_layers,
        prefix_len=2,
        contributors=[("b", 3), ("c", 4)],
        publisher=("a", 5),
        plans=_PLANS,
        compression=_LEARNED,
        is_sealed=True,
    )
    return SessionTerms(
        session_id="s",
        layout=layout,
        shape=_SHAPE,
        deadline_s=60.0,
        progress_timeout_s=5.0,
        min_participants=2,
        wants_timeline=True,
    )


def _of_sessions() -> tuple[Parser, ...]:
    payload = request_to_wire(_request()).SerializeToString()
    signed = session_pb2.Signed(payload=payload)
    opening = Opening(
        signed=signed,
        request=_request(),
        node_token="t",
        cached_keys=frozenset({bytes(32)}),
        context=_CONTEXT,
        hints={"b": seal_hint(_hint(), None, "a")},
    )
    query = participant_pb2.QueryRequest(
        question="Why?",
        plan="auto",
        compression=convert.wish_to_wire(CompressionWish(keep_ratio=0.5, selector="recency")),
        publisher_plan="1-3",
        sampling=convert.sampling_to_wire(SamplingParams(stop=("\n",))),
        options=options_to_wire(_request().options),
        turns=turns_to_wire([Turn(speaker=Speaker.ASSISTANT, text="Who?")]),
    )
    slices = timeline_to_wire(
        [Slice(activity=Activity.COMPUTE, layer=1, begin_s=0.5, duration_s=0.25)]
    )
    return (
        message_parser("terms", terms_from_wire, terms_to_wire(_terms())),
        message_parser(
            "session request",
            lambda message: request_from_wire(message.SerializeToString()),
            request_to_wire(_request()),
        ),
        message_parser(
            "statement",
            lambda message: statement_from_wire(message.SerializeToString()),
            statement_to_wire(_statement()),
        ),
        message_parser("opening", opening_from_wire, opening_to_wire(opening)),
        message_parser("query", lambda message: query_from_wire(message, 5, None), query),
        message_parser("context", context_from_wire, context_to_wire(_CONTEXT)),
        message_parser(
            "timeline",
            lambda message: timeline_from_wire(message.timeline, _SHAPE.num_layers),
            pb.MemberDone(wait_s=1.0, compute_s=2.0, timeline=slices),
        ),
        Parser(
            name="chunk",
            read=read_request,
            seeds=(
                write_chunk(Chunk(layer=1, offset=0, frame_size=9, data=b"row"), 0),
                write_chunk(Chunk(layer=2, offset=900, frame_size=1 << 20, data=b"rows"), 3),
            ),
        ),
    )


def _of_identities() -> tuple[Parser, ...]:
    a, b = Identity(certificates_of("a")), Identity(certificates_of("b"))
    request = _request()
    payload = request_to_wire(request).SerializeToString()
    statement = b.sign(Kind.STATEMENT, statement_to_wire(_statement()).SerializeToString())
    info = b"fedattn hint\0" + request.hint_digest + b"\0a"
    return (
        message_parser(
            "signed request",
            lambda signed: RequestReader(b, lambda: request.issued_at_s).read(signed),
            a.sign(Kind.REQUEST, payload),
        ),
        message_parser("signed statement", lambda one: read_statements([one], a, None), statement),
        message_parser(
            "node key", lambda signed: read_node_key(signed, "b", a), sign_node_key("b", _KEYS, b)
        ),
        Parser(
            name="hint",
            read=lambda data: open_hint(data, None, request),
            seeds=(seal_hint(_hint(), None, "a"),),
        ),
        Parser(
            name="sealed hint",
            read=lambda data: open_hint(data, _KEYS, request),
            seeds=(seal_hint(_hint(), _KEYS.public, "a"),),
        ),
        Parser(
            name="content key",
            read=lambda data: _KEYS.open(data, info),
            seeds=(seal(bytes(32), _KEYS.public, info),),
        ),
        Parser(
            name="public key",
            read=_seal_to,
            seeds=(_KEYS.public.data, _KEYS.public.data[-32:]),
            refusals=(FedAttnError, ValueError),
        ),
    )


def _seal_to(data: bytes) -> None:
    """As `_seal` in services/participant/disclosure.py: no key of that size is no point."""
    is_classical = len(data) == KEY_SIZES[Kem.X25519]
    kem = session_pb2.KEM_X25519 if is_classical else session_pb2.KEM_MLKEM768_X25519
    seal_hint(_hint(), key_from_wire(session_pb2.PublicKey(kem=kem, data=data)), "a")


def _of_membership() -> tuple[Parser, ...]:
    join = pb.Join(
        protocol_version=PROTOCOL_VERSION,
        node_id="b",
        model_fingerprint="0f" * 32,
        capabilities=pb.Capabilities(
            shape=convert.shape_to_wire(_SHAPE), max_positions=512, codec_ids=[1], model_name="m"
        ),
        context=context_to_wire(_CONTEXT),
    )

    def beat(message: pb.Heartbeat) -> None:
        NodeRegistry(4).join(join).on_heartbeat(message)

    return (
        message_parser("join", lambda message: NodeRegistry(4).join(message), join),
        message_parser(
            "heartbeat",
            beat,
            pb.Heartbeat(
                health=pb.Health(pressure=pb.PRESSURE_NONE, memory_free=0.5),
                context=context_to_wire(_CONTEXT),
            ),
        ),
    )


def _of_answers() -> tuple[Parser, ...]:
    """What the gateway makes of a publisher's words: documents that can be written as JSON."""
    events = (
        opened(),
        participant_pb2.QueryEvent(result=result()),
        participant_pb2.QueryEvent(token=participant_pb2.TokenText(text="x")),
        participant_pb2.QueryEvent(layer=participant_pb2.LayerProgress(layer=1)),
    )
    return (
        message_parser(
            "query event",
            lambda event: event_from_wire(event).model_dump_json(),
            *events,
            bytes_a_byte=256,
        ),
        message_parser(
            "node info",
            lambda node: participant_from_wire(node, can_publish=True).model_dump_json(),
            node_info("b"),
            bytes_a_byte=256,
        ),
        message_parser(
            "warm answer",
            lambda response: warm_from_wire(response).model_dump_json(),
            participant_pb2.WarmResponse(report=result().report),
            bytes_a_byte=256,
        ),
    )
