"""Signatures of nodes: whose they are, of what, and who is believed."""

import datetime as dt
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedattn.cli.certificates import init_certificates
from fedattn.core.errors import ConfigurationError, IdentityMismatchError
from fedattn.core.node_id import AGGREGATOR
from fedattn.wire.chain import MAX_CERTIFICATES, REMEMBERED_S, Chain, ChainVerifier, Holder
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.security import Certificates, read_certificates
from fedattn.wire.v1 import session_pb2 as pb
from tests.harness.identities import certificates_of

PAYLOAD = b"what node a says"
PEM = serialization.Encoding.PEM
DAY_S = 86400


@pytest.fixture
def reader() -> Identity:
    return Identity(certificates_of("reader"))


def signed_by(name: str, kind: Kind = Kind.REQUEST) -> pb.Signed:
    return Identity(certificates_of(name)).sign(kind, PAYLOAD)


def test_word_of_a_node_is_believed(reader: Identity) -> None:
    peer = reader.verify(Kind.REQUEST, signed_by("a"), "a")
    assert peer.node_id == "a"
    peer.verify(Kind.KEY, b"more", Identity(certificates_of("a")).signature(Kind.KEY, b"more"))


def test_word_of_another_node_is_not_its_own(reader: Identity) -> None:
    with pytest.raises(IdentityMismatchError, match=r"in the name of a bears the certificate of"):
        reader.verify(Kind.REQUEST, signed_by("b"), "a")


def test_signature_is_good_for_one_kind_of_message(reader: Identity) -> None:
    with pytest.raises(IdentityMismatchError, match="is not what a signed"):
        reader.verify(Kind.STATEMENT, signed_by("a"), "a")


def test_changed_word_is_found(reader: Identity) -> None:
    signed = signed_by("a")
    signed.payload += b"!"
    with pytest.raises(IdentityMismatchError, match="changed or replaced it"):
        reader.verify(Kind.REQUEST, signed, "a")


def test_word_without_certificate_names_the_remedy(reader: Identity) -> None:
    with pytest.raises(IdentityMismatchError, match="start every node with --certificates"):
        reader.verify(Kind.REQUEST, pb.Signed(payload=PAYLOAD), "a")


def test_aggregator_is_no_node(reader: Identity) -> None:
    with pytest.raises(IdentityMismatchError, match="aggregator is no node"):
        reader.verify(Kind.REQUEST, signed_by(AGGREGATOR), AGGREGATOR)


def test_node_of_another_authority_is_a_stranger(reader: Identity, tmp_path: Path) -> None:
    init_certificates(tmp_path, ["a"], 30)
    stranger = Identity(read_certificates(tmp_path / "a"))
    with pytest.raises(IdentityMismatchError, match="authority did not sign"):
        reader.verify(Kind.REQUEST, stranger.sign(Kind.REQUEST, PAYLOAD), "a")


@pytest.mark.parametrize(
    ("certificates", "complaint"),
    [
        ([b"no certificate"], "bytes that are no certificate"),
        ([b"x" * 9000], "bears certificates of"),
        ([b"x"] * (MAX_CERTIFICATES + 1), "bears certificates of"),
    ],
)
def test_hostile_certificates_are_refused(
    certificates: list[bytes], complaint: str, reader: Identity
) -> None:
    signed = pb.Signed(payload=PAYLOAD, certificates=certificates, signature=b"x")
    with pytest.raises(IdentityMismatchError, match=complaint):
        reader.verify(Kind.REQUEST, signed, "a")


def test_plaintext_believes_everybody_and_signs_nothing() -> None:
    plain = Identity()
    signed = plain.sign(Kind.REQUEST, PAYLOAD)
    assert not signed.signature
    assert plain.verify(Kind.REQUEST, signed, "anyone").node_id == "anyone"


PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def issued(
    name: str, key: PrivateKey, *, days: int = 30, intermediate: bool = False
) -> Certificates:
    """Certificates of an authority of the test's own, perhaps by way of another one."""
    root = ec.generate_private_key(ec.SECP256R1())
    chain, signer, issuer = [], root, "root"
    authority = _certificate("root", root.public_key(), "root", root, days=30, is_ca=True)
    if intermediate:
        signer, issuer = ec.generate_private_key(ec.SECP256R1()), "between"
        chain = [_certificate("between", signer.public_key(), "root", root, days=30, is_ca=True)]
    leaf = _certificate(name, key.public_key(), issuer, signer, days=days, is_ca=False)
    private = key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pems = b"".join(one.public_bytes(PEM) for one in (leaf, *chain))
    return Certificates(authority.public_bytes(PEM), pems, private)


