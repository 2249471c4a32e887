"""Who is who on the wire: mutual TLS by a private certificate authority.

Every service proves itself with a certificate whose name is its node id, or `aggregator`, or
`gateway`. A client says which name it expects, wherever that service may live, so certificates
need not know addresses. Services that listen look at the caller's name.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import grpc

from fedattn.core.errors import ConfigurationError, IdentityMismatchError
from fedattn.wire.revocation import Revocations

AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.crt", "tls.crt", "tls.key"
OTHERS_ACCESS = 0o077
_GROUP_READ = 0o040


class OwnCertificates(Protocol):
    """What a service proves itself with: certificates that stay, or a folder with newer ones."""

    @property
    def current(self) -> "Certificates":
        """Those of now."""

    @property
    def revocations(self) -> Revocations:
        """What this service knows to be revoked."""

    def for_server(self) -> grpc.ServerCredentials:
        """Only callers that the authority has signed get in."""


CheckCaller = Callable[[str], None]
"""Refuses a caller that is not the node of this id, as `check_caller`."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM of the authority, of the own certificate and of its key."""

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def current(self) -> Self:
        """Themselves."""
        return self

    @property
    def revocations(self) -> Revocations:
        """Nothing: there is nobody to tell."""
        return Revocations()

    def for_server(self) -> grpc.ServerCredentials:
        """Only callers that the authority has signed get in."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], self.authority, require_client_auth=True
        )

    def for_client(self) -> grpc.ChannelCredentials:
        """Only a server that the authority has signed is spoken to."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


def read_certificates(folder: Path) -> Certificates:
    """Read `ca.crt`, `tls.crt` and `tls.key` of a folder, the names that Kubernetes uses.

    Raises:
        ConfigurationError: one of them is missing or empty, or others can read the key.
    """

    def read(name: str) -> bytes:
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"certificates: cannot read {folder / name}: {error.strerror}; a node's folder "
                f"holds {AUTHORITY_FILE}, {CERTIFICATE_FILE} and {KEY_FILE}, and "
                f"`fedattn certs join` makes it, or `fedattn certs init`"
            ) from error
        if b"-----BEGIN " not in content:
            raise ConfigurationError(f"certificates: {folder / name} is no PEM file")
        return content

    read_now = Certificates(read(AUTHORITY_FILE), read(CERTIFICATE_FILE), read(KEY_FILE))
    _check_private(folder / KEY_FILE)
    return read_now


def exposes_key(mode: int, owner: int) -> bool:
    """Whether others than a service can read its key, by permission bits and owner of the file.

    A group may read what root owns, as PostgreSQL has it: so Kubernetes gives a pod its Secrets.
    """
    return bool(mode & OTHERS_ACCESS & ~(_GROUP_READ if owner == 0 else 0))


def _check_private(path: Path) -> None:
    found = path.stat()
    mode = found.st_mode & 0o777
    if exposes_key(mode, found.st_uid):
        raise ConfigurationError(
            f"certificates: others can read {path} (mode {mode:04o}), and whoever does can pass "
            f"for this service; chmod 600 {path}"
        )


def caller_names(context: Any) -> frozenset[str] | None:
    """Names that the certificate of a caller bears; None in plaintext, where nobody has one."""
    identity = context.auth_context()
    if identity.get("transport_security_type", [b"insecure"])[0] != b"ssl":
        return None
    return frozenset(name.decode(errors="replace") for name in identity.get("x509_common_name", ()))


def check_caller(context: Any, names: frozenset[str]) -> None:
    """Refuse a caller whose certificate bears none of the names; plaintext has no names to check.

    Raises:
        IdentityMismatchError: it bears another one.
    """
    given = caller_names(context)
    if given is not None and not given & names:
        raise IdentityMismatchError(
            f"expected the certificate of {' or '.join(sorted(names))}, got the one of "
            f"{', '.join(sorted(given)) or 'nobody'}; give this node its own certificate"
        )
