"""Codecs: how KV rows are written. `docs/compression.md` says which to choose when.

To add one: give it a new `CodecId`, implement `Codec` in a file of its own, list it in `CODECS`;
the property, golden-frame and parity tests pick it up from there.
"""

from fedattn.core.codecs.codec import Codec, CodecId, VectorCodec
from fedattn.core.codecs.entropy import EntropyCodec
from fedattn.core.codecs.int4 import Int4Codec
from fedattn.core.codecs.int8 import Int8Codec
from fedattn.core.codecs.raw import RAW_CODECS
from fedattn.core.errors import InvalidRequestError

__all__ = [
    "AUTO_CODEC",
    "CODECS",
    "CODEC_LADDER",
    "CODEC_NAMES",
    "DEFAULT_CODEC",
    "VECTOR_CODECS",
    "Codec",
    "CodecId",
    "VectorCodec",
    "codec_by_name",
    "find_codec",
]  # fmt: skip

CODECS: tuple[Codec, ...] = (
    *RAW_CODECS,
    Int8Codec(),
    Int4Codec(),
    EntropyCodec("entropy-finest", CodecId.ENTROPY_FINEST, key_scale=0.15, value_scale=0.35),
    EntropyCodec("entropy-fine", CodecId.ENTROPY_FINE, key_scale=0.3, value_scale=0.7),
    EntropyCodec("entropy-medium", CodecId.ENTROPY_MEDIUM, key_scale=0.5, value_scale=1.1),
    EntropyCodec("entropy-coarse", CodecId.ENTROPY_COARSE, key_scale=0.8, value_scale=1.5),
)
VECTOR_CODECS: tuple[VectorCodec, ...] = (*RAW_CODECS, Int8Codec())
"""For queries, and what is made of rows that stay where they are."""
DEFAULT_CODEC = "auto"
AUTO_CODEC = "entropy-finest"
"""What `auto` stands for: the best quality for its bytes, by measurement (docs/compression.md)."""
CODEC_LADDER = ("entropy-finest", "entropy-fine", "entropy-medium", "entropy-coarse")
"""From best quality to fewest bytes: what a byte budget goes down."""
CODEC_NAMES: tuple[str, ...] = (DEFAULT_CODEC, *(codec.name for codec in CODECS))

_BY_ID: dict[int, Codec] = {codec.codec_id: codec for codec in CODECS}
_BY_NAME = {codec.name: codec for codec in CODECS}
_BY_NAME[DEFAULT_CODEC] = _BY_NAME[AUTO_CODEC]


def codec_by_name(name: str) -> Codec:
    """The codec a user named.

    Raises:
        InvalidRequestError: there is none of that name.
    """
    if name not in _BY_NAME:
        raise InvalidRequestError(
            f"unknown codec {name[:40]!r}; choose one of {', '.join(CODEC_NAMES)}"
        )
    return _BY_NAME[name]


def find_codec(codec_id: int) -> Codec | None:
    """The codec with that number on the wire, or None."""
    return _BY_ID.get(codec_id)
