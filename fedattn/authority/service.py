"""The authority over HTTPS: what nodes ask of it. Bodies are small and bounded."""

import asyncio
import uuid
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedattn import __version__
from fedattn.authority.office import Office
from fedattn.core.errors import FedAttnError, InvalidRequestError
from fedattn.rest.problems import MEDIA_TYPE, Problem
from fedattn.runtime.quiet_fastapi import NO_TELEMETRY
from fedattn.wire.status import status_of

MAX_BODY_SIZE = 64 << 10
_BODY_WITHIN_S = 10.0

log = structlog.get_logger(__name__)


class Enrolment(BaseModel):
    """What a new node sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node_id: str = Field(max_length=64)
    secret: str = Field(max_length=128)
    request: str = Field(max_length=8 << 10)


async def read_body(request: Request) -> bytes:
    """A body that is neither long nor slow.

    Raises:
        InvalidRequestError: it is.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_WITHIN_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY_SIZE:
                    raise InvalidRequestError(f"the body has more than {MAX_BODY_SIZE} bytes")
    except TimeoutError:
        raise InvalidRequestError(f"the body did not come within {_BODY_WITHIN_S:g} s") from None
    return bytes(body)


Body = Annotated[bytes, Depends(read_body)]


def create_app(office: Office) -> FastAPI:
    """The application; whoever reaches it may ask, and gets what their proof is good for."""
    app = FastAPI(
        title="Federated Attention authority",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry=NO_TELEMETRY,
    )
    app.include_router(_router(office))
    app.add_exception_handler(FedAttnError, _on_known)
    return app


def _router(office: Office) -> APIRouter:
    router = APIRouter(prefix="/v1", default_response_class=PlainTextResponse)

    @router.get("/authority")
    def get_authority() -> PlainTextResponse:
        return PlainTextResponse(office.authority.pem)

    @router.get("/revocations")
    def get_revocations() -> PlainTextResponse:
        return PlainTextResponse(office.revoked())

    @router.post("/certificates")
    def post_certificate(body: Body) -> PlainTextResponse:
        try:
            asked = Enrolment.model_validate_json(body)
        except ValidationError:
            raise InvalidRequestError("expected node_id, secret and request in JSON") from None
        issued = office.enrol(asked.node_id, asked.secret, asked.request.encode())
        log.info("enrolled", node=asked.node_id)
        return PlainTextResponse(issued)

    @router.post("/certificates/{node_id}/renew")
    def post_renewal(node_id: str, body: Body) -> PlainTextResponse:
        issued = office.renew(node_id, body)
        log.info("renewed", node=node_id)
        return PlainTextResponse(issued)

    return router


async def _on_known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FedAttnError)
    log.warning("refused", path=request.url.path[:100], code=error.code, reason=str(error))
    status = status_of(error).http_status
    problem = Problem(
        type=f"urn:fedattn:error:{error.code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=str(error),
        code=error.code,
        instance=uuid.uuid4().urn,
        errors=None,
    )
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, status_code=status, media_type=MEDIA_TYPE)
