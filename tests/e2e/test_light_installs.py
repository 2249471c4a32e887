"""The aggregator and the gateway run where torch is not installed."""

import subprocess
import sys

import pytest

BLOCKED = ("torch", "transformers", "tokenizers", "safetensors")


def run_without(names: tuple[str, ...], program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in which importing any of `names` fails, as where they are not installed."""
    block = f"import sys\nfor name in {names!r}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", block + program], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("module", ["services.aggregator.__main__", "gateway.__main__"])
def test_service_imports_no_model_library(module: str) -> None:
    ended = run_without(BLOCKED, f"import importlib; importlib.import_module({module!r})")
    assert ended.returncode == 0, ended.stderr


def test_participant_says_which_extra_it_needs() -> None:
    program = (
        "sys.argv = ['participant', '--node-id=a', '--plaintext']\n"
        "from services.participant.__main__ import main\n"
        "sys.exit(main())\n"
    )
    ended = run_without(BLOCKED, program)
    assert ended.returncode == 1
    assert "pip install 'fedattn[participant]'" in ended.stderr
    assert "Traceback" not in ended.stderr
