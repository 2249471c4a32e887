"""What heads of requests may hold, and what answers say to browsers."""

from pathlib import Path

import pytest

from gateway.heads import MAX_HEADERS
from tests.harness.gateway import check_problem, running

PAGE = {"Origin": "https://desk.example"}
ASKS = PAGE | {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


@pytest.mark.parametrize("route", ["/healthz", "/v1/participants", "/nowhere", "/docs"])
async def test_every_answer_is_closed_to_guesses_frames_and_caches(route: str) -> None:
    async with running() as gateway:
        headers = (await gateway.client.get(route)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


async def test_the_page_may_run_its_own_parts_alone() -> None:
    async with running() as gateway:
        policy = (await gateway.client.get("/docs")).headers["content-security-policy"]
        style = await gateway.client.get("/static-offline-docs/swagger-ui.css")
    assert "script-src 'self' 'unsafe-inline'" in policy
    assert "://" not in policy
    assert "cache-control" not in style.headers


@pytest.mark.parametrize(
    "headers",
    [{f"x-{n}": "1" for n in range(MAX_HEADERS)}, {"x-long": "a" * (17 << 10)}],
    ids=["many", "long"],
)
async def test_heads_that_are_too_large_are_refused(headers: dict[str, str]) -> None:
    async with running() as gateway:
        response = await gateway.client.get("/nowhere", headers=headers)
    check_problem(response, 431, "request_header_fields_too_large")
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""]
)
async def test_page_that_names_this_machine_its_own_may_not_ask(host: str) -> None:
    async with running() as gateway:
        answer = await gateway.client.get("/v1/participants", headers={"Host": host})
    check_problem(answer, 421, "misdirected_request")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "flags"),
    [
        ("127.0.0.1:8000", []),
        ("[::1]:8000", []),
        ("LOCALHOST", []),
        ("desk", ["--listen=desk:8000"]),
        ("gateway.example", ["--open"]),
    ],
)
async def test_names_of_this_machine_are_answered_and_all_where_anyone_may_ask(
    host: str, flags: list[str]
) -> None:
    async with running(flags=flags) as gateway:
        assert (await gateway.client.get("/healthz", headers={"Host": host})).status_code == 200


async def test_pages_of_other_sites_may_not_ask() -> None:
    async with running() as gateway:
        preflight = await gateway.client.options("/v1/queries", headers=ASKS)
        answer = await gateway.client.get("/v1/participants", headers=PAGE)
    assert preflight.status_code == 405
    for response in (preflight, answer):
        assert "access-control-allow-origin" not in response.headers


@pytest.fixture
def no_keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text("[]")
    return path


async def test_pages_of_a_named_origin_may_ask_and_see_refusals(no_keys: Path) -> None:
    flags = ["--cors-origin=https://desk.example", f"--keys={no_keys}"]
    async with running(flags=flags) as gateway:
        preflight = await gateway.client.options("/v1/queries", headers=ASKS)
        refusal = await gateway.client.get("/v1/participants", headers=PAGE)
        other = await gateway.client.get(
            "/v1/participants", headers={"Origin": "https://other.example"}
        )
    assert preflight.status_code == 200
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    check_problem(refusal, 401, "not_signed_in")
    assert refusal.headers["access-control-allow-origin"] == "https://desk.example"
    assert "access-control-allow-origin" not in other.headers
