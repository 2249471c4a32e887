"""Who said something, whoever passed it on: signatures by the certificates of nodes.

TLS says who is at the other end of a connection, which for most messages is the aggregator. What
must not be the aggregator's word is signed by the node itself, with its certificate's key, and
verified against the authority by those it concerns.
"""

import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from fedattn.core.errors import ConfigurationError, IdentityMismatchError
from fedattn.core.node_id import is_service
from fedattn.wire.chain import ChainVerifier, PublicKey
from fedattn.wire.revocation import Revocations
from fedattn.wire.security import Certificates, OwnCertificates
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
    RENEWAL = "renewal"

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Own:
    """What certificates hold, read."""

    source: Certificates
    key: _PrivateKey
    chain: list[bytes]
    chains: ChainVerifier


class Identity:
    """Signs as one node, and verifies what others signed. May be shared by threads.

    Args:
        certificates: of this node; None in plaintext, where anybody is believed to be anyone.
        clock: seconds since 1970, by which certificates are valid or not.

    Raises:
        ConfigurationError: a file does not hold what its name says.
    """

    def __init__(
        self, certificates: OwnCertificates | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.certificates = certificates
        self._clock = clock
        self._revocations = Revocations() if certificates is None else certificates.revocations
        self._read: _Own | None = None
        _ = self._own  # what is of no use is told now

    @property
    def _own(self) -> _Own | None:
        """Of the certificates of now; None in plaintext."""
        if self.certificates is None:
            return None
        source = self.certificates.current
        read = self._read
        if read is None or read.source is not source:
            authorities = _read_certificates(source.authority, "ca.crt")
            chain = _read_certificates(source.certificate, "tls.crt")
            self._read = read = _Own(
                source=source,
                key=_read_key(source.key),
                chain=[one.public_bytes(_DER) for one in chain],
                chains=ChainVerifier(authorities, self._clock, self._revocations),
            )
        return read

    def pinned(self) -> "Identity":
        """The same with the key of now for good: all that is signed in a session is by one key."""
        pinned = copy(self)
        if self.certificates is not None:
            pinned.certificates = self.certificates.current
        return pinned

    @property
    def is_verifying(self) -> bool:
        """Whether names are proven, and frames sealed."""
        return self.certificates is not None

    def signature(self, kind: Kind, payload: bytes) -> bytes:
        """This node's signature; none in plaintext."""
        own = self._own
        return b"" if own is None else _sign(own.key, kind.mark(payload))

    def sign(self, kind: Kind, payload: bytes) -> pb.Signed:
        """A message with this node's certificates and signature."""
        own = self._own
        if own is None:
            return pb.Signed(payload=payload)
        signature = _sign(own.key, kind.mark(payload))
        return pb.Signed(payload=payload, certificates=own.chain, signature=signature)

    def verify(self, kind: Kind, signed: pb.Signed, node_id: str) -> Peer:
        """The node that signed a message.

        Raises:
            IdentityMismatchError: it is not the node it claims to be, or the message was changed.
            CertificateRevokedError: its certificate is revoked.
        """
        if not self.is_verifying:
            return Peer(node_id, None)
        if is_service(node_id):
            raise IdentityMismatchError(f"{node_id} is no node; it gives and asks for no rows")
        return self.verify_service(kind, signed, node_id)

    def verify_service(self, kind: Kind, signed: pb.Signed, name: str) -> Peer:
        """Whoever signed a message, which may be no node; there are certificates. As `verify`."""
        own = self._own
        assert own is not None
        what = f"the {kind.value} in the name of {name}"
        if not signed.certificates:
            raise IdentityMismatchError(
                f"{what} bears no certificate; start every node with --certificates, or every "
                f"node with --plaintext"
            )
        holder = own.chains.verify(signed.certificates, what)
        if holder.names != (name,) or not isinstance(holder.key, PublicKey):
            raise IdentityMismatchError(f"{what} bears the certificate of {list(holder.names)}")
        peer = Peer(name, holder.key)
        peer.verify(kind, signed.payload, signed.signature)
        return peer

    def own(self, node_id: str) -> Peer:
        """This node, as others know it who have verified its certificate."""
        own = self._own
        return Peer(node_id, None if own is None else own.key.public_key())


def _sign(key: _PrivateKey, marked: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(marked, ec.ECDSA(_HASH))
    return key.sign(marked, _PSS, _HASH)


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
