"""Between wire messages and core values. Everything from the wire is checked here, once."""

import hashlib
import math
from collections.abc import Iterable

import numpy as np

from fedattn.core.chunks import Chunk
from fedattn.core.codecs import Codec, find_codec
from fedattn.core.compression import Compression
from fedattn.core.contexts import ContextSummary, SkipReason, WindowUse
from fedattn.core.costs import ModelSizes
from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import MAX_LAYERS, SyncPlan
from fedattn.core.sampling import SamplingParams
from fedattn.core.spans import Member, PrefixMode, Role, SessionLayout, Span
from fedattn.core.types import KvShape
from fedattn.wire.protocol import MAX_MEMBERS, check_node_id
from fedattn.wire.v1 import aggregator_pb2, participant_pb2, session_pb2

_ROLES = {
    Role.CONTRIBUTOR: session_pb2.ROLE_CONTRIBUTOR,
    Role.PUBLISHER: session_pb2.ROLE_PUBLISHER,
}
_PREFIX_MODES = {
    PrefixMode.PUBLIC: session_pb2.PREFIX_MODE_PUBLIC,
    PrefixMode.FIRST: session_pb2.PREFIX_MODE_FIRST,
}
_SKIP_REASONS = {
    reason: session_pb2.SkipReason.Value(f"SKIP_REASON_{reason.name}") for reason in SkipReason
}


def shape_to_wire(shape: KvShape) -> session_pb2.KvShape:
    return session_pb2.KvShape(
        num_layers=shape.num_layers, num_kv_heads=shape.num_kv_heads, head_dim=shape.head_dim
    )


def shape_from_wire(message: session_pb2.KvShape) -> KvShape:
    limits = {"num_layers": MAX_LAYERS, "num_kv_heads": 0xFFFF, "head_dim": 0xFFFF}
    for field, limit in limits.items():
        require_range(field, getattr(message, field), 1, limit)
    return KvShape(
        num_layers=message.num_layers,
        num_kv_heads=message.num_kv_heads,
        head_dim=message.head_dim,
    )


def plan_from_wire(layers: Iterable[int], num_layers: int) -> SyncPlan:
    plan = SyncPlan(tuple(layers))
    plan.check(num_layers)
    return plan


def codec_from_wire(codec_id: int) -> Codec:
    codec = find_codec(codec_id)
    if codec is None:
        raise InvalidRequestError(f"codec number {codec_id} is not known here; upgrade this node")
    return codec


def compression_to_wire(compression: Compression) -> session_pb2.Compression:
    return session_pb2.Compression(
        codec_id=compression.codec.codec_id,
        keep_ratio=compression.keep_ratio,
        selector=compression.selector,
        keep_ends=compression.keep_ends,
        input_keep_ratio=compression.input_keep_ratio,
        seed=compression.seed,
    )


def compression_from_wire(message: session_pb2.Compression) -> Compression:
    return Compression(
        codec=codec_from_wire(message.codec_id),
        keep_ratio=message.keep_ratio,
        selector=message.selector,
        keep_ends=message.keep_ends,
        input_keep_ratio=message.input_keep_ratio,
        seed=message.seed,
    )


def sizes_to_wire(sizes: ModelSizes) -> aggregator_pb2.ModelSizes:
    return aggregator_pb2.ModelSizes(
        hidden_size=sizes.hidden_size,
        num_query_heads=sizes.num_query_heads,
        intermediate_size=sizes.intermediate_size,
        vocab_size=sizes.vocab_size,
        weight_bytes=sizes.weight_bytes,
        bytes_per_scalar=sizes.bytes_per_scalar,
    )


def sizes_from_wire(message: aggregator_pb2.ModelSizes, shape: KvShape) -> ModelSizes:
    limit = 1 << 31
    for field in ("hidden_size", "num_query_heads", "intermediate_size", "vocab_size"):
        require_range(field, getattr(message, field), 1, limit)
    require_range("weight_bytes", message.weight_bytes, 1, 1 << 50)
    require_range("bytes_per_scalar", message.bytes_per_scalar, 1, 8)
    return ModelSizes(
        kv=shape,
        hidden_size=message.hidden_size,
        num_query_heads=message.num_query_heads,
        intermediate_size=message.intermediate_size,
        vocab_size=message.vocab_size,
        weight_bytes=message.weight_bytes,
        bytes_per_scalar=message.bytes_per_scalar,
    )


def layout_to_wire(layout: SessionLayout) -> list[session_pb2.Member]:
    """The members of a layout; the other fields are the caller's."""
    return [
        session_pb2.Member(
            node_id=member.node_id,
            role=role_to_wire(member.role),
            span_start=member.span.start,
            span_stop=member.span.stop,
            sync_layers=member.plan.layers,
            compression=compression_to_wire(member.compression),
            is_cached_by_owner=member.is_cached_by_owner,
            is_cached_by_publisher=member.is_cached_by_publisher,
            position_offset=member.position_offset,
        )
        for member in layout.members
    ]


