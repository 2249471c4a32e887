"""The authority at work: tokens, enrolment, renewal, revocation."""

import datetime as dt
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError

from fedattn.authority.issuing import (
    AUTHORITY_DAYS,
    AUTHORITY_FOLDER,
    PEM,
    Authority,
    check_name,
    issued_by,
    make_authority,
    read_authority,
    read_signing_request,
)
from fedattn.authority.ledger import Issued, Ledger
from fedattn.core.address import HostPort
from fedattn.core.errors import (
    ConfigurationError,
    InvalidRequestError,
)
from fedattn.runtime.state import replace_file
from fedattn.wire.authority_client import AUTHORITY
from fedattn.wire.certificate_folder import REVOKED_FILE, replace_pair
from fedattn.wire.enrolment import private_bytes
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.join_token import JoinToken, authority_digest
from fedattn.wire.security import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    read_certificates,
)
from fedattn.wire.v1 import session_pb2

DEFAULT_LIFETIME = dt.timedelta(days=7)
MAX_TOKEN_LIFETIME_S = 30 * 24 * 3600.0
_LIST_LIFETIME = dt.timedelta(days=30)
_LIST_AGES_S = 24 * 3600.0
"""A list that is served is signed anew so often, though nothing be revoked."""
_SECRET_SIZE = 32

log = structlog.get_logger(__name__)


