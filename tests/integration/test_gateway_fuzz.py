"""The gateway answers whatever its OpenAPI document allows, and much that it does not, as it says.

Schemathesis draws the requests. `make fuzz` draws more of them, with the profile `fuzz`.
"""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.app import create_app
from tests.harness.gateway import make_settings, running, served

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
settings.register_profile(
    "fuzz", deadline=None, max_examples=2000, suppress_health_check=list(HealthCheck)
)
few = settings(max_examples=25, deadline=None, derandomize=True, database=None,
               suppress_health_check=list(HealthCheck))  # fmt: skip
bounded = settings.get_profile("fuzz") if settings.get_current_profile_name() == "fuzz" else few
document = create_app(make_settings()).openapi()
schema = schemathesis.openapi.from_dict(document)
MODES = list(schemathesis.GenerationMode)
OPERATIONS = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A gateway on a port of its own, before a publisher whose queries all go well."""
    loop, ready, stopping = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with running() as harness, served(harness) as (address, _):
            urls.append(address)
            ready.set()
            await stopping.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield urls[0]
    loop.call_soon_threadsafe(stopping.set)
    thread.join()
    loop.close()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_answers_are_those_of_the_document(operation: Any, url: str) -> None:
    @bounded
    @given(st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in MODES)))
    def call(case: Any) -> None:
        case.call_and_validate(base_url=url, checks=CHECKS)

    call()
