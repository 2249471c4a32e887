"""Making problem documents of errors."""

import math
import traceback
import uuid
from collections.abc import Mapping
from http import HTTPStatus

import structlog
from fastapi.responses import JSONResponse

from fedattn.core.errors import FedAttnError, InternalError, NotSignedInError, UnavailableError
from fedattn.rest.faults import printable
from fedattn.rest.problems import MEDIA_TYPE, FieldError, Problem
from fedattn.wire.status import STATUS_TABLE, status_of

RETRY_AFTER_S = 5
_INTERNAL_TEXT = "internal error; the gateway's log has an entry with this instance"

log = structlog.get_logger(__name__)


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
        detail=printable(detail),
        code=code,
        instance=uuid.uuid4().urn,
        errors=errors,
    )


def headers_of(error: Exception) -> dict[str, str]:
    """What an error says in headers besides."""
    match error:
        case NotSignedInError():
            return {"WWW-Authenticate": 'Bearer realm="fedattn"'}
        case UnavailableError(retry_after_s=float(seconds)):
            return {"Retry-After": str(max(1, math.ceil(seconds)))}
    return {}


def problem_response(problem: Problem, headers: Mapping[str, str]) -> JSONResponse:
    """The problem as an answer, with Retry-After if the same request may be retried."""
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=problem.status,
        headers=retry_headers(problem, headers),
        media_type=MEDIA_TYPE,
    )


def retry_headers(problem: Problem, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, and when to try again if that may help."""
    if problem.code not in _RETRYABLE:
        return dict(headers)
    return {"Retry-After": str(RETRY_AFTER_S)} | dict(headers)


def http_code(status: int) -> str:
    """The code of an error of HTTP itself, such as not_found."""
    if status == 413:
        return "body_too_large"  # the standard phrase differs between Python versions
    return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")


_RETRYABLE = frozenset(leaf.code for leaf, row in STATUS_TABLE.items() if row.is_retryable)
