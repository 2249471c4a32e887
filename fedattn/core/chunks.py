"""Cutting frames into chunks for the stream, and putting them together again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedattn.core.errors import MalformedFrameError
from fedattn.core.frame_headers import (
    HEADER_SIZE,
    FrameHeader,
    FrameSpec,
    check_header,
    parse_header,
)
from fedattn.core.frames import ReceivedFrame

MAX_CHUNK_SIZE = (1 << 20) - 1024
"""Bytes of frame in one message; the rest of 1 MiB is left to the message around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of one frame.

    Attributes:
        layer: zero-based layer of the frame.
        offset: place of `data` in the frame, bytes.
        frame_size: bytes of the whole frame.
        data: at most MAX_CHUNK_SIZE bytes.
    """

    layer: int
    offset: int
    frame_size: int
    data: bytes | memoryview


def split_frame(frame: bytes, layer: int) -> Iterator[Chunk]:
    """Cut a frame into chunks in order; their data lie in it."""
    view = memoryview(frame)
    for offset in range(0, len(frame), MAX_CHUNK_SIZE):
        data = view[offset : offset + MAX_CHUNK_SIZE]
        yield Chunk(layer=layer, offset=offset, frame_size=len(frame), data=data)


class FrameValidator:
    """Checks the chunks of one sender as they pass, holding no more than a header.

    It looks at order, sizes and header; who reads the rows holds them against seal or checksum.
    Frames of one sender come one after the other, each layer at most once.

    Args:
        specs: what the frame of each awaited layer must look like.
    """

    def __init__(self, specs: Mapping[int, FrameSpec]) -> None:
        self._awaited = dict(specs)
        self._sender = next((spec.sender for spec in specs.values()), "a node that sends no rows")
        self._header: FrameHeader | None = None
        self._offset = 0

    @property
    def awaited_layers(self) -> frozenset[int]:
        """Layers whose frame has not yet come completely."""
        return frozenset(self._awaited)

    def accept(self, chunk: Chunk) -> FrameHeader | None:
        """Check the next chunk.

        Returns:
            The header of the frame that it completes; None if more is to come.

        Raises:
            MalformedFrameError: out of order, too large, of a layer not awaited, or not fitting.
        """
        sender = self._sender
        if not 0 < len(chunk.data) <= MAX_CHUNK_SIZE:
            raise MalformedFrameError(
                f"chunk from {sender}: expected 1 to {MAX_CHUNK_SIZE} bytes, got {len(chunk.data)}"
            )
        if chunk.offset != self._offset or (self._header and self._header.layer != chunk.layer):
            raise MalformedFrameError(
                f"chunk from {sender} at layer {chunk.layer}: expected offset {self._offset}, "
                f"got {chunk.offset}; chunks of a frame come in order, frames one by one"
            )
        if self._header is None:
            self._begin(chunk)
        return self._continue(chunk)

    def _begin(self, chunk: Chunk) -> None:
        sender = self._sender
        header = parse_header(chunk.data, sender)
        if header.layer not in self._awaited:
            raise MalformedFrameError(
                f"frame from {sender}: layer {header.layer} is not awaited "
                f"(sent twice, or nobody synchronises there)"
            )
        check_header(header, self._awaited[header.layer])
        if header.layer != chunk.layer or header.frame_size != chunk.frame_size:
            raise MalformedFrameError(
                f"chunk from {sender}: says layer {chunk.layer} and {chunk.frame_size} bytes, "
                f"its frame says layer {header.layer} and {header.frame_size} bytes"
            )
        self._header = header

    def _continue(self, chunk: Chunk) -> FrameHeader | None:
        assert self._header is not None
        self._offset += len(chunk.data)
        if self._offset > self._header.frame_size or chunk.frame_size != self._header.frame_size:
            raise MalformedFrameError(
                f"frame from {self._sender} at layer {chunk.layer}: expected "
                f"{self._header.frame_size} bytes, got more"
            )
        if self._offset < self._header.frame_size:
            return None
        header = self._header
        del self._awaited[chunk.layer]
        self._header, self._offset = None, 0
        return header


class FrameAssembler:
    """Collects the checked chunks of one sender into whole frames; made as `FrameValidator`."""

    def __init__(self, specs: Mapping[int, FrameSpec]) -> None:
        self._validator = FrameValidator(specs)
        self._body = bytearray()

    @property
    def awaited_layers(self) -> frozenset[int]:
        return self._validator.awaited_layers

    def add(self, chunk: Chunk) -> ReceivedFrame | None:
        """Take the next chunk; returns the frame once it is complete.

        A frame of one chunk is not copied: its body lies in the chunk.

        Raises:
            MalformedFrameError: as `FrameValidator.accept`.
        """
        header = self._validator.accept(chunk)
        data = memoryview(chunk.data)[HEADER_SIZE if chunk.offset == 0 else 0 :]
        if header is not None and chunk.offset == 0:
            return ReceivedFrame(header, data)
        self._body += data
        if header is None:
            return None
        body, self._body = self._body, bytearray()
        return ReceivedFrame(header, body)
