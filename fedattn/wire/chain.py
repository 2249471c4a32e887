"""Whose certificate it is: chains held against an authority, and remembered for a while.

Verifying a chain costs three times what verifying a signature does, and nodes that meet in one
session meet in the next. What is remembered is who holds which key; what somebody says is verified
each time.
"""

import datetime as dt
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cachetools import TTLCache
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import (
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from fedattn.core.errors import IdentityMismatchError
from fedattn.core.limits import MAX_MEMBERS
from fedattn.wire.revocation import Revocations, Serials

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
MAX_CERTIFICATES = 4
MAX_CERTIFICATE_SIZE = 8 << 10
REMEMBERED_S = 60.0
"""Longest time after which a chain is verified afresh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Certificates as they came with a message; nobody vouches for them yet.

    Attributes:
        leaf: the signer's.
        between: those between it and the authority.
        key: of the leaf.
        names: of the leaf.
    """

    leaf: x509.Certificate
    between: list[x509.Certificate]
    key: object
    names: tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a key, on the word of the authority.

    Attributes:
        names: of the certificate.
        key: of the certificate, of whatever kind.
        valid_from_s: since when all certificates of the chain are valid, seconds since 1970.
        valid_until_s: when the first of them expires.
        serials: of all certificates of the chain.
    """

    names: tuple[object, ...]
    key: object
    valid_from_s: float
    valid_until_s: float
    serials: Serials

    def is_valid_at(self, now_s: float) -> bool:
        """Whether every certificate of the chain is valid then, seconds since 1970."""
        return self.valid_from_s <= now_s <= self.valid_until_s


class ChainVerifier:
    """Takes certificates that an authority signed and that are valid now. May be shared by threads.

    Args:
        authorities: who is believed.
        clock: seconds since 1970.
        revocations: what is revoked.
    """

    def __init__(
        self,
        authorities: list[x509.Certificate],
        clock: Callable[[], float] = time.time,
        revocations: Revocations | None = None,
    ) -> None:
        self._revocations = revocations or Revocations()
        self._policy = (
            PolicyBuilder()
            .store(Store(authorities))
            .extension_policies(  # names are checked by whoever asks
                ca_policy=ExtensionPolicy.webpki_defaults_ca(),
                ee_policy=ExtensionPolicy.permit_all(),
            )
        )
        self._clock = clock
        self._known: TTLCache[tuple[bytes, ...], Holder] = TTLCache(
            MAX_MEMBERS, REMEMBERED_S, clock
        )
        self._lock = threading.Lock()

    def verify(self, certificates: Sequence[bytes], what: str) -> Holder:
        """Who the authority says holds the key of the first certificate.

        Args:
            certificates: the signer's first, then those between it and the authority; DER.
            what: bears them, for messages.

        Raises:
            IdentityMismatchError: the authority did not sign it, or one is not valid now.
            CertificateRevokedError: the authority took one back, however short a time ago.
        """
        sizes = [len(one) for one in certificates]
        if len(sizes) > MAX_CERTIFICATES or max(sizes) > MAX_CERTIFICATE_SIZE:
            raise IdentityMismatchError(
                f"{what} bears certificates of {sizes} bytes, at most {MAX_CERTIFICATES} of "
                f"{MAX_CERTIFICATE_SIZE} are taken"
            )
        given, now_s = tuple(certificates), self._clock()
        with self._lock:
            holder = self._known.get(given)
        if holder is None or not holder.is_valid_at(now_s):
            holder = self._verify_afresh(_parse(given, what), what, now_s)
            with self._lock:
                self._known[given] = holder
        self._revocations.refuse(holder.serials, what)
        return holder

    def _verify_afresh(self, chain: Chain, what: str, now_s: float) -> Holder:
        policy = self._policy.time(dt.datetime.fromtimestamp(now_s, dt.UTC))
        try:
            verified = policy.build_client_verifier().verify(chain.leaf, chain.between).chain
        except (VerificationError, ValueError) as error:
            raise IdentityMismatchError(
                f"{what} bears a certificate that this node's authority did not sign, or that is "
                f"not valid now: {str(error)[:200]}"
            ) from error
        return Holder(
            names=chain.names,
            key=chain.key,
            valid_from_s=max(one.not_valid_before_utc.timestamp() for one in verified),
            valid_until_s=min(one.not_valid_after_utc.timestamp() for one in verified),
            serials=frozenset(one.serial_number for one in verified),
        )


def _parse(certificates: Sequence[bytes], what: str) -> Chain:
    try:
        leaf, *between = (x509.load_der_x509_certificate(one) for one in certificates)
        names = [name.value for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return Chain(leaf=leaf, between=between, key=leaf.public_key(), names=tuple(names))
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise IdentityMismatchError(f"{what} bears bytes that are no certificate") from error