class Office:
    """One authority, its ledger, and its folder of certificates.

    Args:
        folder: of all certificates; the authority's own is in it.
        authority: in that folder.
        lifetime: of certificates that nodes get over the network.
        clock: seconds since 1970, by which tokens and lists age.
    """

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        *,
        lifetime: dt.timedelta = DEFAULT_LIFETIME,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder, self.own_folder = folder, folder / AUTHORITY_FOLDER
        self.authority = authority
        self.ledger = Ledger(self.own_folder, clock)
        self._lifetime, self._clock = lifetime, clock
        self.revoked_file = self.own_folder / REVOKED_FILE
        self.not_told: tuple[Path, ...] = ()
        """Folders beside that could not be given the newest list."""
        if not self.revoked_file.exists():
            self._sign_list()
        self.service_files = self._make_service_files()
        self._verifier = Identity(read_certificates(self.own_folder), clock)

    @classmethod
    def open(cls, folder: Path, lifetime: dt.timedelta = DEFAULT_LIFETIME) -> Self:
        """The authority that is in a folder.

        Raises:
            ConfigurationError: there is none, or it cannot be read.
        """
        authority = read_authority(folder / AUTHORITY_FOLDER)
        if authority is None:
            raise ConfigurationError(
                f"certificates: {folder} holds no authority; `fedattn certs serve` and `fedattn "
                f"certs init` make one; name its folder with --folder"
            )
        return cls(folder, authority, lifetime=lifetime)

    @classmethod
    def open_or_make(cls, folder: Path, lifetime: dt.timedelta = DEFAULT_LIFETIME) -> Self:
        """The same, made if it is not there.

        Raises:
            ConfigurationError: it cannot be read or written.
        """
        own = folder / AUTHORITY_FOLDER
        try:
            authority = read_authority(own) or make_authority(own)
        except OSError as error:
            raise ConfigurationError(
                f"certificates: cannot write {error.filename}: {error.strerror}"
            ) from error
        return cls(folder, authority, lifetime=lifetime)

    def _make_service_files(self) -> tuple[Path, Path]:
        """Certificate and key of the authority's own service, made once.

        They live as long as the authority, beside whose key they lie: who takes one takes both.
        """
        files = (self.own_folder / CERTIFICATE_FILE, self.own_folder / KEY_FILE)
        if not files[0].exists():
            key = ec.generate_private_key(ec.SECP256R1())
            lifetime = dt.timedelta(days=AUTHORITY_DAYS)
            certificate = self.authority.issue(AUTHORITY, key.public_key(), lifetime)
            replace_pair(self.own_folder, private_bytes(key), certificate.public_bytes(PEM))
        return files

    def make_token(self, node_id: str, address: HostPort, lifetime_s: float) -> JoinToken:
        """A token for one node, good once.

        Raises:
            InvalidRequestError: the name or the lifetime is not allowed.
        """
        check_name(node_id)
        if not 0 < lifetime_s <= MAX_TOKEN_LIFETIME_S:
            raise InvalidRequestError(
                f"lifetime of a token: expected at most {MAX_TOKEN_LIFETIME_S:.0f} s, got "
                f"{lifetime_s:g} s"
            )
        secret = secrets.token_urlsafe(_SECRET_SIZE)
        self.ledger.add_token(node_id, secret, lifetime_s)
        digest = authority_digest(self.authority.pem)
        return JoinToken(node_id=node_id, authority=address, digest=digest, secret=secret)

    def enrol(self, node_id: str, secret: str, request: bytes) -> bytes:
        """A first certificate, PEM, for whoever brings a token.

        Args:
            node_id: as in the token.
            secret: of the token; used up if a certificate comes of it.
            request: signing request, of which only the public key counts.

        Raises:
            IdentityMismatchError: the token does not count.
            InvalidRequestError: the request is of no use.
        """
        key = read_signing_request(request)
        return self.certify(check_name(node_id), key, self._lifetime, token=secret)

    def renew(self, node_id: str, message: bytes) -> bytes:
        """A newer certificate, PEM, for whoever has the key of one that counts.

        Args:
            node_id: name in it.
            message: `Signed` of the kind renewal, whose payload is the signing request.

        Raises:
            CertificateRevokedError: the present certificate is revoked.
            IdentityMismatchError: it is expired, of another authority, or not the caller's.
            InvalidRequestError: the message is none.
        """
        try:
            signed = session_pb2.Signed.FromString(message)
        except DecodeError as error:
            raise InvalidRequestError("expected a signed request for renewal") from error
        check_name(node_id)
        self._verifier.verify_service(Kind.RENEWAL, signed, node_id)
        present = x509.load_der_x509_certificate(signed.certificates[0])
        key = read_signing_request(signed.payload)
        return self.certify(node_id, key, self._lifetime, renewed=present.serial_number)

    def certify(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        lifetime: dt.timedelta,
        *,
        renewed: int | None = None,
        token: str | None = None,
    ) -> bytes:
        """A certificate that is in the ledger, PEM; raises as `Ledger.record`."""
        certificate = self.authority.issue(name, key, lifetime)
        self.ledger.record(name, certificate, renewed=renewed, token=token)
        return certificate.public_bytes(PEM)

    def revoke(self, name: str) -> int:
        """Take back all certificates and tokens of a name, and tell the folders beside.

        Returns:
            How many certificates counted until now.
        """
        count = self.ledger.revoke(name)
        self._sign_list()
        return count

    def issued(self) -> list[Issued]:
        """All certificates that are remembered, by name."""
        return self.ledger.issued()

    def revoked(self) -> bytes:
        """The list of those that nobody may believe, PEM; signed anew if it has aged."""
        age_s = self._clock() - self.revoked_file.stat().st_mtime
        if age_s > _LIST_AGES_S:
            self._sign_list()
        return self.revoked_file.read_bytes()

    def hand_out_list(self) -> None:
        """Write the list into the folders beside, for services that run with them here."""
        content = self.revoked_file.read_bytes()
        folders = {one.parent for one in self.folder.glob(f"*/{AUTHORITY_FILE}")}
        failed = []
        for folder in sorted(folders - {self.own_folder}):
            try:
                replace_file(folder / REVOKED_FILE, content)
            except OSError as error:  # the others shall hear of it all the same
                failed.append(folder)
                log.warning("list_not_written", folder=str(folder), error=error.strerror)
        self.not_told = tuple(failed)

    def _sign_list(self) -> None:
        """Write a newer list."""
        issuer, now = self.authority.certificate, dt.datetime.now(dt.UTC)
        with self.ledger.next_list() as (number, entries):
            builder = (
                x509.CertificateRevocationListBuilder()
                .issuer_name(issuer.subject)
                .last_update(now)
                .next_update(now + _LIST_LIFETIME)
                .add_extension(x509.CRLNumber(number), critical=False)
                .add_extension(issued_by(issuer), critical=False)
            )
            for entry in entries:
                assert entry.revoked_at is not None
                builder = builder.add_revoked_certificate(
                    x509.RevokedCertificateBuilder()
                    .serial_number(entry.serial)
                    .revocation_date(dt.datetime.fromtimestamp(entry.revoked_at, dt.UTC))
                    .build()
                )
            signed = builder.sign(self.authority.key, hashes.SHA256())
            replace_file(self.revoked_file, signed.public_bytes(PEM))
        self.hand_out_list()
