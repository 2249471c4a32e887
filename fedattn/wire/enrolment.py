"""How a node gets its certificate, and newer ones: its key is made here and never leaves."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedattn.core.errors import ConfigurationError, IdentityMismatchError
from fedattn.runtime.state import replace_file
from fedattn.wire.authority_client import AuthorityClient
from fedattn.wire.certificate_folder import (
    RENEW_FILE,
    REVOKED_FILE,
    CertificateFolder,
    replace_pair,
)
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.join_token import JoinToken
from fedattn.wire.security import AUTHORITY_FILE, OTHERS_ACCESS

_NEXT_KEY_FILE = ".tls.key.next"
_PEM = serialization.Encoding.PEM


def join(token: JoinToken, folder: Path) -> None:
    """Make a key, have it certified by the token's authority, and write what a service needs.

    Args:
        token: used up by this.
        folder: gets `tls.key`, `tls.crt`, `ca.crt`, `revoked.crl` and `authority.txt`, in place of
            older ones.

    Raises:
        IdentityMismatchError: another authority answers, or the token does not count.
        AuthorityUnavailableError: it cannot be reached.
        ConfigurationError: the folder cannot be written, or others can read it.
    """
    _make_private(folder)
    authority = AuthorityClient(token.authority, None).certificate()
    token.check_authority(authority)
    client = AuthorityClient(token.authority, authority)
    key = ec.generate_private_key(ec.SECP256R1())
    request = signing_request(key, token.node_id).public_bytes(_PEM).decode()
    certificate = client.enrol(token.node_id, token.secret, request)
    _check_issued(certificate, key, token.node_id)
    try:
        replace_file(folder / AUTHORITY_FILE, authority)
        replace_file(folder / RENEW_FILE, f"{token.authority}\n".encode())
        replace_file(folder / REVOKED_FILE, client.revoked())
        replace_pair(folder, private_bytes(key), certificate)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def renew(folder: CertificateFolder, client: AuthorityClient) -> None:
    """Replace key and certificate of a folder by newer ones, proving it by the present key.

    Raises:
        CertificateRevokedError, IdentityMismatchError: the present ones do not count any more.
        AuthorityUnavailableError: the authority cannot be reached.
        ConfigurationError: the folder cannot be written.
    """
    identity = Identity(folder.current)
    name = own_name(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    request = signing_request(key, name).public_bytes(serialization.Encoding.DER)
    with _writable(folder.path, private_bytes(key)):  # else the authority would issue for nothing
        certificate = client.renew(name, identity.sign(Kind.RENEWAL, request).SerializeToString())
        _check_issued(certificate, key, name)
        replace_pair(folder.path, private_bytes(key), certificate)


def own_certificate(folder: CertificateFolder) -> x509.Certificate:
    """The certificate of a folder."""
    return x509.load_pem_x509_certificate(folder.current.certificate)


def own_name(folder: CertificateFolder) -> str:
    """The name in the certificate of a folder."""
    return _name_of(own_certificate(folder))


def signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> x509.CertificateSigningRequest:
    """Asks for a certificate of a key, which it proves to have."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())


def private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as files hold it, PEM."""
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _check_issued(pem: bytes, key: ec.EllipticCurvePrivateKey, name: str) -> None:
    certificate = x509.load_pem_x509_certificate(pem)
    if certificate.public_key() != key.public_key() or _name_of(certificate) != name:
        raise IdentityMismatchError(
            f"the authority answered with a certificate of {_name_of(certificate)!r} or of another "
            f"key, expected one of {name!r}"
        )


def _name_of(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    if folder.stat().st_mode & OTHERS_ACCESS:
        raise ConfigurationError(
            f"certificates: others can read the folder {folder}; chmod 700 {folder}"
        )


@contextmanager
def _writable(folder: Path, key: bytes) -> Iterator[None]:
    """Write the next key beside the present one for as long as the block runs."""
    following = folder / _NEXT_KEY_FILE
    try:
        replace_file(following, key)
        yield
    except OSError as error:
        raise _cannot_write(folder, error) from error
    finally:
        with suppress(OSError):
            following.unlink()


def _cannot_write(folder: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"certificates: cannot write {folder}: {error.strerror}; let this user write there"
    )
