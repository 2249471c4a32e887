"""`fedattn keys`."""

import json
from pathlib import Path

import pytest

from fedattn.cli.main import command_line
from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.runtime.api_keys import KeyFile


def run(*words: str) -> None:
    command_line()(["keys", *words], standalone_mode=False)


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "keys.json"
    monkeypatch.setenv("FEDATTN_GATEWAY_KEYS", str(file))
    return file


def test_a_key_is_printed_once_with_its_limits_kept(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("create", "anna", "--publisher=a", "--publisher=b", "--queries-per-minute=3")
    key = capsys.readouterr().out.strip()
    run("list", "--json")
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["id"] == key[3:15]
    assert (listed["publishers"], listed["queries_per_minute"]) == (["a", "b"], 3)
    run("list")
    shown = capsys.readouterr().out
    assert "anna" in shown
    assert key[16:] not in path.read_text() + shown


def test_a_key_may_expire(path: Path) -> None:
    run("create", "anna", "--expires-days=2")
    (key,) = KeyFile(path).read()
    assert key.expires_at == pytest.approx(key.created_at + 2 * 86_400)


def test_a_revoked_key_is_gone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("create", "anna")
    run("revoke", "anna")
    assert "of anna" in capsys.readouterr().out
    assert KeyFile(path).read() == ()


@pytest.mark.parametrize("words", [["a b"], ["a", "--max-concurrent=0"], ["a", "--publisher=x y"]])
def test_a_mistake_makes_no_key(path: Path, words: list[str]) -> None:
    with pytest.raises(InvalidRequestError):
        run("create", *words)
    assert not path.exists()


def test_keys_of_another_file_are_copied(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    run("create", "anna", f"--keys={other}")
    run("create", "ben")
    for _ in range(2):
        run("import", str(other))
        assert [key.name for key in KeyFile(path).read()] == ["ben", "anna"]


def test_keys_in_nats_need_the_key_that_seals_them() -> None:
    with pytest.raises(ConfigurationError, match="--shared-key"):
        run("list", "--nats=nats://127.0.0.1:1")


def test_a_nats_that_is_not_there_is_named(tmp_path: Path) -> None:
    shared_key = tmp_path / "shared.key"
    shared_key.write_text("5e" * 32)
    with pytest.raises(ConfigurationError, match=r"NATS cannot be used.*127\.0\.0\.1:1"):
        run("list", "--nats=nats://127.0.0.1:1", f"--shared-key={shared_key}")


@pytest.mark.parametrize("content", [None, "short", "zz" * 32])
def test_a_shared_key_of_no_use_is_named(tmp_path: Path, content: str | None) -> None:
    shared_key = tmp_path / "shared.key"
    if content is not None:
        shared_key.write_text(content)
    with pytest.raises(ConfigurationError, match="openssl rand -hex 32"):
        run("list", "--nats=nats://127.0.0.1:1", f"--shared-key={shared_key}")
