"""The doctor finds what is wrong with a folder of certificates, and says what to do."""

import shutil
import time
from pathlib import Path

import pytest

from fedattn.authority.office import Office
from fedattn.cli.certificates import init_certificates
from fedattn.cli.doctor.certificates import check_certificates
from fedattn.cli.doctor.finding import State
from tests.unit.cli.doctor.subjects import not_ok, states, subject

DAY_S = 86_400.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_certificates(tmp_path / "certs", ["ward-1"], 100, report=lambda _: None)
    return tmp_path / "certs" / "ward-1"


def test_a_good_folder_has_nothing_to_look_at(folder: Path) -> None:
    found = list(check_certificates(subject("--node-id=ward-1", f"--certificates={folder}")))
    assert not_ok(found) == []
    assert "renews" in found[-1].found  # nobody does, with keys that were made at one place


def test_a_key_that_others_can_read_is_a_problem(folder: Path) -> None:
    (folder / "tls.key").chmod(0o644)
    with pytest.raises(Exception, match="chmod 600"):
        list(check_certificates(subject(f"--certificates={folder}")))


def test_a_folder_that_others_may_look_into_is_a_warning(folder: Path) -> None:
    folder.chmod(0o755)
    (found,) = not_ok(check_certificates(subject(f"--certificates={folder}")))
    assert (found.state, found.remedy) == (State.WARNING, f"chmod 700 {folder}")


def test_certificates_of_another_node_are_a_problem(folder: Path) -> None:
    (found,) = not_ok(check_certificates(subject("--node-id=ward-2", f"--certificates={folder}")))
    assert found.state is State.PROBLEM
    assert "is of ward-1, the node is ward-2" in found.found


@pytest.mark.parametrize(
    ("days", "state", "words"),
    [
        (-2, State.PROBLEM, "set the clock"),
        (10, None, ""),
        (90, State.WARNING, "join again"),
        (101, State.PROBLEM, "join again"),
    ],
)
def test_time_left_is_told(folder: Path, days: int, state: State | None, words: str) -> None:
    then = time.time() + days * DAY_S
    checked = check_certificates(subject(f"--certificates={folder}"), lambda: then)
    (life,) = (one for one in checked if one.found.startswith(("valid", "expired")))
    assert (life.state if not_ok([life]) else None, words in life.remedy) == (state, True)


def test_an_old_list_of_revoked_ones_is_a_warning(folder: Path) -> None:
    then = time.time() + 95 * DAY_S
    found = check_certificates(subject(f"--certificates={folder}"), lambda: then)
    assert any("stale for" in one.found for one in not_ok(found))
    (folder / "revoked.crl").unlink()
    (found_without,) = not_ok(check_certificates(subject(f"--certificates={folder}")))
    assert "no revoked.crl" in found_without.found


def test_a_revoked_certificate_is_a_problem(folder: Path) -> None:
    Office.open(folder.parent).revoke("ward-1")
    (found,) = not_ok(check_certificates(subject(f"--certificates={folder}")))
    assert (found.state, found.found) == (State.PROBLEM, "this certificate is revoked")


def test_another_authority_is_a_problem(folder: Path, tmp_path: Path) -> None:
    init_certificates(tmp_path / "other", [], 100, report=lambda _: None)
    shutil.copy(tmp_path / "other" / "gateway" / "ca.crt", folder / "ca.crt")
    (folder / "revoked.crl").unlink()
    found = not_ok(check_certificates(subject(f"--certificates={folder}")))
    assert any("ca.crt did not sign tls.crt" in one.found for one in found)


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        (["--plaintext"], State.SKIPPED),
        (["--plaintext", "--aggregator=10.0.0.5:50051"], State.WARNING),
        (["--node-id=a"], State.PROBLEM),
        ([], State.SKIPPED),
    ],
)
def test_plaintext_is_well_on_the_loopback_only(flags: list[str], state: State) -> None:
    assert states(check_certificates(subject(*flags))) == [state]
