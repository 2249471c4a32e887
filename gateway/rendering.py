"""Each API writes errors in its own way."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from starlette.responses import Response

from fedattn.rest.problems import Problem
from gateway.problems import problem_response

Renderer: TypeAlias = Callable[[Problem, Mapping[str, str]], Response]
"""Writes a problem, with headers of its own."""


class Rendering:
    """Writes a problem as the API it happened in writes errors.

    Args:
        renderers: beginning of a path -> how errors are written there; elsewhere they are problem
            documents.
    """

    def __init__(self, renderers: Mapping[str, Renderer] | None = None) -> None:
        self._renderers = dict(renderers or {})

    def __call__(
        self, path: str, problem: Problem, headers: Mapping[str, str] | None = None
    ) -> Response:
        for beginning, render in self._renderers.items():
            if path.startswith(beginning):
                return render(problem, headers or {})
        return problem_response(problem, headers or {})
