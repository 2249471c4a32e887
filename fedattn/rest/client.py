"""A client of the gateway; the only module here that needs httpx and httpx-sse."""

import os
import re
import ssl
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from httpx_sse import ServerSentEvent, SSEError, connect_sse
from pydantic import BaseModel, TypeAdapter, ValidationError

from fedattn.core.address import HostPort
from fedattn.core.errors import (
    ConfigurationError,
    FedAttnError,
    GatewayUnavailableError,
    ProtocolMismatchError,
    SessionAbortedError,
    error_from_code,
)
from fedattn.core.proxies import Endpoint, find_endpoint
from fedattn.rest.answers import EVENT_MODELS, ParticipantInfo, QueryAnswer, QueryEvent, WarmAnswer
from fedattn.rest.problems import Problem
from fedattn.rest.query import QueryBody, SessionBody

_CONNECT_TIMEOUT_S = 10.0
_MARGIN_S = 30.0
"""The gateway ends a query at its deadline and says why; this is its time to say it."""
_LIST_TIMEOUT_S = 15.0
_PORTS = {"http": 80, "https": 443}
_PARTICIPANTS = TypeAdapter(list[ParticipantInfo])

M = TypeVar("M", bound=BaseModel)


class GatewayClient:
    """Speaks with one gateway; holds no connection between calls.

    Args:
        url: of the gateway; `http://` may be left out.
        api_key: who asks: an API key, or a token of the gateway's issuer.
        authority: PEM file that vouches for an https gateway; None for those this machine trusts.

    Raises:
        ConfigurationError: it is no URL of a gateway, or a key or file that is of no use.
    """

    def __init__(self, url: str, api_key: str | None = None, authority: Path | None = None) -> None:
        self.url = _check_url(url)
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {_check(api_key)}"}
        self._trust = True if authority is None else _trusting(authority)
        self._endpoint = find_endpoint(_address_of(self.url), os.environ)

    @property
    def endpoint(self) -> Endpoint:
        """Where the gateway is, and how it is reached."""
        return self._endpoint

    def stream(self, body: QueryBody) -> Generator[QueryEvent, None, None]:
        """Ask, and yield events as the gateway sends them; the last is the answer.

        Raises:
            FedAttnError: the gateway's problem, with its code; or it cannot be reached.
        """
        document = body.model_copy(update={"stream": True}).model_dump(mode="json")
        with (
            self._connected(body.deadline_s + _MARGIN_S) as client,
            connect_sse(client, "POST", "/v1/queries", json=document) as source,
        ):
            if source.response.status_code != httpx.codes.OK:
                source.response.read()
                raise self._problem(source.response)
            for event in source.iter_sse():
                if event.event == "error":
                    raise _error_of(self._read(Problem, event.data))
                if event.event in EVENT_MODELS:  # a newer gateway may say more
                    yield self._event(event)

    def ask(self, body: QueryBody) -> QueryAnswer:
        """Ask, and wait for the answer.

        Raises:
            FedAttnError: as `stream`.
        """
        with closing(self.stream(body)) as events:
            for event in events:
                if isinstance(event, QueryAnswer):
                    return event
        raise SessionAbortedError("the gateway ended the stream without a report; ask again")

    def warm(self, body: SessionBody) -> WarmAnswer:
        """Let the publisher fetch rows ahead of any question.

        Raises:
            FedAttnError: as `stream`.
        """
        with self._connected(body.deadline_s + _MARGIN_S) as client:
            response = client.post("/v1/warm", json=body.model_dump(mode="json"))
        return self._read(WarmAnswer, self._content(response))

    def participants(self) -> list[ParticipantInfo]:
        """Who is joined now.

        Raises:
            FedAttnError: as `stream`.
        """
        with self._connected(_LIST_TIMEOUT_S) as client:
            response = client.get("/v1/participants")
        with self._understanding():
            return _PARTICIPANTS.validate_json(self._content(response))

    def date(self) -> str:
        """Its clock, as HTTP tells it (RFC 9110, section 6.6.1); empty if it does not.

        Raises:
            FedAttnError: it cannot be reached.
        """
        with self._connected(_LIST_TIMEOUT_S) as client:
            return str(client.get("/healthz").headers.get("date", ""))

    @contextmanager
    def _connected(self, timeout_s: float) -> Iterator[httpx.Client]:
        timeout = httpx.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S)
        try:
            with httpx.Client(
                base_url=self.url,
                headers=self._headers,
                verify=self._trust,
                timeout=timeout,
                proxy=self._endpoint.proxy,
                trust_env=False,
            ) as client:
                yield client
        except SSEError:
            raise GatewayUnavailableError(
                f"{self.url} answered with something else than events; is it a fedattn gateway?"
            ) from None
        except (httpx.HTTPError, ValueError) as error:  # the latter: the URL
            raise GatewayUnavailableError(
                f"the gateway at {self._endpoint} cannot be reached: "
                f"{str(error) or type(error).__name__}; {_remedy(error)}"
            ) from error

    def _event(self, event: ServerSentEvent) -> QueryEvent:
        data: Any = self._read(EVENT_MODELS[event.event], event.data)
        return data  # type: ignore[no-any-return]  # one of EVENT_MODELS, and no problem

    def _content(self, response: httpx.Response) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise self._problem(response)
        return response.content

    def _problem(self, response: httpx.Response) -> FedAttnError:
        try:
            return _error_of(Problem.model_validate_json(response.content))
        except ValidationError:
            return GatewayUnavailableError(
                f"{response.url} answered {response.status_code} without a problem document; "
                f"is it a fedattn gateway?"
            )

    def _read(self, model: type[M], data: str | bytes) -> M:
        with self._understanding():
            return model.model_validate_json(data)

    @contextmanager
    def _understanding(self) -> Iterator[None]:
        try:
            yield
        except ValidationError as error:
            fault = error.errors()[0]
            path = ".".join(map(str, fault["loc"]))
            raise ProtocolMismatchError(
                f"the gateway at {self.url} answers in other words ({path}: {fault['msg']}); "
                f"let both have the same version"
            ) from None


