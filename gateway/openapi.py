"""What FastAPI cannot derive for the OpenAPI document: problems, streams, examples."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.models import Example
from pydantic.json_schema import models_json_schema

from gateway.events import EVENT_MODELS
from gateway.problems import MEDIA_TYPE, Problem

_REF = "#/components/schemas/{model}"
_STREAM_EXAMPLE = (
    'event: session\r\ndata: {"session_id":"5f2b...","prefix_len":24,"members":[...],...}\r\n\r\n'
    'event: layer\r\ndata: {"layer":7,"num_rows":96,"wait_s":0.02}\r\n\r\n'
    'event: token\r\ndata: {"text":"Machine"}\r\n\r\n'
    'event: report\r\ndata: {"session_id":"5f2b...","answer":"Machine 4",...}\r\n\r\n'
)

QUERY_EXAMPLES: dict[str, Example] = {
    "shortest": {
        "summary": "All joined nodes, defaults for the rest",
        "value": {"question": "Which machine reported the highest temperature?"},
    },
    "streamed": {
        "summary": "Chosen nodes and layers, answer as server-sent events",
        "value": {
            "question": "Which machine reported the highest temperature?",
            "publisher": "publisher",
            "contributors": ["node-a", "node-b"],
            "plan": "7,9,10-12",
            "publisher_plan": "all",
            "sampling": {"max_new_tokens": 32, "temperature": 0.7, "seed": 1, "stop": ["\n"]},
            "codec": "bf16",
            "min_participants": 3,
            "deadline_s": 60,
            "stream": True,
        },
    },
}


def document_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents a route answers with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=Problem.__name__)}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def document_stream() -> dict[str, Any]:
    """The streamed form of an answer: events, each with one JSON document as its data."""
    lines = [f"- `{name}`: {_summary(model.__doc__)}" for name, model in EVENT_MODELS.items()]
    return {
        "description": "The answer. If streamed, events in this order, `layer` and `token` any "
        "number of times, `report` or `error` last:\n" + "\n".join(lines),
        "content": {
            "text/event-stream": {
                "schema": {"type": "string", "description": "Server-sent events (HTML standard)."},
                "itemSchema": {"oneOf": [_event_schema(name) for name in EVENT_MODELS]},
                "example": _STREAM_EXAMPLE,
            }
        },
    }


def add_schemas(app: FastAPI) -> None:
    """Make `app.openapi` hold the schemas of problems and events too."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, definitions = models_json_schema(
            [(model, "serialization") for model in EVENT_MODELS.values()], ref_template=_REF
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name, schema in definitions["$defs"].items():
            schemas.setdefault(name, schema)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


def _event_schema(name: str) -> dict[str, Any]:
    return {
        "title": f"{name} event",
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"const": name},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": _REF.format(model=EVENT_MODELS[name].__name__)},
            },
        },
    }


def _summary(docstring: str | None) -> str:
    return (docstring or "").splitlines()[0].rpartition(": ")[2]
