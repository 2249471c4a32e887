"""Errors as clients of OpenAI's API know them."""

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from fedattn.rest.openai_models import ErrorEnvelope, openai_status
from fedattn.rest.problems import Problem
from gateway.problems import retry_headers
from gateway.rendering import Renderer

OPENAI_PATHS = ("/v1/chat/", "/v1/responses", "/v1/models")
DOCUMENTED_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorEnvelope, "description": "The request cannot be answered."},
    "5XX": {"model": ErrorEnvelope, "description": "The network cannot answer."},
}


def render_error(problem: Problem, headers: Mapping[str, str]) -> JSONResponse:
    """A problem as an answer of these routes."""
    return JSONResponse(
        ErrorEnvelope.of(problem).model_dump(),
        status_code=openai_status(problem),
        headers=retry_headers(problem, headers),
    )


OPENAI_RENDERERS: dict[str, Renderer] = dict.fromkeys(OPENAI_PATHS, render_error)