def layout_from_wire(message: session_pb2.SessionLayout) -> SessionLayout:
    """Check and convert a session layout.

    Raises:
        InvalidRequestError: it contradicts itself.
        InvalidPlanError: a sync layer is out of range.
    """
    shape = shape_from_wire(message.shape)
    require_range("number of members", len(message.members), 1, MAX_MEMBERS)
    try:
        members = tuple(_member_from_wire(member) for member in message.members)
        return SessionLayout(
            num_layers=shape.num_layers, prefix_len=message.prefix_len, members=members
        )
    except ValueError as error:
        raise InvalidRequestError(f"session layout: {error}") from error


def _member_from_wire(message: session_pb2.Member) -> Member:
    roles = {wire: role for role, wire in _ROLES.items()}
    node_id = check_node_id(message.node_id)
    if message.role not in roles:
        raise InvalidRequestError(f"member {node_id!r} has no role")
    return Member(
        node_id=node_id,
        role=roles[message.role],
        span=Span(message.span_start, message.span_stop),
        plan=SyncPlan(tuple(message.sync_layers)),
        compression=compression_from_wire(message.compression),
        is_cached_by_owner=message.is_cached_by_owner,
        is_cached_by_publisher=message.is_cached_by_publisher,
        position_offset=message.position_offset,
    )


def role_to_wire(role: Role) -> "session_pb2.Role.ValueType":
    return _ROLES[role]


def prefix_mode_to_wire(mode: PrefixMode) -> "session_pb2.PrefixMode.ValueType":
    return _PREFIX_MODES[mode]


def prefix_mode_from_wire(mode: "session_pb2.PrefixMode.ValueType") -> PrefixMode:
    for core, wire in _PREFIX_MODES.items():
        if wire == mode:
            return core
    raise InvalidRequestError(f"prefix mode {mode} is not known here; use public or first")


def prefix_to_wire(mode: PrefixMode, token_ids: list[int]) -> session_pb2.PublicPrefix:
    digest = hashlib.sha256(np.asarray(token_ids, dtype="<i8").tobytes()).digest()
    return session_pb2.PublicPrefix(
        mode=_PREFIX_MODES[mode], num_tokens=len(token_ids), digest=digest
    )


def chunk_to_wire(chunk: Chunk, sender: int = 0) -> aggregator_pb2.KvChunk:
    return aggregator_pb2.KvChunk(
        sender=sender,
        layer=chunk.layer,
        offset=chunk.offset,
        frame_size=chunk.frame_size,
        data=chunk.data,
    )


def chunk_from_wire(message: aggregator_pb2.KvChunk) -> Chunk:
    return Chunk(
        layer=message.layer,
        offset=message.offset,
        frame_size=message.frame_size,
        data=message.data,
    )


def sampling_to_wire(sampling: SamplingParams) -> participant_pb2.Sampling:
    return participant_pb2.Sampling(
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        stop=sampling.stop,
    )


def sampling_from_wire(message: participant_pb2.Sampling) -> SamplingParams:
    return SamplingParams(
        max_new_tokens=message.max_new_tokens,
        temperature=message.temperature,
        top_p=message.top_p,
        top_k=message.top_k,
        seed=message.seed,
        stop=tuple(message.stop),
    )


def context_to_wire(summary: ContextSummary) -> session_pb2.ContextSummary:
    return session_pb2.ContextSummary(
        is_given=summary.is_given,
        num_tokens=summary.num_tokens,
        num_files=summary.num_files,
        skipped=[
            session_pb2.SkippedFiles(reason=_SKIP_REASONS[reason], count=count)
            for reason, count in summary.skipped
        ],
    )


def context_from_wire(message: session_pb2.ContextSummary) -> ContextSummary:
    require_range("tokens of a context", message.num_tokens, 0, 1 << 31)
    reasons = {wire: reason for reason, wire in _SKIP_REASONS.items()}
    counts = {skipped.reason: skipped.count for skipped in message.skipped}
    if len(counts) < len(message.skipped) or not counts.keys() <= reasons.keys():
        raise InvalidRequestError("skipped files: expected each known reason at most once")
    for count in counts.values():
        require_range("number of skipped files", count, 1, 1 << 31)
    return ContextSummary(
        is_given=message.is_given,
        num_tokens=message.num_tokens,
        num_files=message.num_files,
        skipped=tuple((reasons[reason], counts[reason]) for reason in reasons if reason in counts),
    )


def window_use_to_wire(use: WindowUse) -> aggregator_pb2.WindowUse:
    return aggregator_pb2.WindowUse(
        num_nodes=use.num_nodes, num_tokens=use.num_tokens, window=use.window
    )


def window_use_from_wire(message: aggregator_pb2.WindowUse) -> WindowUse:
    return WindowUse(
        num_nodes=message.num_nodes, num_tokens=message.num_tokens, window=message.window
    )


def require_range(name: str, value: float, low: float, high: float) -> None:
    """Raise InvalidRequestError unless low <= value <= high."""
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidRequestError(f"{name} must be between {low} and {high}, got {value}")
