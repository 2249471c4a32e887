"""Every error as an RFC 9457 problem document."""

import traceback
import uuid
from http import HTTPStatus

import structlog
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from fedattn.core.errors import FedAttnError, InternalError
from fedattn.wire.status import STATUS_TABLE, status_of

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
_INTERNAL_TEXT = "internal error; the gateway's log has an entry with this instance"

log = structlog.get_logger(__name__)


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    field: str = Field(description="Path of the field.", examples=["sampling.top_k"])
    expected: str = Field(
        description="What the field takes.", examples=["Input should be a valid integer"]
    )
    got: str = Field(description="What came; free text is never repeated.", examples=["null"])


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(
        description="Stable URN of the kind of error.",
        examples=["urn:fedattn:error:invalid_plan"],
    )
    title: str = Field(description="The kind of error for people.", examples=["Invalid plan"])
    status: int = Field(description="HTTP status.", examples=[422])
    detail: str = Field(
        description="This error for people: expected, got, remedy.",
        examples=["unknown sync plan 'often'; use all, none, auto, uniform:INTERVAL, or a list"],
    )
    code: str = Field(description="Stable code of the kind.", examples=["invalid_plan"])
    instance: str = Field(
        description="URN of this occurrence; the gateway's log carries it too.",
        examples=["urn:uuid:7c3b7a3e-0d6c-4a0e-9f4c-2b1f0e6d5a11"],
    )
    errors: list[FieldError] | None = Field(
        None, description="The fields that are wrong, if the request does not fit the schema."
    )


def problem_of(error: Exception) -> Problem:
    """Describe an error to the client, and log it.

    The log gets the code of a known error, type and stack of an unforeseen one. It gets no
    message: that of an unforeseen error may hold private text.
    """
    if isinstance(error, FedAttnError):
        problem = make_problem(status_of(error).http_status, error.code, str(error))
        log.info("request_failed", code=problem.code, instance=problem.instance)
        return problem
    problem = make_problem(500, InternalError.code, _INTERNAL_TEXT)
    log.error(
        "unforeseen_error",
        instance=problem.instance,
        error_type=type(error).__name__,
        stack="".join(traceback.format_tb(error.__traceback__)),
    )
    return problem


def make_problem(
    status: int, code: str, detail: str, errors: list[FieldError] | None = None
) -> Problem:
    """A problem with the stable URN and title of its code."""
    return Problem(
        type=f"urn:fedattn:error:{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        instance=uuid.uuid4().urn,
        errors=errors,
    )


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The problem as an answer, with Retry-After if the same request may be retried."""
    all_headers = dict(headers or {})
    if problem.code in _RETRYABLE:
        all_headers["Retry-After"] = str(RETRY_AFTER_S)
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=problem.status,
        headers=all_headers,
        media_type=MEDIA_TYPE,
    )


def http_code(status: int) -> str:
    """The code of an error of HTTP itself, such as not_found."""
    if status == 413:
        return "body_too_large"  # the standard phrase differs between Python versions
    return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")


_RETRYABLE = frozenset(leaf.code for leaf, row in STATUS_TABLE.items() if row.is_retryable)