def _certificate(
    name: str,
    key: "ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey",
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    days: int,
    is_ca: bool,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=60))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if is_ca:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = builder.add_extension(
            x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
    else:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
        ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return builder.sign(signer, hashes.SHA256())


@pytest.mark.parametrize("intermediate", [False, True])
@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-384", "RSA"],
)
def test_certificates_of_other_makers_serve_too(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, intermediate: bool
) -> None:
    node = Identity(issued("a", key, intermediate=intermediate))
    assert node.verify(Kind.REQUEST, node.sign(Kind.REQUEST, PAYLOAD), "a").node_id == "a"


def test_expired_certificate_is_refused() -> None:
    node = Identity(issued("a", ec.generate_private_key(ec.SECP256R1()), days=-1))
    with pytest.raises(IdentityMismatchError, match="not valid now"):
        node.verify(Kind.REQUEST, node.sign(Kind.REQUEST, PAYLOAD), "a")


class Clock:
    """Seconds since 1970, set by hand."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def is_afresh(node: Identity, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the node's chain is verified again when the node verifies its own word."""
    verified: list[str] = []
    whole = ChainVerifier._verify_afresh

    def counting(self: ChainVerifier, chain: Chain, what: str, now_s: float) -> Holder:
        verified.append(what)
        return whole(self, chain, what, now_s)

    with monkeypatch.context() as patched:
        patched.setattr(ChainVerifier, "_verify_afresh", counting)
        node.verify(Kind.REQUEST, node.sign(Kind.REQUEST, PAYLOAD), "a")
    return bool(verified)


def test_chain_is_verified_afresh_when_it_was_long_ago_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(time.time())
    node = Identity(certificates_of("a"), clock)
    assert is_afresh(node, monkeypatch)
    clock.now_s += REMEMBERED_S - 1
    assert not is_afresh(node, monkeypatch)
    clock.now_s += 2
    assert is_afresh(node, monkeypatch)


@pytest.mark.parametrize("days", [20, 40], ids=["the node's", "one between"])
def test_certificate_that_expires_is_refused_though_it_is_remembered(
    days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    clock = Clock(time.time() + min(days, 30) * DAY_S - 20)
    node = Identity(issued("a", key, days=days, intermediate=True), clock)
    signed = node.sign(Kind.REQUEST, PAYLOAD)
    node.verify(Kind.REQUEST, signed, "a")
    clock.now_s += 5
    assert not is_afresh(node, monkeypatch)
    clock.now_s += REMEMBERED_S / 2
    with pytest.raises(IdentityMismatchError, match="not valid now"):
        node.verify(Kind.REQUEST, signed, "a")


def test_certificate_of_the_future_is_refused_though_it_is_remembered() -> None:
    clock = Clock(time.time())
    node = Identity(certificates_of("a"), clock)
    signed = node.sign(Kind.REQUEST, PAYLOAD)
    node.verify(Kind.REQUEST, signed, "a")
    clock.now_s -= DAY_S
    with pytest.raises(IdentityMismatchError, match="not valid now"):
        node.verify(Kind.REQUEST, signed, "a")


def test_remembered_certificate_vouches_for_no_other_name(reader: Identity) -> None:
    reader.verify(Kind.REQUEST, signed_by("b"), "b")
    with pytest.raises(IdentityMismatchError, match=r"in the name of a bears the certificate of"):
        reader.verify(Kind.REQUEST, signed_by("b"), "a")


def test_remembered_certificate_vouches_for_no_word(reader: Identity) -> None:
    signed = signed_by("a")
    reader.verify(Kind.REQUEST, signed, "a")
    signed.payload += b"!"
    with pytest.raises(IdentityMismatchError, match="changed or replaced it"):
        reader.verify(Kind.REQUEST, signed, "a")


def test_node_knows_itself_as_others_know_it(reader: Identity) -> None:
    own = Identity(certificates_of("a"))
    assert own.own("a") == reader.verify(Kind.REQUEST, signed_by("a"), "a")
    assert Identity().own("a").key is None


def test_key_of_another_kind_is_named() -> None:
    with pytest.raises(ConfigurationError, match="expected an elliptic-curve or RSA key"):
        Identity(issued("a", ed25519.Ed25519PrivateKey.generate()))


def test_file_that_is_no_key_is_named() -> None:
    own = certificates_of("a")
    broken = Certificates(own.authority, own.certificate, b"-----BEGIN nothing")
    with pytest.raises(ConfigurationError, match=r"tls.key holds no private key"):
        Identity(broken)


def test_mutated_certificates_are_refused_as_such(reader: Identity) -> None:
    random = Random(7)
    whole = signed_by("a")
    for _ in range(1500):
        mutated = bytearray(whole.certificates[0])
        mutated[random.randrange(len(mutated))] = random.randrange(256)
        signed = pb.Signed(
            payload=PAYLOAD, certificates=[bytes(mutated)], signature=whole.signature
        )
        with suppress(IdentityMismatchError):  # a byte may have been what it is now
            assert reader.verify(Kind.REQUEST, signed, "a").node_id == "a"
