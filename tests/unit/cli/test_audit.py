"""`fedattn audit` shows the log and says where it breaks."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedattn.cli.failures import run_command
from fedattn.cli.main import command_line
from fedattn.runtime.audit import AuditEvent, AuditLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    for number in (1, 2, 3):
        log.append(
            AuditEvent(
                event="sent", session=f"s{number}", blocks=(7, 9), rows=96, subject="[b]\x1b[2J"
            )
        )
    log.close()
    return path


def run(*arguments: str) -> int:
    return run_command(
        lambda: command_line()(["audit", *arguments], prog_name="fedattn", standalone_mode=False)
    )


def head_of(path: Path) -> str:
    log = AuditLog(path)
    log.close()
    return log.head


def test_good_log_is_a_table_with_its_head(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(path)) == 0
    shown = capsys.readouterr().out
    assert f"3 entries, head {head_of(path)}" in shown
    assert "7,9" in shown
    assert r"[b]\x1b[2J" in shown


def test_broken_log_ends_with_code_1_and_the_line(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_bytes(path.read_bytes().replace(b'"s1"', b'"s9"'))
    assert run(str(path)) == 1
    captured = capsys.readouterr()
    assert "s9" in captured.out
    assert f"{path}: line 2 breaks the chain" in captured.err


def test_json_holds_entries_head_and_break(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(path), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [entry["session"] for entry in document["entries"]] == ["s1", "s2", "s3"]
    assert document["head"] == head_of(path)
    assert document["broken_line"] is None
    path.write_bytes(path.read_bytes()[:-1])
    assert run(str(path), "--json") == 1
    assert json.loads(capsys.readouterr().out)["broken_line"] == 3


def test_noted_head_is_found_while_the_log_grows_and_missed_when_cut(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = head_of(path)
    log = AuditLog(path)
    log.append(AuditEvent(event="sent"))
    log.close()
    assert run(str(path), f"--expect-head={head.upper()}") == 0
    assert "the expected head is entry 3" in capsys.readouterr().out
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert run(str(path)) == 0  # unseen
    assert run(str(path), f"--expect-head={head}") == 1
    assert "no entry has the hash" in capsys.readouterr().err


def test_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "audit.jsonl")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be read (no such file or directory)" in line
    assert run(str(tmp_path / "none" / "audit.jsonl")) == 1


def test_help_says_what_the_file_alone_cannot_show() -> None:
    shown = CliRunner().invoke(command_line(), ["audit", "--help"]).output
    assert "Only the end can be cut off unseen" in " ".join(shown.split())
