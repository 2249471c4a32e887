"""The aggregator and the gateway run where torch is not installed."""

import subprocess
import sys

import pytest

BLOCKED = ("torch", "transformers", "tokenizers", "safetensors")


@pytest.mark.parametrize("module", ["services.aggregator.__main__", "gateway.__main__"])
def test_service_imports_no_model_library(module: str) -> None:
    program = (
        "import importlib, sys\n"
        f"for name in {BLOCKED!r}: sys.modules[name] = None\n"  # importing one now fails
        f"importlib.import_module({module!r})\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
