"""The doctor reads the settings of the service, runs all checks, and says how it went."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedattn.cli.doctor import examination
from fedattn.cli.doctor.env_file import read_env_file
from fedattn.cli.doctor.examining import examined
from fedattn.cli.doctor.finding import Check, Found, State, ok, problem, warning
from fedattn.cli.doctor.running import run_checks
from fedattn.cli.doctor.subject import Subject
from fedattn.cli.failures import run_command
from fedattn.cli.main import command_line
from fedattn.core.errors import ConfigurationError
from tests.unit.cli.doctor.subjects import subject

PREFIX = "FEDATTN_PARTICIPANT_"


def yielding(*found: Found) -> Check:
    def check(_subject: Subject) -> Iterator[Found]:
        yield from found

    return check


def failing(error: Exception) -> Check:
    def check(_subject: Subject) -> Iterator[Found]:
        yield ok("so far")
        raise error

    return check


def test_the_file_of_the_service_says_what_it_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}NODE_ID", "of-the-shell")
    before = dict(os.environ)
    file = tmp_path / "node.env"
    file.write_text(f'# made\n\n{PREFIX}NODE_ID=ward-1\n{PREFIX}MODEL="a b"\nFEDATTN_CACHE=/c\n')
    with examined({"aggregator": "10.0.0.5:1"}, file, None) as found:
        assert (found.settings.node_id, found.settings.model) == ("ward-1", "a b")
        assert str(found.settings.aggregator) == "10.0.0.5:1"
        assert os.environ["FEDATTN_CACHE"] == "/c"
    assert dict(os.environ) == before


@pytest.mark.parametrize("line", ["no pair", "1X=2", 'A="open'])
def test_a_line_that_is_no_setting_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "node.env"
    file.write_text(f"A=1\n{line}\n")
    with pytest.raises(ConfigurationError, match="line 2 is none of NAME=VALUE"):
        read_env_file(file)
    with pytest.raises(ConfigurationError, match="no such file"):
        read_env_file(tmp_path / "none")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"context": "/nowhere"}, "--context"),
        ({"node_id": "a b"}, "--node-id"),
        ({"proxy": "ftp://x"}, "proxy"),
        ({"keep_warm_s": "5"}, "keep_warm_s"),
        ({"threads": "many", "context": "/nowhere"}, "--threads"),
    ],
)
def test_settings_that_would_be_refused_hide_no_others(flags: dict[str, str], words: str) -> None:
    with examined({"model": "owner/name", **flags}, None, None) as found:
        assert words in found.refused
        assert found.settings.model == "owner/name"


def test_an_unknown_setting_of_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}MOOD", "good")
    with examined({}, None, None) as found:
        assert f"unknown setting {PREFIX}MOOD" in found.refused
        assert found.node_id is None


def test_a_check_that_fails_hides_no_other() -> None:
    checks = {
        "a": failing(ConfigurationError("bad; do this")),
        "b": failing(ZeroDivisionError("oh\x1b")),
        "c": failing(ModuleNotFoundError(name="torch")),
        "d": yielding(ok("fine")),
    }
    found = list(run_checks(checks, subject()))
    assert [one.check for one in found] == ["a", "a", "b", "b", "c", "c", "d"]
    assert (found[1].found, found[1].remedy) == ("bad", "do this")
    assert found[3].found == r"ZeroDivisionError: oh\x1b"
    assert "pip install 'fedattn[participant]'" in found[5].remedy


def test_a_check_that_hangs_is_not_waited_for() -> None:
    release = threading.Event()

    def hang(_subject: Subject) -> Iterator[Found]:
        yield ok("began")
        release.wait()

    found = list(run_checks({"a": yielding(ok("x")), "b": hang}, subject(), within_s=0))
    release.set()
    assert found[-1].state is State.PROBLEM
    assert found[-1].found == "not done within 0 s"


@pytest.mark.parametrize(
    ("found", "code"),
    [([ok("x"), warning("y", "z")], 0), ([ok("x"), problem("y", "z")], 1)],
)
def test_exit_code_is_1_only_for_a_problem(
    found: list[Found],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(examination, "CHECKS", {"one": yielding(*found)})
    app = command_line()

    def run(*words: str) -> int:
        return run_command(
            lambda: app(["doctor", *words], prog_name="fedattn", standalone_mode=False)
        )

    assert run("--node-id=a", "--plaintext", "--json") == code
    documents = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in documents] == [one.state for one in found]
    assert documents[1] == {"check": "one", "state": found[1].state, "found": "y", "remedy": "z"}
    assert run("--node-id=a", "--plaintext") == code
    shown = capsys.readouterr().out
    assert "-> z" in shown
    assert shown.splitlines()[-1].startswith("1 ok, 1 ")
