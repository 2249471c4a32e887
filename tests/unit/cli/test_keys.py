"""`fedattn keys`."""

import json
from pathlib import Path

import pytest

from fedattn.cli.main import command_line
from fedattn.core.errors import InvalidRequestError
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
