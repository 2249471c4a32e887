"""What must hold of every frame, however hostile; anything else is a violation."""

from dataclasses import replace
from enum import Enum
from itertools import pairwise
from random import Random

import numpy as np

from fedattn.core.chunks import Chunk, FrameAssembler, FrameValidator
from fedattn.core.errors import FrameError
from fedattn.core.frame_headers import HEADER_SIZE, max_frame_size
from fedattn.core.frames import ReceivedFrame, decode_frame
from fedattn.core.types import HeadRows
from tests.fuzz.memory import peak_bytes
from tests.fuzz.targets import SENDER, Target

_AWAITED = range(4)
_SLACK_BYTES = 96 << 10
"""Python's own objects, messages, and zlib's first buffer."""


class Outcome(Enum):
    """The two ways a frame may end."""

    ROWS = "rows"
    REFUSED = "refused"


class ViolationError(AssertionError):
    """A frame was neither read as valid rows nor refused as a frame error of its sender."""


def check_decoding(target: Target, frame: bytes) -> Outcome:
    """Decode; the peak of memory must be bounded by what came and what was agreed.

    Raises:
        ViolationError: any other outcome than valid rows or a frame error.
    """
    outcomes: set[Outcome] = set()
    limit = _SLACK_BYTES + 2 * len(frame) + 8 * target.decoded_size
    peak = peak_bytes(lambda: outcomes.add(_decode(target, frame)))
    if peak > limit:
        peak = peak_bytes(lambda: outcomes.add(_decode(target, frame)), tries=3)
    _require(peak <= limit, f"took {peak} bytes, expected at most {limit}")
    _require(len(outcomes) == 1, "one frame, two outcomes")
    return outcomes.pop()


def _decode(target: Target, frame: bytes) -> Outcome:
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            rows = decode_frame(frame, target.rules, target.rotary)
    except FrameError as error:
        _require(SENDER in str(error), f"{error!r} does not name the sender")
        _require(len(str(error)) < 500, f"message of {len(str(error))} characters")
        return Outcome.REFUSED
    except Exception as error:
        raise ViolationError(f"decoding raised {error!r}") from error
    _check_rows(target, rows)
    return Outcome.ROWS


def _check_rows(target: Target, rows: HeadRows) -> None:
    span = target.rules.span
    expected = (target.rules.num_rows, target.rules.shape.head_dim)
    for scalars in (rows.keys, rows.values):
        _require(scalars.shape == expected, f"shape {scalars.shape}, expected {expected}")
        _require(scalars.dtype == np.float32, f"type {scalars.dtype}")
        _require(bool(np.isfinite(scalars).all()), "NaN or infinity among the rows")
    _require(rows.counts == target.rules.counts, f"heads have {rows.counts} rows")
    for head in rows.heads:
        _require(bool((np.diff(rows.positions[head]) > 0).all()), "positions do not increase")
    if rows.biases is not None:
        _require(float(np.abs(rows.biases).max()) < 8, f"biases {rows.biases}")
    inside = span.start <= rows.positions.min() and rows.positions.max() < span.stop
    _require(bool(inside), f"positions outside {span}: {rows.positions}")


def check_chunks(target: Target, frame: bytes, random: Random) -> Outcome:
    """Send the frame in chunks, once honestly and once with a lie.

    Returns:
        ROWS if the frame came through whole, which needs a header and checksum that are right.

    Raises:
        ViolationError: guard and assembler disagree, or chunks decide otherwise than decoding.
    """
    chunks = _cut(frame, random)
    assembled = _deliver(target, chunks)
    _require(assembled in {None, frame}, "the frame put together is another one")
    if assembled is None:
        _require(_decode(target, frame) is Outcome.REFUSED, "chunks refused what decodes")
    _lie(chunks, random)
    _deliver(target, chunks)
    return Outcome.REFUSED if assembled is None else Outcome.ROWS


def _deliver(target: Target, chunks: list[Chunk]) -> bytes | None:
    """The frame, if it came through guard and assembler."""
    specs = dict.fromkeys(_AWAITED, target.rules)
    guard, assembler = FrameValidator(specs), FrameAssembler(specs)
    largest, held = max_frame_size(target.rules), 0
    for chunk in chunks:
        assembled, refused = _offer(guard, assembler, chunk)
        if refused:
            return None
        if assembled is not None:
            _require(chunk.layer not in guard.awaited_layers, "whole, but still awaited")
            header = b"".join(piece.data for piece in chunks)[:HEADER_SIZE]
            return header + bytes(assembled.body)
        held += len(chunk.data)
        _require(held <= largest, f"holds {held} bytes of a frame of at most {largest}")
    return None


def _offer(
    guard: FrameValidator, assembler: FrameAssembler, chunk: Chunk
) -> tuple[ReceivedFrame | None, bool]:
    """The frame if it is whole, and whether the chunk was refused."""
    refusals: list[str] = []
    assembled: ReceivedFrame | None = None
    for takes in (guard, assembler):
        try:
            if isinstance(takes, FrameAssembler):
                assembled = takes.add(chunk)
            else:
                takes.accept(chunk)
        except FrameError as error:
            _require(SENDER in str(error), f"{error!r} does not name the sender")
            refusals.append(str(error))
        except Exception as error:
            raise ViolationError(f"a chunk raised {error!r}") from error
    _require(len(set(refusals)) < 2, f"guard and assembler differ: {refusals}")
    _require(len(refusals) in {0, 2}, f"only one of guard and assembler refused: {refusals}")
    _require(guard.awaited_layers == assembler.awaited_layers, "they await different layers")
    return assembled, bool(refusals)


def _cut(frame: bytes, random: Random) -> list[Chunk]:
    """Pieces of any size, the header in the first; the layer is the one the header names."""
    cuts = {random.randint(HEADER_SIZE, max(HEADER_SIZE, len(frame))) for _ in range(3)}
    edges = [0, *sorted(cut for cut in cuts if cut < len(frame)), len(frame)]
    layer = int.from_bytes(frame[8:10], "little")
    return [
        Chunk(layer=layer, offset=start, frame_size=len(frame), data=frame[start:stop])
        for start, stop in pairwise(edges)
    ]


def _lie(chunks: list[Chunk], random: Random) -> None:
    """Change one field of one chunk, or send a chunk twice."""
    place = random.randrange(len(chunks))
    chunk = chunks[place]
    near = random.choice((-1, 1, 100, 1 << 31))
    lies = (
        replace(chunk, layer=random.choice((0, 1, 3, 1 << 32))),
        replace(chunk, offset=max(0, chunk.offset + near)),
        replace(chunk, frame_size=max(0, chunk.frame_size + near)),
        replace(chunk, data=bytes(chunk.data) + b"\0"),
        replace(chunk, data=b""),
        chunk,
    )
    chunks.insert(place, chunk)
    lie = random.choice(lies)
    chunks[place : place + random.choice((1, 2))] = [lie]


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise ViolationError(complaint)
