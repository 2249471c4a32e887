"""What a gateway said, in types; or the error that it means."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from httpx_sse import ServerSentEvent
from pydantic import TypeAdapter, ValidationError

from fedattn.client.retrying import retry_after_s
from fedattn.core.errors import (
    FedAttnError,
    GatewayUnavailableError,
    ProtocolMismatchError,
    SessionAbortedError,
    UnavailableError,
    error_from_code,
)
from fedattn.rest.events import EVENT_MODELS, QueryEvent
from fedattn.rest.participants import ParticipantInfo
from fedattn.rest.problems import Problem

T = TypeVar("T")

read_participants = TypeAdapter(list[ParticipantInfo]).validate_json


def read_answer(response: httpx.Response, read: Callable[[bytes], T]) -> T:
    """What an answer holds.

    Args:
        response: whose content has been read.
        read: makes a value of the content; pydantic's errors are understood.

    Raises:
        FedAttnError: the gateway's problem, with its code; or it answers in other words.
    """
    if not response.is_success:
        raise _error_in(response)
    with _understanding(response):
        return read(response.content)


def read_event(response: httpx.Response, event: ServerSentEvent) -> QueryEvent | None:
    """What an event says; None for one that is not known here, as a newer gateway may send.

    Raises:
        FedAttnError: as `read_answer`.
    """
    model = EVENT_MODELS.get(event.event)
    if model is None:
        return None
    with _understanding(response):
        said: Any = model.model_validate_json(event.data)
    if isinstance(said, Problem):
        raise error_of(said)
    return said  # type: ignore[no-any-return]  # one of EVENT_MODELS, and no problem


def error_of(problem: Problem) -> FedAttnError:
    """The error that a problem stands for, in one line."""
    return error_from_code(problem.code, " ".join(problem.detail.splitlines()))


def no_report() -> SessionAbortedError:
    """The error for a stream that just ended."""
    return SessionAbortedError("the gateway ended the stream without a report; ask again")


def _error_in(response: httpx.Response) -> FedAttnError:
    try:
        error = error_of(Problem.model_validate_json(response.content))
    except ValidationError:
        return GatewayUnavailableError(
            f"{response.url} answered {response.status_code} without a problem document; "
            f"is it a fedattn gateway?"
        )
    told_s = retry_after_s(response)
    if isinstance(error, UnavailableError) and told_s is not None:
        error.retry_after_s = told_s
    return error


@contextmanager
def _understanding(response: httpx.Response) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        fault = error.errors()[0]
        path = ".".join(map(str, fault["loc"]))
        raise ProtocolMismatchError(
            f"the gateway at {response.url} answers in other words ({path}: {fault['msg']}); "
            f"let both have the same version"
        ) from None
