"""The folder of a service's certificates while its files change."""

import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fedattn.authority.office import Office
from fedattn.cli.certificates import init_certificates
from fedattn.core.errors import CertificateRevokedError, ConfigurationError
from fedattn.wire.certificate_folder import CertificateFolder
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.security import exposes_key

PAYLOAD = b"said"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    init_certificates(tmp_path, ["a", "b"], 30, report=lambda _: None)
    return tmp_path


def renew(made: Path) -> None:
    init_certificates(made, ["a", "b"], 30, renew=True, report=lambda _: None)


def test_newer_files_are_taken_at_a_look(made: Path) -> None:
    folder = CertificateFolder(made / "a")
    identity, before = Identity(folder), folder.current
    pinned = identity.pinned()
    old = identity.own("a")
    renew(made)
    assert folder.current is before
    folder.look()
    assert folder.current != before
    assert identity.own("a") != old
    identity.own("a").verify(Kind.KEY, PAYLOAD, identity.signature(Kind.KEY, PAYLOAD))
    old.verify(Kind.KEY, PAYLOAD, pinned.signature(Kind.KEY, PAYLOAD))  # a session ends as it began
    after = folder.current
    folder.look()
    assert folder.current is after


def test_half_a_change_waits_for_the_other_half(made: Path, tmp_path: Path) -> None:
    folder = CertificateFolder(made / "a")
    before = folder.current
    kept = tmp_path / "kept"
    shutil.copytree(made / "a", kept)
    renew(made)
    newer = (made / "a" / "tls.crt").read_bytes()
    (made / "a" / "tls.crt").write_bytes((kept / "tls.crt").read_bytes())
    with capture_logs() as logs:
        folder.look()
        folder.look()
    assert folder.current is before
    assert [entry["event"] for entry in logs] == ["certificates_not_taken"]
    (made / "a" / "tls.crt").write_bytes(newer)
    folder.look()
    assert folder.current.certificate == newer


def test_change_that_a_power_cut_left_half_done_is_finished(made: Path) -> None:
    own = made / "a"
    older = (own / "tls.crt").read_bytes()
    renew(made)
    (own / ".tls.crt.next").write_bytes((own / "tls.crt").read_bytes())
    (own / "tls.crt").write_bytes(older)
    assert CertificateFolder(own).current.certificate != older
    assert not (own / ".tls.crt.next").exists()


def test_key_of_another_certificate_is_told_at_the_start(made: Path) -> None:
    shutil.copy(made / "b" / "tls.key", made / "a" / "tls.key")
    with pytest.raises(ConfigurationError, match=r"is not the key of .*tls\.crt"):
        CertificateFolder(made / "a")


@pytest.mark.parametrize("mode", [0o604, 0o660, 0o644])
def test_key_that_others_can_read_is_refused_with_the_remedy(mode: int, made: Path) -> None:
    key = made / "a" / "tls.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    key.chmod(mode)
    with pytest.raises(ConfigurationError, match=rf"mode {mode:04o}.*chmod 600 {key}"):
        CertificateFolder(made / "a")


@pytest.mark.parametrize(
    ("mode", "owner", "is_exposed"),
    [
        (0o600, 1000, False),
        (0o640, 1000, True),
        (0o440, 0, False),
        (0o640, 0, False),
        (0o660, 0, True),
        (0o444, 0, True),
    ],
)
def test_group_may_read_the_key_that_root_owns(mode: int, owner: int, is_exposed: bool) -> None:
    assert exposes_key(mode, owner) is is_exposed


def test_revocation_outdoes_the_memory_of_verified_chains(made: Path) -> None:
    folder = CertificateFolder(made / "a")
    reader, signed = (
        Identity(folder),
        Identity(CertificateFolder(made / "b")).sign(Kind.KEY, PAYLOAD),
    )
    reader.verify(Kind.KEY, signed, "b")
    Office.open(made).revoke("b")
    reader.verify(Kind.KEY, signed, "b")  # not heard of yet
    folder.look()
    with pytest.raises(CertificateRevokedError, match="fedattn certs token"):
        reader.verify(Kind.KEY, signed, "b")
    again = Identity(CertificateFolder(made / "a"))  # nor is it forgotten at a start
    with pytest.raises(CertificateRevokedError):
        again.verify(Kind.KEY, signed, "b")


def test_forged_list_is_told_at_the_start_and_not_taken_later(made: Path, tmp_path: Path) -> None:
    folder = CertificateFolder(made / "a")
    init_certificates(tmp_path / "others", [], 30, report=lambda _: None)
    shutil.copy(tmp_path / "others" / "ca" / "revoked.crl", made / "a" / "revoked.crl")
    known = folder.revocations.newest
    with capture_logs() as logs:
        folder.look()
    assert folder.revocations.newest is known
    assert "did not sign the list" in logs[0]["error"]
    with pytest.raises(ConfigurationError, match="did not sign the list"):
        CertificateFolder(made / "a")


@pytest.mark.parametrize("content", [b"-----BEGIN CERTIFICATE-----\nx\n", b"-----BEGIN X-----\n"])
def test_authority_that_is_no_certificate_is_never_taken(content: bytes, made: Path) -> None:
    folder = CertificateFolder(made / "a")
    before = folder.current
    (made / "a" / "ca.crt").write_bytes(content)
    with capture_logs() as logs:
        folder.look()
    assert folder.current is before
    assert "ca.crt holds something else" in logs[0]["error"]
    with pytest.raises(ConfigurationError, match=r"ca\.crt holds something else"):
        CertificateFolder(made / "a")


@pytest.mark.parametrize("name", ["revoked.crl", ".tls.crt.next", "authority.txt"])
def test_file_that_cannot_be_read_is_told(name: str, made: Path) -> None:
    (made / "a" / name).unlink(missing_ok=True)
    (made / "a" / name).mkdir()
    if "next" in name:  # which is looked for where key and certificate do not match
        shutil.copy(made / "b" / "tls.key", made / "a" / "tls.key")
    with pytest.raises(ConfigurationError, match=r"cannot (be )?read"):
        assert CertificateFolder(made / "a").authority
