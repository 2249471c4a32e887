"""Every command that prints results prints them as JSON too, and then nothing else on stdout."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks.command_table import commands
from fedattn import __version__
from fedattn.cli.failures import run_command
from fedattn.cli.main import command_line
from fedattn.cli.outfiles import STDOUT, report_console, validate_out, write_out
from fedattn.model.prepare import PreparedModel, Progress
from fedattn.wire.protocol import PROTOCOL_VERSION

SERVING = {"demo", "up", "mcp", "certs serve", "approvals serve"}
"""Show what they do until they end; there is no result for programs."""


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The JSON that a command prints."""
    capsys.readouterr()
    code = run_command(
        lambda: command_line()([*words, "--json"], prog_name="fedattn", standalone_mode=False)
    )
    assert code == 0
    return json.loads(capsys.readouterr().out)


def test_every_command_with_a_result_has_json() -> None:
    root = typer.main.get_command(command_line())
    without = {
        path.removeprefix("fedattn ")
        for path, command in commands(root)
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without <= SERVING | {"fedattn"}


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(capsys, "version")
    assert (told["version"], told["protocol"]) == (__version__, PROTOCOL_VERSION)


def test_model_prepare_tells_its_steps_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(model: str, *, progress: Progress) -> PreparedModel:
        progress("fetching it, once")
        progress("reading it")
        return PreparedModel(path=Path("/cache/x"), fingerprint="9f" * 32, name=model)

    monkeypatch.setattr("fedattn.model.prepare.prepare_model", prepare)
    told = printed(capsys, "model", "prepare", "owner/name")
    assert told == {
        "name": "owner/name",
        "path": "/cache/x",
        "fingerprint": "9f" * 32,
        "has_profile": False,
    }


def test_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "certs"
    made = printed(capsys, "certs", "init", "ward-1", f"--out={folder}")
    assert made["ward-1"] == str(folder / "ward-1")
    listed = printed(capsys, "certs", "list", f"--folder={folder}")
    assert {one["name"]: one["state"] for one in listed}["ward-1"] == "valid"
    flags = (f"--folder={folder}", "--authority=10.0.0.5:50443")
    token = printed(capsys, "certs", "token", "ward-2", *flags)
    assert token["token"].startswith("ward-2@10.0.0.5:50443/")
    revoked = printed(capsys, "certs", "revoke", "ward-1", f"--folder={folder}")
    assert revoked == {"name": "ward-1", "revoked": 1, "not_told": []}


def test_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flag = f"--keys={tmp_path / 'keys.json'}"
    key = printed(capsys, "keys", "create", "anna", flag)["key"]
    (listed,) = printed(capsys, "keys", "list", flag)
    assert listed["id"] in key
    assert "sha256" not in listed
    assert printed(capsys, "keys", "revoke", "anna", flag) == [listed]


def test_results_for_people_make_room_for_json(capsys: pytest.CaptureFixture[str]) -> None:
    validate_out("--json", STDOUT)
    write_out("--json", STDOUT, "{}\n")
    report_console(STDOUT).print("sums")
    report_console(None).print("more")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("{}\nmore\n", "sums\n")
