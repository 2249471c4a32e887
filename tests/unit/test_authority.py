"""The authority: who gets a certificate, of what, and what is taken back."""

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from fedattn.authority.issuing import Authority, make_authority, read_authority
from fedattn.authority.ledger import MAX_VALID_OF_A_NAME
from fedattn.authority.office import Office
from fedattn.cli.main import command_line
from fedattn.core.address import HostPort
from fedattn.core.errors import (
    CertificateRevokedError,
    ConfigurationError,
    FedAttnError,
    IdentityMismatchError,
    InvalidRequestError,
    NodeBusyError,
)
from fedattn.wire.enrolment import private_bytes, signing_request
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.join_token import JoinToken
from fedattn.wire.revocation import Revocations, read_revocation_list
from fedattn.wire.security import Certificates

ADDRESS = HostPort("127.0.0.1", 50443)
PEM = serialization.Encoding.PEM
HOUR_S = 3600.0


class Clock:
    now_s = dt.datetime.now(dt.UTC).timestamp()

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def office(tmp_path: Path, clock: Clock) -> Office:
    return Office(tmp_path, make_authority(tmp_path / "ca"), clock=clock)


def request_of(key: ec.EllipticCurvePrivateKey, name: str = "a") -> bytes:
    return signing_request(key, name).public_bytes(PEM)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def joined(office: Office, name: str = "a") -> Certificates:
    token, key = office.make_token(name, ADDRESS, HOUR_S), new_key()
    issued = office.enrol(name, token.secret, request_of(key, name))
    return Certificates(office.authority.pem, issued, private_bytes(key))


def renewal(own: Certificates, name: str = "a", kind: Kind = Kind.RENEWAL) -> bytes:
    return Identity(own).sign(kind, request_of(new_key(), name)).SerializeToString()


def serial_of(pem: bytes) -> int:
    return x509.load_pem_x509_certificate(pem).serial_number


def test_token_says_all_that_a_node_needs(office: Office) -> None:
    token = office.make_token("ward-1", ADDRESS, HOUR_S)
    assert JoinToken.parse(str(token)) == token
    token.check_authority(office.authority.pem)
    with pytest.raises(IdentityMismatchError, match="somebody else answers there"):
        token.check_authority(b"another")
    assert token.secret not in repr(token)
    ledger = (office.own_folder / "ledger.db").read_bytes()
    assert token.secret.encode() not in ledger
    for broken in (str(token)[:-20], str(token)[7:], "", "a@b:1/c/d"):
        with pytest.raises(InvalidRequestError, match="copy all of it"):
            JoinToken.parse(broken)


def test_token_is_good_once_even_after_a_restart(office: Office) -> None:
    token = office.make_token("a", ADDRESS, HOUR_S)
    again = Office.open(office.folder)
    again.enrol("a", token.secret, request_of(new_key()))
    for one in (again, office):
        with pytest.raises(IdentityMismatchError, match="used up, expired or was never made"):
            one.enrol("a", token.secret, request_of(new_key()))


def test_token_is_good_for_one_of_two_who_come_at_once(office: Office) -> None:
    token, request = office.make_token("a", ADDRESS, HOUR_S), request_of(new_key())

    def enrol(_: int) -> bool:
        try:
            return bool(office.enrol("a", token.secret, request))
        except IdentityMismatchError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enrol, range(16))) == 1


def test_token_expires(office: Office, clock: Clock) -> None:
    token = office.make_token("a", ADDRESS, HOUR_S)
    clock.now_s += HOUR_S
    with pytest.raises(IdentityMismatchError):
        office.enrol("a", token.secret, request_of(new_key()))


def test_token_is_for_one_name_and_wrong_tries_do_not_use_it_up(office: Office) -> None:
    token = office.make_token("a", ADDRESS, HOUR_S)
    with pytest.raises(IdentityMismatchError):
        office.enrol("b", token.secret, request_of(new_key(), "b"))
    with pytest.raises(InvalidRequestError, match="certificate signing request"):
        office.enrol("a", token.secret, b"nothing")
    assert office.enrol("a", token.secret, request_of(new_key()))


