"""The key that services of one kind share: NATS keeps what they write, and reads none of it."""

import re
import zlib
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedattn.core.errors import ConfigurationError, CorruptFrameError
from fedattn.runtime.state import failing_in_one_line, replace_file

SHARED_KEY_FILE = "shared.key"
"""In the folder of certificates, if it is given no other place."""
MAX_CONTENT_SIZE = 16 << 20
"""Bytes of one value in the clear."""
_KEY = re.compile(r"[0-9a-f]{64}")
_NONCE_SIZE = 12


class SharedKey:
    """Seals values with AES-256-GCM, each bound to the place it is written to, and names places.

    Args:
        secret: 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(_derive(secret, b"fedattn gateways: values"))
        self._names = _derive(secret, b"fedattn gateways: names")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The key in a file of 64 hexadecimal digits.

        Raises:
            ConfigurationError: there is no such file, or it holds something else.
        """
        with failing_in_one_line("shared key", path, "let this user read it"):
            try:
                text = path.read_text(encoding="ascii", errors="replace").strip()
            except FileNotFoundError:
                raise ConfigurationError(
                    f"shared key {path}: no such file; make one with: openssl rand -hex 32, and "
                    f"give the same to all gateways with --shared-key"
                ) from None
        if not _KEY.fullmatch(text):
            raise ConfigurationError(
                f"shared key {path}: expected 64 hexadecimal digits, as openssl rand -hex 32 "
                f"prints them, got {len(text)} other characters"
            )
        return cls(bytes.fromhex(text))

    def name(self, text: str) -> str:
        """What a thing is called in NATS: the same for all who have the key, and no more."""
        digest = HMAC(self._names, SHA256())
        digest.update(text.encode())
        return digest.finalize()[:16].hex()

    def seal(self, place: str, content: bytes) -> bytes:
        """A value for a place, which cannot be read or moved by who lacks the key."""
        nonce = token_bytes(_NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, zlib.compress(content, 1), place.encode())

    def open(self, place: str, sealed: bytes) -> bytes:
        """The value in the clear.

        Raises:
            CorruptFrameError: it was not sealed with this key for this place.
        """
        try:
            nonce, body = sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:]
            packed = self._cipher.decrypt(nonce, body, place.encode())
            unpacking = zlib.decompressobj()
            content = unpacking.decompress(packed, MAX_CONTENT_SIZE)
        except (InvalidTag, ValueError, zlib.error):
            raise CorruptFrameError(
                f"{place[:80]}: not sealed with the key of these gateways; give all the same key"
            ) from None
        if unpacking.unconsumed_tail:
            raise CorruptFrameError(
                f"{place[:80]}: longer than {MAX_CONTENT_SIZE} bytes, the limit"
            )
        return content


def make_shared_key(path: Path) -> None:
    """Write a new key for its owner alone."""
    replace_file(path, f"{token_hex(32)}\n".encode())


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, None, purpose).derive(secret)
