"""Seals as the core knows them: bodies of frames and of pieces are sealed alike."""

from collections.abc import Callable

SEAL_SIZE = 16
"""Bytes that sealing adds to a body: the tag that shows any change."""

Seal = Callable[[int, bytes, bytes | bytearray | memoryview], bytes]
"""(nonce, authenticated header, body) -> the body, sealed or opened; a frame has its layer."""