@pytest.mark.parametrize(
    "name",
    [
        *("ca", "CA", "authority", "Authority.", ".x", "a b", ""),
        *("Aggregator", "aggregator.", "GATEWAY"),
    ],
)
def test_names_that_mean_the_authority_or_pass_for_a_service_get_no_token(
    office: Office, name: str
) -> None:
    with pytest.raises(InvalidRequestError, match="node id"):
        office.make_token(name, ADDRESS, HOUR_S)


def test_names_that_pass_for_one_in_the_ledger_get_nothing(office: Office) -> None:
    joined(office, "ward-1")
    office.make_token("ward-2", ADDRESS, HOUR_S)
    for name in ("Ward-1", "ward-1.", "WARD-2"):
        with pytest.raises(InvalidRequestError, match="would pass for 'ward-"):
            office.make_token(name, ADDRESS, HOUR_S)
        with pytest.raises(InvalidRequestError, match="would pass for 'ward-"):
            office.certify(name, new_key().public_key(), dt.timedelta(days=1))
    for name in ("ward-1", "aggregator"):
        assert office.make_token(name, ADDRESS, HOUR_S)


def test_token_is_not_used_up_by_a_certificate_that_is_refused(
    office: Office, clock: Clock
) -> None:
    for _ in range(MAX_VALID_OF_A_NAME):
        joined(office)
    token = office.make_token("a", ADDRESS, 30 * 24 * HOUR_S)
    with pytest.raises(NodeBusyError):
        office.enrol("a", token.secret, request_of(new_key()))
    clock.now_s += 8 * 24 * HOUR_S
    assert office.enrol("a", token.secret, request_of(new_key()))


def test_request_decides_nothing_but_the_key(office: Office) -> None:
    token, key = office.make_token("a", ADDRESS, HOUR_S), new_key()
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "aggregator")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("gateway")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = office.enrol("a", token.secret, greedy.public_bytes(PEM))
    issued = x509.load_pem_x509_certificate(pem)
    assert issued.public_key() == key.public_key()
    assert issued.subject.rfc4514_string() == "CN=a"
    constraints = issued.extensions.get_extension_for_class(x509.BasicConstraints).value
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert not constraints.ca
    assert names.get_values_for_type(x509.DNSName) == ["a"]
    assert issued.not_valid_after_utc - dt.datetime.now(dt.UTC) <= dt.timedelta(days=7)


def test_request_of_another_kind_of_key_is_refused(office: Office) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(key, hashes.SHA256())
    with pytest.raises(InvalidRequestError, match="expected an elliptic-curve key"):
        office.enrol("a", "x", request.public_bytes(PEM))


def test_who_has_the_present_key_gets_a_newer_certificate(office: Office) -> None:
    own, other = joined(office), joined(office, "b")
    assert serial_of(office.renew("a", renewal(own))) != serial_of(own.certificate)
    with pytest.raises(IdentityMismatchError, match="bears the certificate of"):
        office.renew("a", renewal(other))
    with pytest.raises(IdentityMismatchError, match="is not what a signed"):
        office.renew("a", renewal(own, kind=Kind.REQUEST))
    with pytest.raises(IdentityMismatchError, match="bears no certificate"):
        office.renew("a", b"")


def test_revoked_is_not_renewed_and_may_join_again(office: Office) -> None:
    own = joined(office)
    waiting = office.make_token("a", ADDRESS, HOUR_S)
    assert office.revoke("a") == 1
    assert office.revoke("a") == 0
    with pytest.raises(CertificateRevokedError, match="make a token"):
        office.renew("a", renewal(own))
    with pytest.raises(IdentityMismatchError):  # tokens made before are gone too
        office.enrol("a", waiting.secret, request_of(new_key()))
    assert office.renew("a", renewal(joined(office)))


def test_expired_is_not_renewed(office: Office, clock: Clock) -> None:
    own = joined(office)
    clock.now_s += (7 * 24 + 1) * HOUR_S
    with pytest.raises(IdentityMismatchError, match="not valid now"):
        office.renew("a", renewal(own))


def test_node_cannot_fill_the_ledger(office: Office) -> None:
    own = joined(office)
    for _ in range(MAX_VALID_OF_A_NAME - 1):
        office.renew("a", renewal(own))
    with pytest.raises(NodeBusyError, match="at most 16 may"):
        office.renew("a", renewal(own))


