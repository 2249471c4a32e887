"""Output of commands is the same whatever the terminal of whoever tests."""

import pytest


@pytest.fixture(autouse=True)
def _wide_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a program reads it: neither wrapped nor coloured."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
