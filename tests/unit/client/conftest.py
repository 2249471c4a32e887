"""Tests of both clients run for each of them."""

import pytest

from tests.unit.client.gateways import Blocking


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Blocking:
    return Blocking(is_async=request.param == "async")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FEDATTN_GATEWAY", "FEDATTN_API_KEY"):
        monkeypatch.delenv(name, raising=False)
