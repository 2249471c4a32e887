"""The OpenAPI document says what the gateway does."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.openapi.models import OpenAPI
from httpx_sse import EventSource
from pydantic import TypeAdapter

from fedattn.core.share import Share
from fedattn.rest import (
    answers,
    events,
    fields,
    jobs,
    openai_chat,
    openai_models,
    openai_responses,
    participants,
    problems,
    query,
    reports,
    session,
)
from fedattn.rest.events import EVENT_MODELS
from gateway.app import create_app
from gateway.callers import ANYONE
from gateway.openai_errors import OPENAI_PATHS
from gateway.query import query_to_wire
from tests.harness.gateway import make_settings

MODELS = [
    value
    for module in (
        problems,
        fields,
        session,
        query,
        participants,
        reports,
        answers,
        events,
        jobs,
        openai_chat,
        openai_models,
        openai_responses,
    )
    for value in vars(module).values()
    if hasattr(value, "__pydantic_fields__")
]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(make_settings()).openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (path, operation)
        for path, methods in document["paths"].items()
        for operation in methods.values()
    ]


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node))
    return set()


def test_document_is_openapi_and_complete(document: dict[str, Any]) -> None:
    OpenAPI.model_validate(document)
    assert list(document["paths"]) == [
        "/v1/queries",
        "/v1/warm",
        "/v1/participants",
        "/v1/queries/{job_id}",
        "/v1/queries/{job_id}/events",
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/models",
        "/v1/models/{model}",
        "/healthz",
        "/readyz",
    ]
    defined = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= defined


def test_every_operation_is_tagged_and_described(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    for _, operation in operations(document):
        assert set(operation["tags"]) <= tags
        assert operation["description"]


def test_every_error_is_a_problem_document_or_openais(document: dict[str, Any]) -> None:
    for path, operation in operations(document):
        is_openais = path.startswith(OPENAI_PATHS)
        media_type = "application/json" if is_openais else "application/problem+json"
        for status, response in operation["responses"].items():
            if not status.startswith("2"):
                assert list(response["content"]) == [media_type]


def test_every_schema_is_described(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
        for field_name, field in schema.get("properties", {}).items():
            assert "description" in field or "$ref" in field, f"{name}.{field_name}"


def test_examples_of_fields_fit() -> None:
    for model in MODELS:
        for field in model.__pydantic_fields__.values():
            adapter = TypeAdapter(field.rebuild_annotation())
            for example in field.examples or []:
                adapter.validate_json(json.dumps(example), strict=True)


def test_example_requests_fit(document: dict[str, Any]) -> None:
    body = document["paths"]["/v1/queries"]["post"]["requestBody"]["content"]["application/json"]
    assert len(body["examples"]) == 2
    for example in body["examples"].values():
        query_to_wire(query.QueryBody.model_validate(example["value"]), Share.NOTHING, ANYONE)


def test_example_answers_fit(document: dict[str, Any]) -> None:
    responses = document["paths"]["/v1/queries"]["post"]["responses"]
    content = responses["200"]["content"]
    answers.QueryAnswer.model_validate(content["application/json"]["example"])
    problem = responses["404"]["content"]["application/problem+json"]["example"]
    problems.Problem.model_validate(problem, strict=True)
    response = httpx.Response(
        200,
        headers={"content-type": "text/event-stream"},
        text=content["text/event-stream"]["example"],
    )
    events = list(EventSource(response).iter_sse())
    assert [event.event for event in events] == ["session", "layer", "token", "report"]
    for event in events:
        EVENT_MODELS[event.event].model_validate_json(event.data, strict=True)


def test_stream_and_its_events_are_documented(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/queries"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}
    events = content["text/event-stream"]["itemSchema"]["oneOf"]
    assert [event["properties"]["event"]["const"] for event in events] == list(EVENT_MODELS)


def test_how_to_sign_in_is_told_where_it_is_needed(
    document: dict[str, Any], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text("[]")
    guarded = create_app(make_settings(flags=[f"--keys={keys}"])).openapi()
    OpenAPI.model_validate(guarded)
    assert set(guarded["components"]["securitySchemes"]) == {"bearer", "key"}
    needed = {path: operation["security"] for path, operation in operations(guarded)}
    assert needed.pop("/healthz") == needed.pop("/readyz") == []
    assert all(schemes == [{"bearer": []}, {"key": []}] for schemes in needed.values())
    assert all("security" not in operation for _, operation in operations(document))
