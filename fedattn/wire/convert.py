"""Between wire messages and core values. Everything from the wire is checked here, once."""

import math
from dataclasses import fields

from fedattn.core.codecs import Codec, find_codec
from fedattn.core.compression import SELECTION_FIELDS, SETTINGS_FIELDS, Compression
from fedattn.core.costs import ModelSizes
from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import MAX_LAYERS
from fedattn.core.profile import CompressionWish
from fedattn.core.sampling import NO_REPETITION_PENALTY, SamplingParams
from fedattn.core.types import KvShape
from fedattn.wire.v1 import aggregator_pb2, participant_pb2, session_pb2

MAX_HEAD_SHARES = 1 << 16


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


def codec_from_wire(codec_id: int) -> Codec:
    codec = find_codec(codec_id)
    if codec is None:
        raise InvalidRequestError(f"codec number {codec_id} is not known here; upgrade this node")
    return codec


def compression_to_wire(compression: Compression) -> session_pb2.Compression:
    return session_pb2.Compression(
        codec_id=compression.codec.codec_id,
        head_shares=compression.head_shares,
        least_rows=compression.least_rows,
        **compression.selection,
    )


def compression_from_wire(message: session_pb2.Compression) -> Compression:
    require_range("number of head_shares", len(message.head_shares), 0, MAX_HEAD_SHARES)
    selection = {name: getattr(message, name) for name in SELECTION_FIELDS}
    return Compression(
        codec=codec_from_wire(message.codec_id),
        head_shares=message.head_shares,
        least_rows=message.least_rows,
        **selection,
    )


def wish_to_wire(wish: CompressionWish) -> session_pb2.CompressionWish:
    settings = {name: getattr(wish.settings, name) for name in SETTINGS_FIELDS}
    return session_pb2.CompressionWish(
        codec_id=None if wish.codec is None else wish.codec.codec_id,
        keep_ratio=wish.keep_ratio,
        selector=wish.selector,
        **settings,
    )


def wish_from_wire(message: session_pb2.CompressionWish) -> CompressionWish:
    settings = {name: getattr(message, name) for name in SETTINGS_FIELDS}
    return CompressionWish(
        codec=codec_from_wire(message.codec_id) if message.HasField("codec_id") else None,
        keep_ratio=message.keep_ratio if message.HasField("keep_ratio") else None,
        selector=message.selector if message.HasField("selector") else None,
        settings=Compression(**settings),
    )


def sizes_to_wire(sizes: ModelSizes) -> aggregator_pb2.ModelSizes:
    return aggregator_pb2.ModelSizes(
        hidden_size=sizes.hidden_size,
        num_query_heads=sizes.num_query_heads,
        intermediate_size=sizes.intermediate_size,
        vocab_size=sizes.vocab_size,
        weight_bytes=sizes.weight_bytes,
        bytes_per_scalar=sizes.bytes_per_scalar,
        windows=[window or 0 for window in sizes.windows],
    )


def sizes_from_wire(message: aggregator_pb2.ModelSizes, shape: KvShape) -> ModelSizes:
    limit = 1 << 31
    for field in ("hidden_size", "num_query_heads", "intermediate_size", "vocab_size"):
        require_range(field, getattr(message, field), 1, limit)
    require_range("weight_bytes", message.weight_bytes, 1, 1 << 50)
    require_range("bytes_per_scalar", message.bytes_per_scalar, 1, 8)
    if message.windows:
        require_range("number of windows", len(message.windows), shape.num_layers, shape.num_layers)
    for window in message.windows:
        require_range("window", window, 0, limit)
    return ModelSizes(
        kv=shape,
        hidden_size=message.hidden_size,
        num_query_heads=message.num_query_heads,
        intermediate_size=message.intermediate_size,
        vocab_size=message.vocab_size,
        weight_bytes=message.weight_bytes,
        bytes_per_scalar=message.bytes_per_scalar,
        windows=tuple(window or None for window in message.windows),
    )


def sampling_to_wire(sampling: SamplingParams) -> participant_pb2.Sampling:
    params = {entry.name: getattr(sampling, entry.name) for entry in fields(sampling)}
    return participant_pb2.Sampling(**params)


def sampling_from_wire(message: participant_pb2.Sampling) -> SamplingParams:
    params = {entry.name: getattr(message, entry.name) for entry in fields(SamplingParams)}
    params["stop"] = tuple(message.stop)
    params["repetition_penalty"] = message.repetition_penalty or NO_REPETITION_PENALTY
    return SamplingParams(**params)


def require_range(name: str, value: float, low: float, high: float) -> None:
    """Raise InvalidRequestError unless low <= value <= high."""
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidRequestError(f"{name} must be between {low} and {high}, got {value}")
