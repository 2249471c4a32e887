"""What comes as a body and is none is refused with the reason, never with a 500."""

import json
from typing import Any

import pytest

from tests.harness.gateway import QUESTION, check_problem, running

JSON = {"content-type": "application/json"}
BODY = json.dumps({"question": QUESTION}).encode()
HALF = "\\ud800"  # as JSON writes half a character


@pytest.mark.parametrize(
    ("headers", "got"),
    [
        ({}, "got none"),
        ({"content-type": ""}, "got none"),
        ({"content-type": "application/x-www-form-urlencoded"}, "got 'application/x-www-form"),
        ({"content-type": "text/plain"}, "got 'text/plain'"),
        ({"content-type": "text/json"}, "got 'text/json'"),
        ({"content-type": "nonsense"}, "got 'nonsense'"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/queries", "/v1/warm"])
async def test_a_body_that_is_not_called_json_is_told_what_to_call_it(
    path: str, headers: dict[str, str], got: str
) -> None:
    async with running() as gateway:
        response = await gateway.client.post(path, content=BODY, headers=headers)
        assert gateway.participant.requests == []
    problem = check_problem(response, 415, "unsupported_media_type")
    assert "expected the header Content-Type: application/json" in problem["detail"]
    assert got in problem["detail"]


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"]
)
async def test_every_kind_of_json_is_read(media_type: str) -> None:
    async with running() as gateway:
        response = await gateway.client.post(
            "/v1/queries", content=BODY, headers={"content-type": media_type}
        )
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (f'{{"question": "{HALF}"}}', "invalid_request"),
        (f'{{"question": "x", "publisher": "{HALF}"}}', "invalid_request"),
        (f'{{"question": "x", "contributors": ["{HALF}"]}}', "invalid_request"),
        (f'{{"question": "x", "plan": "{HALF}"}}', "invalid_plan"),
        (f'{{"question": "x", "publisher_plan": "all{HALF}"}}', "invalid_plan"),
        (f'{{"question": "x", "prefix": "{HALF}"}}', "invalid_request"),
        (f'{{"question": "x", "stream": "{HALF}"}}', "invalid_request"),
        (f'{{"question": "x", "compression": {{"codec": "{HALF}"}}}}', "invalid_request"),
        (f'{{"question": "x", "compression": {{"selector": "{HALF}"}}}}', "invalid_request"),
        (f'{{"question": "x", "sampling": {{"stop": ["{HALF}"]}}}}', "invalid_sampling"),
        (f'{{"question": "x", "{HALF}": 1}}', "invalid_request"),
        (f'{{"question": "x", "sampling": {{"{HALF}": 1}}}}', "invalid_request"),
        (f'"{HALF}"', "invalid_request"),
    ],
)
async def test_half_characters_are_refused_at_every_field(body: str, code: str) -> None:
    async with running() as gateway:
        response = await gateway.client.post("/v1/queries", content=body, headers=JSON)
        assert gateway.participant.requests == []
    check_problem(response, 422, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"question": "caf\xe9"}', 422, "invalid_request"),
        (b'{"question": "x", "sampling": {"stop": ["\xff"]}}', 422, "invalid_request"),
        (b'\xff\xfe{\x00"\x00', 422, "invalid_request"),
        (b"", 422, "invalid_request"),
        (b"[" * 100_000, 400, "bad_request"),
        (b'{"question": "x", "deadline_s": ' + b"9" * 5000 + b"}", 400, "bad_request"),
        (b'{"question": "x", "deadline_s": NaN}', 422, "invalid_request"),
        (b'{"question": "x", "deadline_s": 1e999}', 422, "invalid_request"),
        (b'{"question": "x", "compression": {"keep_ratio": NaN}}', 422, "invalid_request"),
        (b'{"question": "x", "sampling": {"temperature": NaN}}', 422, "invalid_sampling"),
        (b'{"question": "x", "compression": []}', 422, "invalid_request"),
        (b'{"question": "x", "compression": null}', 422, "invalid_request"),
        (b'{"question": "x", "sampling": {"stop": "a"}}', 422, "invalid_request"),
        (b'{"question": "x", "sampling": {"stop": [1]}}', 422, "invalid_request"),
        (b'{"question": "x", "sampling": {"seed": 9223372036854775808}}', 422, "invalid_sampling"),
    ],
)
async def test_hostile_bodies_are_refused(body: bytes, status: int, code: str) -> None:
    async with running() as gateway:
        response = await gateway.client.post("/v1/queries", content=body, headers=JSON)
        assert gateway.participant.requests == []
    check_problem(response, status, code)


async def test_undecodable_bytes_are_placed() -> None:
    async with running() as gateway:
        response = await gateway.client.post(
            "/v1/queries", content=b'{"question": "caf\xe9"}', headers=JSON
        )
    detail: Any = response.json()["detail"]
    assert detail == "the body is not UTF-8 at byte 17; JSON travels as UTF-8"
