"""Damage to any bytes, as a link, a disk or somebody with intent does it."""

from collections.abc import Callable, Sequence
from random import Random

Damage = Callable[[bytearray, "Material", Random], None]

_NUMBERS = (
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"9" * 5000,
    b"4294967296",
    b"0.1",
    b"18446744073709551616",
)
_TEXTS = (
    "\ud800",
    "\x00",
    "\ufeff",
    "\u2028",
    "\u202e",
    "%s",
    "\\u0000",
    "\\ud800",
    "\r",
    "é",
)
_ODD = (
    *_NUMBERS,
    *(text.encode("utf-8", "surrogatepass") for text in _TEXTS),
    *(b"\xff\xfe", b"\xfe\xff", b"\xff" * 8, b"\x80" * 10, b"\x00" * 64, b"\n" * 100),
)


class Material:
    """What damage is made of: valid inputs of a parser, and words that mean something to it."""

    def __init__(self, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
        self.seeds = seeds
        self.words = (*words, *_ODD)


def flip_bits(data: bytearray, _: Material, random: Random) -> None:
    for _flip in range(random.randint(1, 8)):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def truncate(data: bytearray, _: Material, random: Random) -> None:
    del data[random.randint(0, len(data)) :]


def cut_out(data: bytearray, _: Material, random: Random) -> None:
    start = random.randint(0, len(data))
    del data[start : start + random.randint(1, 60)]


def repeat(data: bytearray, _: Material, random: Random) -> None:
    """A piece many times over, as deep nesting and long lists are."""
    start = random.randint(0, len(data))
    piece = bytes(data[start : start + random.choice((1, 2, 5, 40))])
    data[start:start] = piece * random.choice((2, 50, 3000))


def insert_word(data: bytearray, material: Material, random: Random) -> None:
    place = random.randint(0, len(data))
    data[place:place] = random.choice(material.words) * random.choice((1, 1, 1, 2, 3000))


def overwrite_word(data: bytearray, material: Material, random: Random) -> None:
    word = random.choice(material.words)
    place = random.randint(0, len(data))
    data[place : place + random.choice((1, len(word)))] = word


def splice(data: bytearray, material: Material, random: Random) -> None:
    other = random.choice(material.seeds)
    start = random.randint(0, len(other))
    data[random.randint(0, len(data)) :] = other[start:]


def noise(data: bytearray, _: Material, random: Random) -> None:
    start = random.randint(0, len(data))
    size = random.randint(1, 60)
    data[start : start + size] = random.randbytes(size)


DAMAGES: dict[str, Damage] = {
    "flip bits": flip_bits,
    "truncate": truncate,
    "cut out": cut_out,
    "repeat": repeat,
    "insert word": insert_word,
    "overwrite word": overwrite_word,
    "splice": splice,
    "noise": noise,
}
MAX_SIZE = 1 << 14
"""Bytes of a damaged input; more would only be slower."""


def damage(seed: bytes, material: Material, random: Random) -> bytes:
    """One to four kinds of damage, one after the other."""
    data = bytearray(seed)
    for _ in range(random.choice((1, 1, 2, 3, 4))):
        random.choice(list(DAMAGES.values()))(data, material, random)
    return bytes(data[:MAX_SIZE])