def test_list_names_what_is_revoked_and_newer_ones_count_more(office: Office) -> None:
    own, before = joined(office), office.revoked()
    office.revoke("a")
    authorities = [office.authority.certificate]
    old, new = (read_revocation_list(pem, authorities) for pem in (before, office.revoked()))
    assert not old.serials
    assert new.serials == {serial_of(own.certificate)}
    known, told = Revocations(), list[int]()
    known.listen(lambda: told.append(1))
    assert known.take(new)
    with capture_logs() as logs:
        assert not known.take(old)
        assert not known.take(old)
        assert not known.take(new)
    assert [entry["event"] for entry in logs] == ["older_list"]
    assert len(told) == 1
    with pytest.raises(CertificateRevokedError):
        known.refuse(new.serials, "a")


def test_one_folder_that_cannot_be_written_keeps_the_list_from_no_other(office: Office) -> None:
    for name in ("a", "b", "c"):
        (office.folder / name).mkdir()
        (office.folder / name / "ca.crt").write_bytes(office.authority.pem)
    (office.folder / "b" / "revoked.crl").mkdir()
    joined(office)
    with capture_logs() as logs:
        assert office.revoke("a") == 1
    assert [entry["event"] for entry in logs] == ["list_not_written"]
    assert office.not_told == (office.folder / "b",)
    for name in ("a", "c"):
        assert (office.folder / name / "revoked.crl").read_bytes() == office.revoked()


def test_command_fails_where_nothing_is_revoked_or_not_all_are_told(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    def revoke(name: str) -> int:
        words = ["certs", "revoke", name, f"--folder={office.folder}"]
        return command_line()(words, standalone_mode=False) or 0

    joined(office)
    assert revoke("b") == 1
    assert "none known of b" in capsys.readouterr().err
    assert revoke("a") == 0
    joined(office)
    (office.folder / "b" / "revoked.crl").mkdir(parents=True)
    (office.folder / "b" / "ca.crt").touch()
    assert revoke("a") == 1
    assert "b: not written" in capsys.readouterr().err


def test_list_that_is_served_is_signed_anew_with_time(office: Office, clock: Clock) -> None:
    before = office.revoked()
    assert office.revoked() == before
    clock.now_s += 25 * HOUR_S
    assert office.revoked() != before


def test_numbers_of_lists_grow_though_the_ledger_be_lost(office: Office, clock: Clock) -> None:
    authorities, known = [office.authority.certificate], Revocations()
    known.take(read_revocation_list(office.revoked(), authorities))
    (office.own_folder / "ledger.db").unlink()
    clock.now_s += 1
    again = Office(office.folder, office.authority, clock=clock)
    for _ in range(2):  # at the same time too
        again.revoke("a")
        assert known.take(read_revocation_list(again.revoked(), authorities))


def another_authority(folder: Path) -> Authority:
    made = Office(folder / "other", make_authority(folder / "other" / "ca"))
    return made.authority


@pytest.mark.parametrize(
    "forge",
    [lambda pem: b"", lambda pem: pem[:200], lambda pem: b"x" * (5 << 20)],
    ids=["empty", "cut", "huge"],
)
def test_what_is_no_list_is_refused(forge: Callable[[bytes], bytes], office: Office) -> None:
    with pytest.raises(IdentityMismatchError, match="revocations"):
        read_revocation_list(forge(office.revoked()), [office.authority.certificate])


def test_list_of_another_authority_is_refused(office: Office, tmp_path: Path) -> None:
    other = another_authority(tmp_path)
    with pytest.raises(IdentityMismatchError, match="did not sign the list"):
        read_revocation_list(office.revoked(), [other.certificate])
    assert read_revocation_list(office.revoked(), [other.certificate, office.authority.certificate])


def test_files_are_for_one_user_alone(office: Office) -> None:
    assert office.own_folder.stat().st_mode & 0o777 == 0o700
    for path in office.own_folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_missing_or_broken_authority_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no authority"):
        Office.open(tmp_path)
    (tmp_path / "ca.key").write_text("nothing")
    with pytest.raises(FedAttnError, match="holds no authority"):
        read_authority(tmp_path)
