"""The key that gateways share: what it seals, and where it lies."""

import secrets
from pathlib import Path

import pytest

from fedattn.cli.certificates import init_certificates
from fedattn.cluster.shared_key import MAX_CONTENT_SIZE, SHARED_KEY_FILE, SharedKey
from fedattn.core.errors import CorruptFrameError

KEY = SharedKey(bytes(32))


def test_what_is_sealed_is_opened_at_its_place_alone() -> None:
    sealed = KEY.seal("jobs a", b"Ward 7 had the outbreak")
    assert b"Ward 7" not in sealed
    assert KEY.open("jobs a", sealed) == b"Ward 7 had the outbreak"
    assert KEY.seal("jobs a", b"Ward 7 had the outbreak") != sealed
    with pytest.raises(CorruptFrameError, match="jobs b"):
        KEY.open("jobs b", sealed)
    with pytest.raises(CorruptFrameError, match="same key"):
        SharedKey(secrets.token_bytes(32)).open("jobs a", sealed)


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(12), bytes(100)])
def test_what_was_never_sealed_is_refused(sealed: bytes) -> None:
    with pytest.raises(CorruptFrameError):
        KEY.open("jobs a", sealed)


def test_a_value_opens_to_no_more_than_the_limit() -> None:
    sealed = KEY.seal("jobs a", bytes(2 * MAX_CONTENT_SIZE))
    with pytest.raises(CorruptFrameError, match=str(MAX_CONTENT_SIZE)):
        KEY.open("jobs a", sealed)


def test_names_are_those_of_who_has_the_key() -> None:
    assert KEY.name("b3c1") == SharedKey(bytes(32)).name("b3c1")
    assert len({KEY.name("b3c1"), KEY.name("b3c2"), SharedKey(bytes([1] * 32)).name("b3c1")}) == 3


def test_certificates_for_a_network_come_with_a_key_of_the_gateways_that_stays(
    tmp_path: Path,
) -> None:
    init_certificates(tmp_path, ["a"], 30)
    path = tmp_path / "gateway" / SHARED_KEY_FILE
    first = path.read_text()
    SharedKey.read(path)
    assert path.stat().st_mode & 0o777 == 0o600
    init_certificates(tmp_path, ["a"], 30, renew=True)
    assert path.read_text() == first
    assert list(tmp_path.rglob(SHARED_KEY_FILE)) == [path]
    path.unlink()  # as certificates of an earlier version are
    init_certificates(tmp_path, ["a"], 30)
    assert SharedKey.read(path)
