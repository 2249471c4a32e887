"""What FastAPI cannot derive for the OpenAPI document: problems, streams, examples."""

import json
from http import HTTPStatus
from types import UnionType
from typing import Any, get_args, get_origin

from fastapi import FastAPI
from fastapi.openapi.models import Example
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fedattn.core.share import Share
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.events import EVENT_MODELS
from fedattn.rest.jobs import JobSummary
from fedattn.rest.problems import MEDIA_TYPE, Problem
from fedattn.rest.query import QueryBody
from gateway.sign_in import KEY_HEADER, OPEN_PATHS

_SECURITY_SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key of this gateway, or a token of its issuer.",
    },
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": KEY_HEADER,
        "description": "The same, for clients that cannot set Authorization.",
    },
}
_REF = "#/components/schemas/{model}"
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
            "compression": {"codec": "bf16"},
            "min_participants": 3,
            "deadline_s": 60,
            "stream": True,
        },
    },
}


def document_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents a route answers with."""
    schema = {"$ref": _REF.format(model=Problem.__name__)}
    content = {MEDIA_TYPE: {"schema": schema, "example": example_of(Problem)}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def document_stream() -> dict[str, Any]:
    """The streamed form of an answer: events, each with one JSON document as its data."""
    events = document_events()
    content = {"application/json": {"example": example_of(QueryAnswer)}, **events["content"]}
    return {"description": f"The answer. If streamed, {events['description']}", "content": content}


def document_events() -> dict[str, Any]:
    """What happens in a query, as server-sent events."""
    lines = [f"- `{name}`: {_summary(model.__doc__)}" for name, model in EVENT_MODELS.items()]
    return {
        "description": "events in this order, `queued`, `layer` and `token` any number of times, "
        "`report` or `error` last; after `retried` all but `token` come again:\n"
        + "\n".join(lines),
        "content": {
            "text/event-stream": {
                "itemSchema": {"oneOf": [_event_schema(name) for name in EVENT_MODELS]},
                "example": "".join(
                    _example_event(name) for name in ("session", "layer", "token", "report")
                ),
            },
        },
    }


def document_job() -> dict[str, Any]:
    """What a background query is answered with."""
    return {
        "description": "The job, if the query is asked in the background.",
        "model": JobSummary,
        "headers": {
            "Location": {"description": "Where the job is.", "schema": {"type": "string"}},
        },
        "content": {"application/json": {"example": example_of(JobSummary)}},
    }


def add_schemas(app: FastAPI, *, needs_sign_in: bool, share: Share) -> None:
    """Make `app.openapi` hold the schemas of problems and events too, and how this gateway is set.

    Args:
        app: gets them.
        needs_sign_in: whether callers sign in.
        share: what contributors may know of a question that does not say.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, definitions = models_json_schema(
            [(model, "serialization") for model in EVENT_MODELS.values()], ref_template=_REF
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name, schema in definitions["$defs"].items():
            schemas.setdefault(name, schema)
        schemas[QueryBody.__name__]["properties"]["share"]["default"] = share.value
        if needs_sign_in:
            document["components"]["securitySchemes"] = _SECURITY_SCHEMES
            for path, methods in document["paths"].items():
                for operation in methods.values():
                    is_open = path in OPEN_PATHS
                    operation["security"] = [] if is_open else [{n: []} for n in _SECURITY_SCHEMES]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


def example_of(model: type[BaseModel]) -> dict[str, Any]:
    """An example document, from the examples of its fields, required ones at least."""
    return {
        name: field.examples[0] if field.examples else _example_value(field.annotation)
        for name, field in model.model_fields.items()
        if field.examples or field.is_required()
    }


def _example_value(annotation: Any) -> Any:
    if get_origin(annotation) is list:
        return [_example_value(get_args(annotation)[0])]
    if get_origin(annotation) is UnionType:
        return _example_value(get_args(annotation)[0])
    assert issubclass(annotation, BaseModel), "only models and lists of them need no examples"
    return example_of(annotation)


def _example_event(name: str) -> str:
    return f"event: {name}\r\ndata: {json.dumps(example_of(EVENT_MODELS[name]))}\r\n\r\n"


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
