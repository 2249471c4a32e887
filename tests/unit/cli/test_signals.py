"""A network ends with the program that started it, whatever ends that."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedattn.cli.network import LocalNetwork, Part, local_network


@contextmanager
def handled_by(number: signal.Signals, handler: signal.Handlers) -> Iterator[None]:
    """As where whoever started the program has decided so."""
    before = signal.signal(number, handler)
    try:
        yield
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def run_and_raise(number: signal.Signals, process: "subprocess.Popen[bytes]") -> LocalNetwork:
    with local_network(plaintext=True) as network:
        network.parts["a"] = Part("a", process, network.log_dir / "a.log")
        signal.raise_signal(number)
    return network


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_parts_and_removes_their_folder(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with handled_by(number, signal.SIG_DFL):
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
            with pytest.raises(SystemExit) as ended:
                run_and_raise(number, process)
            assert process.poll() == -signal.SIGTERM
    assert ended.value.code == 128 + number
    assert not list(tmp_path.iterdir())


def test_a_program_under_nohup_goes_on_when_its_terminal_closes() -> None:
    with handled_by(signal.SIGHUP, signal.SIG_IGN):
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
            network = run_and_raise(signal.SIGHUP, process)
    assert not network.log_dir.exists()
