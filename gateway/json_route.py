"""Routes that take a JSON document, and say so to whoever sends something else."""

from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from fedattn.core.errors import InvalidRequestError

JSON = "application/json"


class JsonRoute(APIRoute):
    """A route whose body, if it takes one, is JSON in UTF-8."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_json(request: Request) -> Response:
            _check_media_type(request.headers.get("content-type"))
            _check_text(await request.body())
            return await handle(request)

        return handle_json


def _check_media_type(content_type: str | None) -> None:
    """Raise HTTPException unless it is JSON."""
    message = Message()
    message["Content-Type"] = content_type or ""
    subtype = message.get_content_subtype()
    if not content_type or message.get_content_maintype() != "application":
        subtype = ""
    if subtype != "json" and not subtype.endswith("+json"):
        got = repr(content_type[:80]) if content_type else "none"
        raise HTTPException(
            415, f"expected the header Content-Type: {JSON}, got {got}; send it with the body"
        )


def _check_text(body: bytes) -> None:
    """Raise InvalidRequestError unless it is UTF-8."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"the body is not UTF-8 at byte {error.start}; JSON travels as UTF-8"
        ) from None
