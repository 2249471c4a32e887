"""Certificates as the authority makes them: it alone decides what they say."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedattn.authority.ledger import same_name
from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.core.node_id import check_node_id, is_service, names_of
from fedattn.runtime.state import replace_file
from fedattn.wire.authority_client import AUTHORITY
from fedattn.wire.enrolment import private_bytes
from fedattn.wire.security import AUTHORITY_FILE

AUTHORITY_FOLDER = "ca"
AUTHORITY_KEY_FILE = "ca.key"
AUTHORITY_DAYS = 3650
PEM = serialization.Encoding.PEM
_CLOCK_SKEW = dt.timedelta(hours=1)  # edge nodes without a battery-backed clock run late


def check_name(name: str) -> str:
    """A name that may be certified: of a node or a service, such as `aggregator-1`.

    Raises:
        InvalidRequestError: it is no node id, means the authority, or passes for a service.
    """
    meant = same_name(check_node_id(name))
    if meant in {AUTHORITY_FOLDER, AUTHORITY} or name.startswith("."):
        raise InvalidRequestError(f"node id {name!r} would hide the authority; choose another")
    if is_service(meant) and name != meant:
        raise InvalidRequestError(f"node id {name!r} would pass for the {meant}; choose another")
    return name


def read_signing_request(content: bytes) -> ec.EllipticCurvePublicKey:
    """The public key that a request is about; all else it says is of no account.

    Args:
        content: PEM or DER.

    Raises:
        InvalidRequestError: it is none, or whoever asks has not got the key.
    """
    is_pem = content.startswith(b"-----")
    try:
        load = x509.load_pem_x509_csr if is_pem else x509.load_der_x509_csr
        request = load(content)
        key = request.public_key()
        is_proven = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidRequestError(
            f"expected a certificate signing request in PEM or DER, got something else: {error}"
        ) from error
    if not is_proven:
        raise InvalidRequestError("the signing request is not signed by the key it is about")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidRequestError(
            f"the signing request is about a {type(key).__name__}, expected an elliptic-curve key "
            f"of P-256, as `fedattn certs join` makes"
        )
    return key


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that others believe, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """Its certificate, as others hold it."""
        return self.certificate.public_bytes(PEM)

    def issue(
        self, name: str, key: ec.EllipticCurvePublicKey, lifetime: dt.timedelta
    ) -> x509.Certificate:
        """A certificate, good for calling and for being called.

        Args:
            name: whom it is of.
            key: whoever has its private half is believed to be that.
            lifetime: from now; never beyond the authority's own.
        """
        kinds = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        issuer = self.certificate
        until = min(dt.datetime.now(dt.UTC) + lifetime, issuer.not_valid_after_utc)
        return (
            _builder(_name(name), issuer.subject, key, lifetime)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(issued_by(issuer), critical=False)
            .add_extension(x509.ExtendedKeyUsage(kinds), critical=False)
            .add_extension(_alternatives(name), critical=False)
            .sign(self.key, hashes.SHA256())
        )


def read_authority(folder: Path) -> Authority | None:
    """The authority in a folder, None if there is none.

    Raises:
        ConfigurationError: the files there are none.
    """
    key_path = folder / AUTHORITY_KEY_FILE
    if not key_path.exists():
        return None
    try:
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY_FILE).read_bytes())
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"certificates: {folder} holds no authority") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"certificates: {key_path} holds no elliptic-curve key")
    return Authority(certificate, key)


def make_authority(folder: Path) -> Authority:
    """A new authority, in a folder for this user alone.

    Raises:
        OSError: it cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name, lifetime = _name("Federated Attention authority"), dt.timedelta(days=AUTHORITY_DAYS)
    certificate = (
        _builder(name, name, key.public_key(), lifetime)
        .not_valid_after(dt.datetime.now(dt.UTC) + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority(certificate, key)
    replace_file(folder / AUTHORITY_FILE, authority.pem)
    replace_file(folder / AUTHORITY_KEY_FILE, private_bytes(key))
    return authority


def _alternatives(name: str) -> x509.SubjectAlternativeName:
    """What others expect at the other end: of each aggregator of a federation the same."""
    return x509.SubjectAlternativeName([x509.DNSName(one) for one in names_of(name)])


def issued_by(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Names the key that signed something."""
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: dt.timedelta
) -> x509.CertificateBuilder:
    """All but the end; the begin lies a little back, but never so far that half of it is over."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.now(dt.UTC) - min(_CLOCK_SKEW, lifetime / 2))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
