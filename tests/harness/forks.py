"""Processes forked from one that has torch and transformers in it: to import them takes seconds.

Each is a process of its own all the same, with its own arguments, environment, streams and end.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from benchmarks.uplink import enter, own_namespace

multiprocessing.get_context("forkserver").set_forkserver_preload(
    [
        "tests.chaos.wall_clock",  # before all that takes the time
        "fedattn.model.engine",
        "services.participant.app",
        "transformers.models.llama.modeling_llama",
        "transformers.models.qwen2.modeling_qwen2",
        "typer",
    ]
)


class Fork(ForkServerProcess):
    """`python -m` with some words, as subprocess.Popen has it; its streams go to files.

    It is in the network namespace of the thread that starts it, as any child.
    """

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], stdout: Path, stderr: Path
    ) -> None:
        arguments = (words, dict(environment), stdout, stderr, own_namespace())
        super().__init__(target=_run, args=arguments, daemon=True)
        self.start()

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code once it has ended; TimeoutExpired if it does not in time."""
        self.join(timeout)
        if self.exitcode is None:
            raise subprocess.TimeoutExpired(self.name, timeout or 0)
        return self.exitcode


def fork_part(command: list[str], log_path: Path) -> Fork:
    """Start a part of a network, `python -m` and some words, as a fork."""
    return Fork(command[2:], os.environ, log_path, log_path)


def run_cli(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `fedattn` to its end, as a user types it."""
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        code = Fork(["fedattn.cli.main", *arguments], os.environ, stdout, stderr).wait()
        return subprocess.CompletedProcess(arguments, code, stdout.read_text(), stderr.read_text())


def _run(
    words: Sequence[str],
    environment: dict[str, str],
    stdout: Path,
    stderr: Path,
    namespace: str | None,
) -> None:
    os.setsid()  # as the parts of a network
    if namespace is not None:
        enter(namespace)
    os.environ.clear()
    os.environ.update(environment)
    for path, stream in ((stdout, sys.stdout), (stderr, sys.stderr)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, stream.fileno())
        os.close(opened)
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
