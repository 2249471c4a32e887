"""Who may ask at the gateway: keys, refusals in their order, and the name that nodes are told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from fedattn.core.errors import ConfigurationError
from fedattn.runtime.api_keys import ApiKey, KeyFile
from fedattn.runtime.audit import AuditLog
from fedattn.runtime.audit_chain import read_log
from fedattn.runtime.state import replace_file
from gateway.app import create_app
from gateway.callers import Limits
from gateway.sign_in import KeyRing
from tests.harness.gateway import QUESTION, Gate, check_problem, make_settings, running
from tests.harness.networks import Network
from tests.harness.tiny import words

MakeKey = Callable[..., dict[str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def make_key(path: Path) -> MakeKey:
    """Makes a key, and returns the header that shows it."""

    def make(name: str = "anna", **fields: object) -> dict[str, str]:
        key = KeyFile(path).create(
            lambda key_id, sha256: ApiKey.model_validate(
                {"id": key_id, "name": name, "sha256": sha256, "created_at": 0.0, **fields}
            )
        )
        return {"Authorization": f"Bearer {key}"}

    return make


@pytest.fixture
def anna(make_key: MakeKey) -> dict[str, str]:
    return make_key()


async def test_without_a_key_nothing_but_the_probes_answers(
    path: Path, anna: dict[str, str]
) -> None:
    async with running(flags=[f"--keys={path}"]) as gateway:
        for route in ("/v1/participants", "/docs", "/openapi.json", "/nowhere"):
            response = await gateway.client.get(route)
            check_problem(response, 401, "not_signed_in")
            assert response.headers["www-authenticate"] == 'Bearer realm="fedattn"'
            assert (await gateway.client.get(route, headers=anna)).status_code in {200, 404}
        check_problem(await gateway.ask(), 401, "not_signed_in")
        assert (await gateway.client.get("/healthz")).status_code == 200
        assert (await gateway.client.get("/readyz")).status_code == 200
        assert gateway.participant.requests == []


async def test_the_page_loads_without_a_key_and_lets_nothing_else_in(
    path: Path, anna: dict[str, str]
) -> None:
    async with running(flags=[f"--keys={path}"]) as gateway:
        for route in ("/", "/page/main.js", "/page/shared/look.css"):
            response = await gateway.client.get(route)
            assert response.status_code == 200
            assert "default-src 'self'" in response.headers["content-security-policy"]
            assert "unsafe" not in response.headers["content-security-policy"]
        for route in ("/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page/none.js"):
            check_problem(await gateway.client.get(route), 404, "not_found")
        check_problem(await gateway.client.get("/page"), 401, "not_signed_in")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer fa_000000000000_" + "A" * 43},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
        {"X-API-Key": "fa_"},
        {"Authorization": "Bearer \xe9"},
    ],
)
async def test_what_is_no_key_is_refused(
    path: Path, anna: dict[str, str], headers: dict[str, str]
) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    async with running(flags=[f"--keys={path}"]) as gateway:
        response = await gateway.client.get("/v1/participants", headers=encoded)
    check_problem(response, 401, "not_signed_in")


async def test_who_is_not_signed_in_is_refused_before_the_body_is_read(
    path: Path, anna: dict[str, str]
) -> None:
    async def never_read() -> AsyncIterator[bytes]:
        yield b"{"
        raise AssertionError("the body was read")

    async with running(flags=[f"--keys={path}"]) as gateway:
        response = await gateway.client.post("/v1/queries", content=never_read())
    check_problem(response, 401, "not_signed_in")


async def test_a_key_may_come_in_a_header_of_its_own(path: Path, anna: dict[str, str]) -> None:
    key = anna["Authorization"].removeprefix("Bearer ")
    async with running(flags=[f"--keys={path}"]) as gateway:
        response = await gateway.client.get("/v1/participants", headers={"X-API-Key": key})
    assert response.status_code == 200


async def test_nodes_are_told_the_name_of_the_key(path: Path, anna: dict[str, str]) -> None:
    async with running(flags=[f"--keys={path}"]) as gateway:
        gateway.client.headers.update(anna)
        assert (await gateway.ask()).status_code == 200
        assert (await gateway.ask(subject="anna")).status_code == 200
        warmed = await gateway.client.post("/v1/warm", json={})
        assert warmed.status_code == 200
        told = [request.options.subject for request in gateway.participant.requests]
    assert told == ["anna"] * 3


async def test_nobody_speaks_for_somebody_else(path: Path, anna: dict[str, str]) -> None:
    async with running(flags=[f"--keys={path}"]) as gateway:
        gateway.client.headers.update(anna)
        refused = await gateway.ask(subject="bert")
        warmed = await gateway.client.post("/v1/warm", json={"subject": "bert"})
        assert gateway.participant.requests == []
    assert "signed in as 'anna'" in check_problem(refused, 403, "not_allowed")["detail"]
    check_problem(warmed, 403, "not_allowed")


async def test_an_open_gateway_passes_on_what_the_client_says() -> None:
    async with running() as gateway:
        await gateway.ask(subject="bert")
        assert gateway.participant.requests[0].options.subject == "bert"


async def test_a_key_asks_through_its_publishers_only(path: Path, make_key: MakeKey) -> None:
    second = make_key("bert", publishers=["b"])
    none = make_key("carl", publishers=["z"])
    async with running(publishers=["a", "b"], flags=[f"--keys={path}"]) as gateway:
        gateway.client.headers.update(second)
        assert (await gateway.ask()).status_code == 200  # the first that it may ask
        refused = await gateway.ask(publisher="a")
        assert (await gateway.ask(publisher="b")).status_code == 200
        gateway.client.headers.update(none)
        nowhere = await gateway.ask()
    check_problem(refused, 403, "not_allowed")
    check_problem(nowhere, 403, "not_allowed")


async def test_too_many_requests_are_refused_with_the_time_to_wait(
    path: Path, make_key: MakeKey
) -> None:
    key = make_key(queries_per_minute=1, publishers=["a"])
    async with running(publishers=["a"], flags=[f"--keys={path}"]) as gateway:
        gateway.client.headers.update(key)
        assert (await gateway.ask()).status_code == 200
        response = await gateway.ask()
        check_problem(response, 429, "rate_limited")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        # what is not allowed at all is said first
        check_problem(await gateway.ask(subject="bert"), 403, "not_allowed")
        check_problem(await gateway.ask(publisher="b"), 403, "not_allowed")
        # looking is counted apart: who watches the network still has its queries
        assert (await gateway.client.get("/v1/participants")).status_code == 200
        listing = await gateway.client.get("/v1/participants")
        check_problem(listing, 429, "rate_limited")


async def test_bytes_of_answers_count_against_the_budget(path: Path, make_key: MakeKey) -> None:
    key = make_key(kv_bytes_per_day=120)  # which the script's report says
    async with running(flags=[f"--keys={path}"]) as gateway:
        gateway.client.headers.update(key)
        assert (await gateway.ask()).status_code == 200
        assert "120 bytes" in check_problem(await gateway.ask(), 429, "rate_limited")["detail"]


async def test_a_key_holds_no_more_places_than_it_may(path: Path, make_key: MakeKey) -> None:
    key, other = make_key(max_concurrent=1), make_key("bert")
    body = {"question": QUESTION}
    gate = Gate()
    async with running(gate, flags=[f"--keys={path}"]) as gateway:
        asking = asyncio.create_task(gateway.client.post("/v1/queries", json=body, headers=key))
        await gateway.participant.started.wait()
        waits_not = {**body, "max_wait_s": 0}
        refused = await gateway.client.post("/v1/queries", json=waits_not, headers=key)
        gate.open.set()
        others = await gateway.client.post("/v1/queries", json=body, headers=other)
        assert (await asking).status_code == others.status_code == 200
    check_problem(refused, 429, "rate_limited")


async def test_keys_are_read_again_when_the_file_changes(
    path: Path, anna: dict[str, str], make_key: MakeKey
) -> None:
    async with running(flags=[f"--keys={path}"]) as gateway:
        later = make_key("bert")
        for headers in (anna, later):
            response = await gateway.client.get("/v1/participants", headers=headers)
            assert response.status_code == 200
        KeyFile(path).revoke("anna")
        response = await gateway.client.get("/v1/participants", headers=anna)
        check_problem(response, 401, "not_signed_in")


async def test_nobody_signs_in_while_the_file_cannot_be_read(
    path: Path, anna: dict[str, str]
) -> None:
    async with running(flags=[f"--keys={path}"]) as gateway:
        replace_file(path, b"broken")
        response = await gateway.client.get("/v1/participants", headers=anna)
    check_problem(response, 401, "not_signed_in")


def test_a_missing_file_of_keys_is_an_error_at_the_start(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="fedattn keys create NAME"):
        KeyRing(path, Limits())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--open", "--keys=k"], "--open lets anyone ask"),
        (["--oidc-issuer=https://i"], "--oidc-issuer and --oidc-audience go together"),
        (["--tls-key=k"], "--tls-certificate and --tls-key go together"),
        (["--cors-origin=*"], "expected origins such as"),
        (["--cors-origin=https://a/b"], "expected origins such as"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_settings(flags=flags)


async def test_the_name_is_in_the_record_of_who_gave(
    network: Network, path: Path, anna: dict[str, str]
) -> None:
    record = AuditLog(path.with_name("audit.jsonl"))
    network.nodes["node-0"].consent.audit = record
    app = create_app(make_settings(network.aggregator, flags=[f"--keys={path}"]))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            body = {"question": words(60, 4), "sampling": {"max_new_tokens": 2}}
            answer = await client.post("/v1/queries", json=body, headers=anna)
    assert answer.status_code == 200
    entries = read_log(path.with_name("audit.jsonl")).entries
    assert {entry["subject"] for entry in entries} == {"anna"}
    assert {entry["event"] for entry in entries} == {"allowed", "sent"}
