"""Damage to a frame that knows how frames are built, so that it reaches what lies behind checks."""

import struct
import zlib
from collections.abc import Callable
from random import Random

from fedattn.core.frame_headers import HEADER_SIZE
from tests.fuzz.targets import Target, all_targets

_FIELDS = {"magic": (0, 4), "version": (4, 1), "codec": (5, 1), "encoding": (6, 1),
           "sealing": (7, 1), "layer": (8, 2), "heads": (10, 2), "head size": (12, 2),
           "reserved": (14, 2), "rows": (16, 4), "first position": (20, 4),
           "span length": (24, 4), "body size": (28, 4), "checksum": (32, 4)}  # fmt: skip
_ODD_BYTES = tuple(
    bytes.fromhex(text)
    for text in ("00", "ff", "7f", "80", "007c", "00fc", "007e", "807f", "80ff", "c07f", "ff7b",
                 "0000807f", "000080ff", "0000c07f", "ffff7f7f", "ffff7fff", "01000000")
)  # fmt: skip
Mutation = Callable[[Target, bytearray, Random], None]


def flip_bits(_: Target, frame: bytearray, random: Random) -> None:
    for _flip in range(random.randint(1, 8)):
        if frame:
            frame[random.randrange(len(frame))] ^= 1 << random.randrange(8)


def truncate(_: Target, frame: bytearray, random: Random) -> None:
    del frame[random.randint(0, len(frame)) :]


def extend(_: Target, frame: bytearray, random: Random) -> None:
    frame += random.randbytes(random.randint(1, 40))


def rewrite_field(_: Target, frame: bytearray, random: Random) -> None:
    offset, size = _FIELDS[random.choice(list(_FIELDS))]
    old = int.from_bytes(frame[offset : offset + size], "little")
    top = 256**size - 1
    new = random.choice((0, 1, old + 1, old - 1, top, top // 2 + 1, random.randint(0, top)))
    frame[offset : offset + size] = (new & top).to_bytes(size, "little")


def odd_bytes(_: Target, frame: bytearray, random: Random) -> None:
    """NaN, infinity, the largest and smallest numbers somewhere in the body."""
    odd = random.choice(_ODD_BYTES) * random.randint(1, 4)
    start = random.randint(HEADER_SIZE, max(HEADER_SIZE, len(frame)))
    frame[start : start + len(odd)] = odd


def random_body(_: Target, frame: bytearray, random: Random) -> None:
    frame[HEADER_SIZE:] = random.randbytes(max(0, len(frame) - HEADER_SIZE))


def random_bitmap(target: Target, frame: bytearray, random: Random) -> None:
    """As many bits as rows, or one more or less, anywhere in the bytes of the bitmaps."""
    size = target.rules.bitmaps_size
    count = max(0, target.rules.num_rows + random.choice((0, 0, -1, 1)))
    bits = 0
    for place in random.sample(range(8 * size), min(count, 8 * size)):
        bits |= 1 << place
    frame[HEADER_SIZE : HEADER_SIZE + size] = bits.to_bytes(size, "little")


def body_of_another(target: Target, frame: bytearray, random: Random) -> None:
    frame[HEADER_SIZE:] = random.choice(all_targets()).frame[HEADER_SIZE:]


def other_levels(target: Target, frame: bytearray, random: Random) -> None:
    """Steps and a well-formed DEFLATE stream of any number of levels, up to a bomb."""
    rules, heads = target.rules, sum(count > 0 for count in target.rules.counts)
    start = HEADER_SIZE + rules.bitmaps_size + rules.biases_size
    wanted = rules.shape.head_dim * (heads + 2 * rules.num_rows)
    count = random.choice((wanted, wanted, wanted - 1, wanted + 1, 0, 1 << 16, 1 << 22))
    step = random.choice((0.0, -1.0, 1.0, 1e-45, 9e29, -9e29, 1.1e30, 3.4e38, random.random()))
    steps = struct.pack("<f", step) * (3 * heads)
    level = random.choice((0, 127, 128, 255))
    deflater = zlib.compressobj(random.choice((0, 9)) if count <= wanted else 9, zlib.DEFLATED, -15)
    stream = deflater.compress(bytes([level]) * count)
    frame[start:] = steps + stream + deflater.flush()


MUTATIONS: dict[str, Mutation] = {
    "flip bits": flip_bits,
    "truncate": truncate,
    "extend": extend,
    "rewrite field": rewrite_field,
    "odd bytes": odd_bytes,
    "random body": random_body,
    "random bitmap": random_bitmap,
    "body of another": body_of_another,
    "other levels": other_levels,
}


def mutate(target: Target, random: Random) -> tuple[tuple[str, ...], bytes]:
    """One to three mutations; afterwards sizes and checksum are mostly made right again.

    Returns:
        Names of what was done, and the frame.
    """
    frame = bytearray(target.frame)
    names = tuple(random.choice(list(MUTATIONS)) for _ in range(random.choice((1, 1, 2, 3))))
    for name in names:
        MUTATIONS[name](target, frame, random)
    if len(frame) < HEADER_SIZE or random.random() < 0.2:
        return names, bytes(frame)
    if random.random() < 0.7:
        frame[28:32] = struct.pack("<I", len(frame) - HEADER_SIZE)
    frame[32:36] = struct.pack("<I", zlib.crc32(frame[HEADER_SIZE:], zlib.crc32(frame[:32])))
    return names, bytes(frame)