def _remedy(error: Exception) -> str:
    match error:
        case httpx.ConnectError() if "SSL" in str(error):
            return (
                "it speaks no TLS that this machine trusts: write http://, or give --ca FILE with "
                "its authority"
            )
        case httpx.RemoteProtocolError() | httpx.ReadError():
            return "it ended the connection: is it a fedattn gateway, and does it still run?"
        case httpx.ReadTimeout():
            return "it took the request and did not answer: is it a fedattn gateway?"
    return "start one with `fedattn up`, or name another with --gateway"


def _error_of(problem: Problem) -> FedAttnError:
    return error_from_code(problem.code, " ".join(problem.detail.splitlines()))


def _check_url(text: str) -> str:
    url = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        parsed = httpx.URL(url)
        is_good = parsed.scheme in {"http", "https"} and bool(parsed.host)
    except (httpx.InvalidURL, ValueError):
        is_good = False
    if not is_good:
        raise ConfigurationError(
            f"{text!r} is no URL of a gateway; expected such as http://127.0.0.1:8000"
        )
    return url.rstrip("/")


def _check(api_key: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", api_key):
        raise ConfigurationError(
            "the API key has characters that no key has; copy it as `fedattn keys create` printed "
            "it, without quotes or blanks"
        )
    return api_key


def _trusting(authority: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as error:  # SSLError is one
        raise ConfigurationError(
            f"--ca {authority}: expected a PEM file of certificates, got: {error.strerror or error}"
        ) from error


def _address_of(url: str) -> HostPort:
    parsed = httpx.URL(url)
    return HostPort(parsed.host, parsed.port or _PORTS[parsed.scheme])
