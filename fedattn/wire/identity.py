"""Who said something, whoever passed it on: signatures by the certificates of nodes.

TLS says who is at the other end of a connection, which for most messages is the aggregator. What
must not be the aggregator's word is signed by the node itself, with its certificate's key, and
verified against the authority by those it concerns.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from fedattn.core.errors import ConfigurationError, IdentityMismatchError
from fedattn.wire.chain import ChainVerifier, PublicKey
from fedattn.wire.security import AGGREGATOR, GATEWAY, Certificates
from fedattn.wire.v1 import session_pb2 as pb

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_DER = serialization.Encoding.DER
_HASH = hashes.SHA256()
_PSS = padding.PSS(padding.MGF1(_HASH), padding.PSS.DIGEST_LENGTH)


class Kind(StrEnum):
    """What is signed; a signature of one kind is good for no other."""

    REQUEST = "request"
    STATEMENT = "statement"
    KEY = "key"
    NODE_KEY = "node key"

    def mark(self, payload: bytes) -> bytes:
        """The bytes that a signature covers."""
        return b"fedattn " + self.value.encode() + b"\0" + payload


@dataclass(frozen=True, slots=True)
class Peer:
    """A node whose certificate has been verified; without certificates one that is believed.

    Attributes:
        node_id: its id, which is the certificate's name.
        key: of its certificate; None in plaintext.
    """

    node_id: str
    key: PublicKey | None

    def verify(self, kind: Kind, payload: bytes, signature: bytes) -> None:
        """Hold a signature against the node.

        Raises:
            IdentityMismatchError: it is not the node's, or of something else.
        """
        if self.key is None:
            return
        try:
            if isinstance(self.key, ec.EllipticCurvePublicKey):
                self.key.verify(signature, kind.mark(payload), ec.ECDSA(_HASH))
            else:
                self.key.verify(signature, kind.mark(payload), _PSS, _HASH)
        except InvalidSignature:
            raise IdentityMismatchError(
                f"the {kind.value} in the name of {self.node_id} is not what {self.node_id} "
                f"signed: somebody between changed or replaced it"
            ) from None


class Identity:
    """Signs as one node, and verifies what others signed. May be shared by threads.

    Args:
        certificates: of this node; None in plaintext, where anybody is believed to be anyone.
        clock: seconds since 1970, by which certificates are valid or not.

    Raises:
        ConfigurationError: a file does not hold what its name says.
    """

    def __init__(
        self, certificates: Certificates | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.certificates = certificates
        self._key: _PrivateKey | None = None
        self._chain: list[bytes] = []
        self._chains: ChainVerifier | None = None
        if certificates is not None:
            self._key = _read_key(certificates.key)
            chain = _read_certificates(certificates.certificate, "tls.crt")
            self._chain = [one.public_bytes(_DER) for one in chain]
            authorities = _read_certificates(certificates.authority, "ca.crt")
            self._chains = ChainVerifier(authorities, clock)

    @property
    def is_verifying(self) -> bool:
        """Whether names are proven, and frames sealed."""
        return self._chains is not None

    def signature(self, kind: Kind, payload: bytes) -> bytes:
        """This node's signature; none in plaintext."""
        if self._key is None:
            return b""
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(kind.mark(payload), ec.ECDSA(_HASH))
        return self._key.sign(kind.mark(payload), _PSS, _HASH)

    def sign(self, kind: Kind, payload: bytes) -> pb.Signed:
        """A message with this node's certificates and signature."""
        return pb.Signed(
            payload=payload, certificates=self._chain, signature=self.signature(kind, payload)
        )

    def verify(self, kind: Kind, signed: pb.Signed, node_id: str) -> Peer:
        """The node that signed a message.

        Raises:
            IdentityMismatchError: it is not the node it claims to be, or the message was changed.
        """
        if self._chains is None:
            return Peer(node_id, None)
        if node_id in {AGGREGATOR, GATEWAY}:
            raise IdentityMismatchError(f"{node_id} is no node; it gives and asks for no rows")
        what = f"the {kind.value} in the name of {node_id}"
        if not signed.certificates:
            raise IdentityMismatchError(
                f"{what} bears no certificate; start every node with --certificates, or every "
                f"node with --plaintext"
            )
        holder = self._chains.verify(signed.certificates, what)
        if holder.names != (node_id,) or not isinstance(holder.key, PublicKey):
            raise IdentityMismatchError(f"{what} bears the certificate of {list(holder.names)}")
        peer = Peer(node_id, holder.key)
        peer.verify(kind, signed.payload, signed.signature)
        return peer

    def own(self, node_id: str) -> Peer:
        """This node, as others know it who have verified its certificate."""
        return Peer(node_id, None if self._key is None else self._key.public_key())


def _read_key(pem: bytes) -> _PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"certificates: tls.key holds no private key: {error}") from error
    if not isinstance(key, _PrivateKey):
        raise ConfigurationError(
            f"certificates: tls.key holds a {type(key).__name__}; expected an elliptic-curve or "
            f"RSA key, as `fedattn certs init` makes"
        )
    return key


def _read_certificates(pem: bytes, name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigurationError(f"certificates: {name} holds no certificate: {error}") from error
