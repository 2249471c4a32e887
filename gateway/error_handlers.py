"""Whatever goes wrong leaves the HTTP application as a problem document."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedattn.core.errors import FedAttnError, InvalidRequestError
from fedattn.rest.faults import describe_faults, summarize
from fedattn.rest.field_names import similar_field, similar_own_field
from gateway.problems import headers_of, http_code, make_problem, problem_of
from gateway.rendering import Rendering

CLIENT_CLOSED_REQUEST = 499


def install_error_handlers(app: FastAPI, max_body_bytes: int, render: Rendering) -> None:
    """Register the handlers and middleware that turn errors into answers.

    Args:
        app: the application.
        max_body_bytes: larger bodies are refused.
        render: how errors are written.
    """

    async def on_known(request: Request, error: Exception) -> Response:
        return render(request.url.path, problem_of(error), headers_of(error))

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        is_query = request.url.path.startswith("/v1/queries")
        similar = similar_field if is_query else similar_own_field
        faults = describe_faults(error.errors(), similar)
        problem = make_problem(422, InvalidRequestError.code, summarize(faults), faults)
        return render(request.url.path, problem)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem = make_problem(error.status_code, http_code(error.status_code), error.detail)
        return render(request.url.path, problem, error.headers or {})

    app.add_exception_handler(FedAttnError, on_known)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_middleware(BodyLimitMiddleware, max_body_bytes=max_body_bytes)
    app.add_middleware(UnforeseenErrorMiddleware, render=render)


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)  # nobody reads it


class UnforeseenErrorMiddleware:
    """Answers what no handler foresaw with fixed text; outermost of our layers."""

    def __init__(self, app: ASGIApp, render: Rendering) -> None:
        self._app = app
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def noting_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except Exception as error:  # border: the last place before the client
            problem = problem_of(error)
            if not has_started:
                render = self._render(scope["path"], problem, headers_of(error))
                await render(scope, receive, send)


class BodyLimitMiddleware:
    """Refuses a request body above a limit, before and while it is read."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        num_bytes = 0

        async def limited_receive() -> Message:
            nonlocal num_bytes
            if declared.isdigit():
                self._check(int(declared))
            message = await receive()
            num_bytes += len(message.get("body", b""))
            self._check(num_bytes)
            return message

        await self._app(scope, limited_receive, send)

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._max_body_bytes:
            raise HTTPException(
                413,
                f"the body has at least {num_bytes} bytes, the limit is {self._max_body_bytes}; "
                f"ask a shorter question",
            )
