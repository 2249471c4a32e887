"""The README's first own query, command by command, on a tiny model and a free port."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from fedattn.cli.network import free_port
from tests.harness.codebase import ROOT


def steps() -> list[str]:
    """The commands of the section, in order."""
    section = (ROOT / "README.md").read_text().partition("\n## Your own texts")[2]
    blocks = re.findall(r"```\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@contextmanager
def running(command: str, folder: Path, model: Path, port: int) -> Iterator[None]:
    """`fedattn up` as the README has it, on the tiny model, until the block ends."""
    words = [*shlex.split(command)[1:], f"--model={model}", f"--port={port}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fedattn.cli.main", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        shown = list(takewhile(lambda line: not line.startswith("ask:"), process.stdout))
        assert f"http://127.0.0.1:{port}/" in shown[-1], "".join(shown)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait() == 0, rest


def run(command: str, folder: Path, port: int) -> str:
    """Run a command of the README to its end."""
    fedattn = f"{shlex.quote(sys.executable)} -m fedattn.cli.main"
    gateway = f"http://127.0.0.1:{port}"
    ended = subprocess.run(
        ["bash", "-c", command.replace(".venv/bin/fedattn", fedattn)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FEDATTN_GATEWAY": gateway, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}"
    return ended.stdout


def test_first_own_query_works_as_the_readme_tells(tmp_path: Path, tiny_folder: Path) -> None:
    *writing, up, nodes, ask = steps()
    for command in writing:
        run(command, tmp_path, 0)
    port = free_port()
    with running(up, tmp_path, tiny_folder, port):
        listed, answered = run(nodes, tmp_path, port), run(ask, tmp_path, port)
    assert re.search(r"^workshop +", listed, re.MULTILINE), listed
    assert re.search(r"workshop +contributor +complete", answered), answered
    assert re.search(r"storeroom +contributor +complete", answered), answered
