"""Certificates that the authority has taken back: its signed list, and what is known of it here."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog
from cryptography import x509

from fedattn.core.errors import CertificateRevokedError, IdentityMismatchError

Serials = frozenset[int]
MAX_LIST_SIZE = 4 << 20

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """What an authority has signed (RFC 5280, section 5).

    Attributes:
        number: grows with every list of this authority.
        serials: of certificates that nobody may believe any more.
        stale_after_s: when the authority will have signed a newer one, seconds since 1970.
    """

    number: int
    serials: Serials
    stale_after_s: float


def read_revocation_list(pem: bytes, authorities: Sequence[x509.Certificate]) -> RevocationList:
    """Read a list, and verify that one of the authorities signed it.

    Raises:
        IdentityMismatchError: none of them did, or it is no list.
    """
    if len(pem) > MAX_LIST_SIZE:
        raise IdentityMismatchError(
            f"revocations: a list of {len(pem)} bytes, at most {MAX_LIST_SIZE} are taken"
        )
    try:
        found = x509.load_pem_x509_crl(pem)
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        until = found.next_update_utc
    except (ValueError, x509.ExtensionNotFound) as error:
        raise IdentityMismatchError(
            f"revocations: expected a list in PEM with a number, got something else: {error}"
        ) from error
    if until is None or not any(_has_signed(one, found) for one in authorities):
        raise IdentityMismatchError(
            "revocations: this service's authority did not sign the list; take the one that "
            "`fedattn certs revoke` wrote beside ca.crt"
        )
    serials = frozenset(entry.serial_number for entry in found)
    return RevocationList(number=number, serials=serials, stale_after_s=until.timestamp())


def _has_signed(authority: x509.Certificate, found: x509.CertificateRevocationList) -> bool:
    try:
        return found.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except TypeError:  # a key of another kind
        return False


class Revocations:
    """The newest list that one service knows.

    Lists are taken on the event loop; anybody may ask, threads too.
    """

    def __init__(self) -> None:
        self._list: RevocationList | None = None
        self._told: int | None = None
        self._listeners: list[Callable[[], None]] = []

    @property
    def newest(self) -> RevocationList | None:
        """None if no list was ever seen: then nothing is revoked."""
        return self._list

    def listen(self, listener: Callable[[], None]) -> None:
        """Call somebody whenever more may be revoked than before."""
        self._listeners.append(listener)

    def take(self, new: RevocationList) -> bool:
        """Go by a list from now on, unless it is older than the one that is known.

        Returns:
            Whether it was taken.
        """
        if self._list is not None and new.number <= self._list.number:
            if new.number < self._list.number and new.number != self._told:
                self._told = new.number
                log.warning("older_list", number=new.number, known=self._list.number)
            return False
        self._list = new
        for listener in self._listeners:
            listener()
        return True

    def is_revoked(self, serials: Iterable[int]) -> bool:
        """Whether one of the certificates is on the list."""
        return self._list is not None and not self._list.serials.isdisjoint(serials)

    def refuse(self, serials: Iterable[int], what: str) -> None:
        """Refuse certificates that are on the list.

        Args:
            serials: of them.
            what: bears them, for messages.

        Raises:
            CertificateRevokedError: one is.
        """
        if self.is_revoked(serials):
            raise CertificateRevokedError(
                f"{what} bears a certificate that the authority has revoked; if its node shall "
                f"take part again, make a token with `fedattn certs token` and join with it"
            )
