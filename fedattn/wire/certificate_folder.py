"""The folder with a service's certificates, whose files change while the service runs."""

from contextlib import suppress
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError, FedAttnError
from fedattn.runtime.state import replace_file, sync_folder
from fedattn.wire.revocation import Revocations, read_revocation_list
from fedattn.wire.security import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    Certificates,
    read_certificates,
)

REVOKED_FILE = "revoked.crl"
RENEW_FILE = "authority.txt"
"""HOST:PORT of the authority, in the folder of a node that has joined by a token."""
_NEXT_FILE = ".tls.crt.next"

log = structlog.get_logger(__name__)


class CertificateFolder:
    """A service's certificates as its folder holds them now, and what it knows to be revoked.

    New TLS handshakes and signatures use what `look` has found last; what runs goes on as it began.

    Args:
        path: holds `ca.crt`, `tls.crt` and `tls.key`, perhaps `revoked.crl` and `authority.txt`.

    Raises:
        ConfigurationError: a file is missing or is not what its name says, or others can read the
            key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.revocations = Revocations()
        self._seen = self._stamps()
        self._current = _read_pair(path)
        try:
            self._read_revoked()
        except FedAttnError as error:
            raise ConfigurationError(f"certificates: {path / REVOKED_FILE}: {error}") from error

    @property
    def current(self) -> Certificates:
        """Those of now; another object after each change."""
        return self._current

    @property
    def authority(self) -> HostPort | None:
        """Where to renew and to ask what is revoked; None if nobody said.

        Raises:
            ConfigurationError: the file holds no address.
        """
        path = self.path / RENEW_FILE
        try:
            return HostPort.parse(path.read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"certificates: cannot read {path}: {error}") from error

    def look(self) -> None:
        """Take what has changed since the last look; what is of no use is told in the log once."""
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            found = _read_pair(self.path)
            if found != self._current:
                self._current = found
                log.info("certificates_changed", folder=str(self.path))
            self._read_revoked()
        except FedAttnError as error:  # half a change, or a wrong one: the old ones still count
            log.warning("certificates_not_taken", error=str(error))

    def take_revoked(self, pem: bytes) -> bool:
        """Go by a list of the authority from now on, unless an older one; called on the event loop.

        Raises:
            IdentityMismatchError: the authority did not sign it.
        """
        authorities = x509.load_pem_x509_certificates(self._current.authority)
        return self.revocations.take(read_revocation_list(pem, authorities))

    def for_server(self) -> grpc.ServerCredentials:
        """Only callers that the authority has signed get in; each handshake takes the newest."""
        given = self._current

        def newest() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if given is self._current:
                return None  # as before
            given = self._current
            return _configuration(given)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(given),
            newest,  # type: ignore[arg-type]  # None is allowed too
            require_client_authentication=True,
        )

    def _read_revoked(self) -> None:
        path = self.path / REVOKED_FILE
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigurationError(f"it cannot be read: {error.strerror}") from error
        self.take_revoked(content)

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        names = (AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, REVOKED_FILE)
        return tuple(_stamp(self.path / name) for name in names)


def replace_pair(folder: Path, key: bytes, certificate: bytes) -> None:
    """Give a folder a new key with its certificate, so that a power cut leaves one of both pairs.

    Raises:
        OSError: the folder cannot be written.
    """
    replace_file(folder / _NEXT_FILE, certificate)
    replace_file(folder / KEY_FILE, key)
    _finish(folder)


def _finish(folder: Path) -> None:
    with suppress(FileNotFoundError):  # whoever reads the folder may have finished it already
        (folder / _NEXT_FILE).replace(folder / CERTIFICATE_FILE)
    sync_folder(folder)


def _read_pair(folder: Path) -> Certificates:
    try:
        found = _finished_pair(folder)
    except OSError as error:
        raise ConfigurationError(
            f"certificates: cannot read {error.filename}: {error.strerror}; let this user read it"
        ) from error
    try:
        x509.load_pem_x509_certificates(found.authority)
    except ValueError as error:
        raise ConfigurationError(
            f"certificates: {folder / AUTHORITY_FILE} holds something else: {error}"
        ) from error
    return found


def _finished_pair(folder: Path) -> Certificates:
    found = read_certificates(folder)
    if not _match(found.key, found.certificate):
        following = folder / _NEXT_FILE
        if not (following.exists() and _match(found.key, following.read_bytes())):
            raise ConfigurationError(
                f"certificates: {folder / KEY_FILE} is not the key of {folder / CERTIFICATE_FILE}; "
                f"copy both from one place, or join again with a token"
            )
        _finish(folder)
        found = read_certificates(folder)
    return found


def _match(key: bytes, certificate: bytes) -> bool:
    try:
        own = serialization.load_pem_private_key(key, password=None).public_key()
        return own == x509.load_pem_x509_certificate(certificate).public_key()
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"certificates: {KEY_FILE} or {CERTIFICATE_FILE} holds something else: {error}"
        ) from error


def _configuration(current: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(current.key, current.certificate)], current.authority
    )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def choose_security(certificates: Path | None, *, plaintext: bool) -> CertificateFolder | None:
    """What the settings of a service ask for: certificates, or None for plaintext.

    Raises:
        ConfigurationError: they ask for neither or for both, or files are missing.
    """
    if certificates is not None and plaintext:
        raise ConfigurationError("--certificates and --plaintext exclude each other; leave one out")
    if certificates is not None:
        return CertificateFolder(certificates)
    if not plaintext:
        raise ConfigurationError(
            "no certificates: give --certificates DIR (`fedattn certs` makes them), or "
            "--plaintext if nobody else can read or write this network, such as the loopback"
        )
    log.warning("plaintext", hint="no TLS: anyone on the network can read KV and join as any node")
    return None
