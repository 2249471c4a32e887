"""The command as a process: streams that cannot be written, locales, signals, doors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fedattn
from tests.harness.forks import run_cli

COMMAND = (sys.executable, "-m", "fedattn.cli.main")


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which $fedattn is the command."""
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "fedattn": " ".join(COMMAND), **environment},
    )


@pytest.mark.parametrize("words", [["--version"], ["version"]])
def test_version_is_told_in_both_ways(words: list[str]) -> None:
    told = run_cli(*words)
    assert (told.returncode, told.stdout.strip()) == (0, fedattn.__version__)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ask"], "error [usage]: Missing argument 'question'; see: fedattn ask --help"),
        (["ask", "x", "--colour"], "error [usage]: No such option: --colour; see: fedattn ask"),
        (["fly"], "error [usage]: No such command 'fly'; see: fedattn --help"),
        (["up", "--port=99999"], "error [usage]: Invalid value for '--port': "),
    ],
)
def test_misuse_is_one_line_and_code_2(words: list[str], line: str) -> None:
    ended = run_cli(*words)
    assert ended.returncode == 2
    (told,) = ended.stderr.splitlines()
    assert told.startswith(line)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("$fedattn version > /dev/full", "error [configuration]: output: No space left on device"),
        ("$fedattn version >&-", ""),
        ("$fedattn --help | true", ""),
        ("$fedattn ask x --gateway=ftp://x 2>&-", ""),
        ("$fedattn ask x --gateway=ftp://x 2>/dev/full", ""),
    ],
)
def test_streams_that_cannot_be_written_end_in_no_traceback(line: str, told: str) -> None:
    assert shell(line).stderr.strip() == told


def test_undecodable_bytes_are_refused_at_every_option() -> None:
    ended = shell("$fedattn cost --contexts=1 --model=$'caf\\xe9'")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error [invalid_request]: argument 3, ")


def test_a_locale_that_cannot_print_gets_escapes(tmp_path: Path) -> None:
    ended = shell(
        "$fedattn simulate --cases=$'\\xe8\\x8c\\xb6'", LC_ALL="C", PYTHONIOENCODING="ascii"
    )
    assert ended.returncode == 1
    assert r"cases \u8336 cannot be read" in ended.stderr


@pytest.mark.parametrize("line", ['{"contexts": ["\\ud800"], "question": "q", "answer": "a"}'])
def test_half_characters_in_cases_are_refused_with_their_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(line)
    ended = run_cli("simulate", f"--cases={path}")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error [invalid_request]: cases {path}, line 1 holds bytes")


def test_a_profile_that_is_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.json").mkdir()
    ended = run_cli("cost", "--contexts=20,30", f"--plan={tmp_path / 'p.json'}")
    assert ended.returncode == 1
    (told,) = ended.stderr.splitlines()
    assert told.startswith(f"error [invalid_plan]: profile {tmp_path / 'p.json'} cannot be read")
