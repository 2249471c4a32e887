"""Sending a request again where nothing was done for it: the gateway refused it, or is not there.

A request whose connection broke, or whose answer has begun, is never sent again. One with a
deadline has it for all its tries: what waiting in the gateway's line and pauses took is gone.
"""

import json
import math
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    wait_random_exponential,
)

DEFAULT_RETRIES = 2
MAX_WAIT_S = 60.0
"""Whoever is told to wait for longer is told so, and does not wait here."""
DEADLINE = "fedattn.deadline_s"
"""Extension of a request whose JSON has a `deadline_s`: the same number, for all tries."""
_REFUSALS = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
_NOT_THERE = (httpx.ConnectError, httpx.ConnectTimeout)
_by_itself = wait_random_exponential(multiplier=0.5, max=5)


class RetryingTransport(httpx.BaseTransport):
    """Sends requests over another transport, and some of them again.

    Args:
        inner: which sends them.
        retries: most times that one request is sent again.
        clock: seconds since some moment.
    """

    def __init__(
        self,
        inner: httpx.BaseTransport,
        retries: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner, self._clock = inner, clock
        self._retrying = Retrying(
            stop=lambda state: state.attempt_number > retries or _is_too_late(state),
            retry=may_retry,
            wait=wait_s,
            before_sleep=_close,
            retry_error_callback=_outcome,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._retrying(self._send, _Tries(request, self._clock))

    def _send(self, tries: "_Tries") -> httpx.Response:
        return self._inner.handle_request(tries.next())

    def close(self) -> None:
        self._inner.close()


class AsyncRetryingTransport(httpx.AsyncBaseTransport):
    """As `RetryingTransport`, for asyncio."""

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        retries: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner, self._clock = inner, clock
        self._retrying = AsyncRetrying(
            stop=lambda state: state.attempt_number > retries or _is_too_late(state),
            retry=may_retry,
            wait=wait_s,
            before_sleep=_aclose,
            retry_error_callback=_outcome,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._retrying(self._send, _Tries(request, self._clock))

    async def _send(self, tries: "_Tries") -> httpx.Response:
        return await self._inner.handle_async_request(tries.next())

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Tries:
    """One request, as it is sent from try to try.

    Args:
        request: as it is sent first.
        clock: seconds since some moment.
    """

    def __init__(self, request: httpx.Request, clock: Callable[[], float]) -> None:
        self._request, self._clock = request, clock
        self._deadline_s: float | None = request.extensions.get(DEADLINE)
        self._begin: float | None = None

    def left_s(self) -> float:
        """Until its deadline; without end if it has none."""
        if self._deadline_s is None or self._begin is None:
            return math.inf
        return self._deadline_s - (self._clock() - self._begin)

    def next(self) -> httpx.Request:
        """The request for the next try: with what is left of its deadline, after the first."""
        if self._begin is None:
            self._begin = self._clock()
            return self._request
        left_s = self.left_s()
        return self._request if left_s == math.inf else _with_deadline(self._request, left_s)


def _with_deadline(request: httpx.Request, deadline_s: float) -> httpx.Request:
    """The same request with another `deadline_s` in its JSON."""
    document = json.loads(request.content) | {"deadline_s": max(0.001, deadline_s)}
    headers = [one for one in request.headers.raw if one[0].lower() != b"content-length"]
    return httpx.Request(
        request.method,
        request.url,
        headers=headers,
        json=document,
        extensions=request.extensions,
    )


def _is_too_late(state: RetryCallState) -> bool:
    """Whether the pause before the next try would outlast the deadline."""
    tries: _Tries = state.args[0]
    return state.upcoming_sleep >= tries.left_s()


def may_retry(state: RetryCallState) -> bool:
    """Whether nothing was done for a request, and the wait is not too long."""
    assert state.outcome is not None
    if state.outcome.failed:
        error = state.outcome.exception()
        return isinstance(error, _NOT_THERE) and "SSL" not in str(error)
    response = _response(state)
    return response.status_code in _REFUSALS and (retry_after_s(response) or 0) <= MAX_WAIT_S


def wait_s(state: RetryCallState) -> float:
    """Seconds until the next try: those the gateway asks for, or more from try to try."""
    assert state.outcome is not None
    told = None if state.outcome.failed else retry_after_s(_response(state))
    return _by_itself(state) if told is None else told


def retry_after_s(response: httpx.Response) -> float | None:
    """Seconds that the header Retry-After names, also as a date (RFC 9110, 10.2.3); else None."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _response(state: RetryCallState) -> httpx.Response:
    response = _outcome(state)
    assert isinstance(response, httpx.Response)
    return response


def _outcome(state: RetryCallState) -> object:
    """What the last try came to; raises what it raised."""
    assert state.outcome is not None
    return state.outcome.result()


def _close(state: RetryCallState) -> None:
    if state.outcome is not None and not state.outcome.failed:
        _response(state).close()


async def _aclose(state: RetryCallState) -> None:
    if state.outcome is not None and not state.outcome.failed:
        await _response(state).aclose()
