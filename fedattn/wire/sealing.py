"""Sealing rows for those alone who need them, whoever carries them.

A sender draws a content key, encrypts each of its frames with it once (AES-256-GCM), and seals the
content key to each receiver's public key (HPKE, RFC 9180, single shot). Frames that are sent again
in a later session stay as they are: a new receiver is one more sealed key.
"""

import secrets
from contextlib import suppress

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from fedattn.core.errors import CorruptFrameError
from fedattn.core.request import Kem, PublicKey

CONTENT_KEY_SIZE = 32
_NONCE_SIZE = 12
_MLKEM_SIZE = 1184
_SUITES = {kem: Suite(getattr(KEM, kem.name), KDF.HKDF_SHA256, AEAD.AES_256_GCM) for kem in Kem}


class ContentKey:
    """Encrypts the frames of one sender, each layer's once: the layer is the nonce.

    Args:
        secret: 32 bytes; drawn if not given.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self.secret = secret or secrets.token_bytes(CONTENT_KEY_SIZE)
        self._cipher = AESGCM(self.secret)
        self._sealed: set[int] = set()

    def seal(self, layer: int, header: bytes, body: bytes | bytearray | memoryview) -> bytes:
        """The body of a layer's frame, encrypted and bound to its header.

        Raises:
            ValueError: this key has sealed that layer already; the same nonce twice gives both
                texts away.
        """
        if layer in self._sealed:
            raise ValueError(f"layer {layer} has been sealed with this key already")
        self._sealed.add(layer)
        return self._cipher.encrypt(_nonce(layer), body, header)

    def open(self, layer: int, header: bytes, body: bytes | bytearray | memoryview) -> bytes:
        """The body of a layer's frame in the clear.

        Raises:
            CorruptFrameError: this key did not seal it, or not under this header.
        """
        try:
            return self._cipher.decrypt(_nonce(layer), body, header)
        except InvalidTag:
            raise CorruptFrameError("it is not what its sender sealed") from None


def _nonce(layer: int) -> bytes:
    return layer.to_bytes(_NONCE_SIZE, "big")


class KeyPair:
    """What one member of one session is sent keys with. Forgotten with the session."""

    def __init__(self) -> None:
        classical = x25519.X25519PrivateKey.generate()
        self._private: MLKEM768X25519PrivateKey | x25519.X25519PrivateKey = classical
        self.public = PublicKey(kem=Kem.X25519, data=classical.public_key().public_bytes_raw())
        with suppress(UnsupportedAlgorithm):  # an OpenSSL before 3.5 has no ML-KEM
            quantum = mlkem.MLKEM768PrivateKey.generate()
            self._private = MLKEM768X25519PrivateKey(quantum, classical)
            data = quantum.public_key().public_bytes_raw() + self.public.data
            self.public = PublicKey(kem=Kem.MLKEM768_X25519, data=data)

    def decrypt(self, sealed: bytes, info: bytes) -> bytes:
        """What was sealed to this pair.

        Args:
            sealed: by `seal`.
            info: what it was sealed for.

        Raises:
            CorruptFrameError: it was sealed to another key, or for something else.
        """
        try:
            return _SUITES[self.public.kem].decrypt(sealed, self._private, info=info)
        except (InvalidTag, ValueError):
            raise CorruptFrameError("it was not sealed for this member of this session") from None

    def open(self, sealed: bytes, info: bytes) -> ContentKey:
        """The content key that was sealed to this pair by `seal_key`; raises as `decrypt`."""
        secret = self.decrypt(sealed, info)
        if len(secret) != CONTENT_KEY_SIZE:
            raise CorruptFrameError(f"expected a key of {CONTENT_KEY_SIZE} bytes")
        return ContentKey(secret)


def seal_key(key: ContentKey, receiver: PublicKey, info: bytes) -> bytes:
    """A content key for one receiver alone.

    Args:
        key: of a sender's frames.
        receiver: of the receiver, for this session.
        info: what it is sealed for; needed to open it.

    Raises:
        ValueError: the receiver's key is no point of its curve or lattice.
    """
    return seal(key.secret, receiver, info)


def seal(data: bytes, receiver: PublicKey, info: bytes) -> bytes:
    """Bytes for one receiver alone; arguments and errors as of `seal_key`."""
    return _SUITES[receiver.kem].encrypt(data, _load(receiver), info=info)


def _load(key: PublicKey) -> MLKEM768X25519PublicKey | x25519.X25519PublicKey:
    if key.kem is Kem.X25519:
        return x25519.X25519PublicKey.from_public_bytes(key.data)
    try:
        quantum = mlkem.MLKEM768PublicKey.from_public_bytes(key.data[:_MLKEM_SIZE])
    except UnsupportedAlgorithm as error:
        raise ValueError("this OpenSSL has no ML-KEM; 3.5 and later have") from error
    return MLKEM768X25519PublicKey(
        quantum, x25519.X25519PublicKey.from_public_bytes(key.data[_MLKEM_SIZE:])
    )
