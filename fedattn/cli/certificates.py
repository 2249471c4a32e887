"""A private authority, and a certificate a node."""

import datetime as dt
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.core.node_id import check_node_id
from fedattn.wire.security import (
    AGGREGATOR,
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    GATEWAY,
    KEY_FILE,
)

AUTHORITY = "ca"
_AUTHORITY_KEY_FILE = "ca.key"
_AUTHORITY_DAYS = 3650
_CLOCK_SKEW = dt.timedelta(hours=1)  # edge nodes without a battery-backed clock run late


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def init_certificates(
    folder: Path,
    node_ids: Sequence[str],
    days: int,
    *,
    renew: bool = False,
    owner: int | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Make what is missing: the authority, and certificates of aggregator, gateway and nodes.

    Args:
        folder: gets `ca/` (keep its key off the nodes) and a folder a name, which is all that
            name's machine needs.
        node_ids: names besides `aggregator` and `gateway`.
        days: how long certificates are valid.
        renew: make those anew that are there; the authority stays.
        owner: user id that gets each name's folder; the authority stays with the caller.
        report: told what was made, a line each.

    Raises:
        InvalidRequestError: a name is not allowed.
        ConfigurationError: the folder cannot be written, or its authority not be read.
    """
    for node_id in node_ids:
        check_node_id(node_id)
        if node_id == AUTHORITY or node_id.startswith("."):
            raise InvalidRequestError(
                f"node id {node_id!r} would hide the authority; choose another"
            )
    if not 1 <= days <= _AUTHORITY_DAYS:
        raise InvalidRequestError(f"days: expected 1 to {_AUTHORITY_DAYS}, got {days}")
    try:
        authority = _authority(folder / AUTHORITY, report)
        for name in dict.fromkeys((AGGREGATOR, GATEWAY, *node_ids)):
            own = folder / name
            if not renew and (own / CERTIFICATE_FILE).exists():
                report(f"kept   {own}")
                continue
            _issue(authority, name, own, days)
            if owner is not None:
                for path in (own, *own.iterdir()):
                    os.chown(path, owner, -1)
            report(f"made   {own}")
    except OSError as error:
        raise ConfigurationError(
            f"certificates: cannot write {error.filename}: {error.strerror}"
        ) from error


def _authority(folder: Path, report: Callable[[str], None]) -> _Authority:
    """Read the authority of a folder, or make one."""
    key_path, certificate_path = folder / _AUTHORITY_KEY_FILE, folder / AUTHORITY_FILE
    if key_path.exists():
        try:
            key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        except ValueError as error:
            raise ConfigurationError(f"certificates: {folder} holds no authority") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigurationError(f"certificates: {key_path} holds no elliptic-curve key")
        report(f"kept   {folder}")
        return _Authority(certificate, key)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Federated Attention authority")
    certificate = (
        _builder(name, name, key.public_key(), _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(folder / AUTHORITY_FILE, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    _write(key_path, _key_bytes(key), 0o600)
    report(f"made   {folder} (whoever has {key_path} can make nodes)")
    return _Authority(certificate, key)


def _issue(authority: _Authority, name: str, folder: Path, days: int) -> None:
    """Make one key and certificate, good for calling and for being called."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    certificate = (
        _builder(_name(name), issuer.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(_issued_by(issuer), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    _write(folder / AUTHORITY_FILE, issuer.public_bytes(pem), 0o644)
    _write(folder / KEY_FILE, _key_bytes(key), 0o600)
    _write(folder / CERTIFICATE_FILE, certificate.public_bytes(pem), 0o644)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + dt.timedelta(days=days))
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


def _issued_by(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file that never was readable by more than `mode` allows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    partial.replace(path)
