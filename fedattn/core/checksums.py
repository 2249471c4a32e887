"""The checksum of what travels in the clear: it shows that bytes changed on their way."""

import zlib


def checksum_of(*parts: bytes | bytearray | memoryview) -> int:
    """CRC-32 of the parts as if they stood one behind the other."""
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return checksum
