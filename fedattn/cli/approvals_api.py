"""The REST API of a node's approvals and audit log, and the page of its owner."""

import secrets
import uuid
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fedattn import __version__
from fedattn.cli.audit_api import audit_router
from fedattn.core.address import HostPort, is_loopback
from fedattn.core.errors import ConfigurationError, FedAttnError, InvalidRequestError
from fedattn.page import add_page
from fedattn.rest.faults import describe_faults, summarize
from fedattn.rest.problems import MEDIA_TYPE, Problem
from fedattn.runtime.approvals import (
    DEFAULT_LIFETIME_S,
    MAX_LIFETIME_S,
    MAX_USES,
    Approval,
    ApprovalStore,
)
from fedattn.runtime.quiet_fastapi import NO_TELEMETRY

MIN_TOKEN_LENGTH = 16

Uses = Annotated[int, Query(ge=1, le=MAX_USES, description="Sessions that may use it.")]
LifetimeS = Annotated[
    float, Query(gt=0, le=MAX_LIFETIME_S, description="For how long it holds, seconds.")
]


def read_token(path: Path | None) -> str | None:
    """The token in a file; None without one.

    Raises:
        ConfigurationError: it cannot be read, or holds no good token.
    """
    if path is None:
        return None
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"--token-file {path}: expected a file with ASCII text that this user may read"
        ) from error
    if len(token) < MIN_TOKEN_LENGTH:
        raise ConfigurationError(
            f"--token-file {path}: expected {MIN_TOKEN_LENGTH} characters or more, got "
            f"{len(token)}; make one with: openssl rand -hex 32"
        )
    return token


def create_app(store: ApprovalStore, address: HostPort, token: str | None) -> FastAPI:
    """The application; requests have no bodies, so none is ever read.

    Raises:
        ConfigurationError: others could reach it, and there is no token.
    """
    if token is None and not address.is_loopback:
        raise ConfigurationError(
            f"--listen {address}: others could decide there; listen on 127.0.0.1, or give "
            f"--token-file"
        )
    app = FastAPI(
        title="Federated Attention approvals",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        telemetry=NO_TELEMETRY,
    )
    guard = Depends(_guard(token))
    app.include_router(_router(store), dependencies=[guard])
    app.include_router(audit_router(store.folder), dependencies=[guard])
    add_page(app, Path(__file__).parent / "owner_page")
    app.add_exception_handler(FedAttnError, _on_known)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    return app


def _router(store: ApprovalStore) -> APIRouter:
    router = APIRouter(prefix="/v1/approvals")

    @router.get("")
    def get_approvals() -> list[Approval]:
        """What waits, and what was decided and still holds; oldest first."""
        return list(store.entries())

    @router.post("/{approval_id}/approve")
    def post_approve(
        approval_id: str, uses: Uses = 1, lifetime_s: LifetimeS = DEFAULT_LIFETIME_S
    ) -> Approval:
        """Allow the same publisher, subject and purpose at most these blocks, rows and bytes."""
        return store.approve(approval_id, uses=uses, lifetime_s=lifetime_s)

    @router.post("/{approval_id}/deny")
    def post_deny(approval_id: str, lifetime_s: LifetimeS = DEFAULT_LIFETIME_S) -> Approval:
        """Refuse this publisher, subject and purpose for a while; also ends an approval."""
        return store.deny(approval_id, lifetime_s=lifetime_s)

    return router


def _guard(token: str | None) -> Callable[[Request], None]:
    """Lets in who has the token; without one, whoever is on this machine, but no web page."""

    def check(request: Request) -> None:
        if token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not secrets.compare_digest(
                given.strip().encode(), token.encode()
            ):
                raise HTTPException(
                    401,
                    "expected the header Authorization: Bearer TOKEN, with the token of "
                    "--token-file",
                    {"WWW-Authenticate": "Bearer"},
                )
            return
        # a page from elsewhere could send requests here, or give this machine a name of its own
        host = _host_of(f"//{request.headers.get('host', '')}")
        origin = request.headers.get("origin")
        if not is_loopback(host) or (origin is not None and not is_loopback(_host_of(origin))):
            raise HTTPException(
                403, "without a token only pages and programs of this machine may ask"
            )

    return check


def _host_of(url: str) -> str:
    """The host a URL names; empty if there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def _on_known(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FedAttnError)
    # the ranges were checked before, so what the store takes for a bad request is its id
    status = 404 if isinstance(error, InvalidRequestError) else 500
    return _problem(status, error.code, str(error))


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _problem(422, InvalidRequestError.code, summarize(describe_faults(error.errors())))


async def _on_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return _problem(error.status_code, code, error.detail, dict(error.headers or {}))


def _problem(
    status: int, code: str, detail: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    problem = Problem(
        type=f"urn:fedattn:error:{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        instance=uuid.uuid4().urn,
        errors=None,
    )
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, status_code=status, headers=headers, media_type=MEDIA_TYPE)
