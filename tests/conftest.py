"""Settings for all tests."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may depend on a hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # nor wait for cores that other tests use

import pytest
import structlog
import torch

torch.set_num_threads(1)  # many small nodes share the cores
structlog.configure(  # as services log; the default takes seconds to draw every local of a stack
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(autouse=True)
def _no_service_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the developer's shell must not reach services under test."""
    for key in list(os.environ):
        if key.startswith(("FEDATTN_AGGREGATOR_", "FEDATTN_PARTICIPANT_", "FEDATTN_GATEWAY_")):
            monkeypatch.delenv(key)
