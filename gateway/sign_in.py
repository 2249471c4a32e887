"""Finding out who asks, before a request is read any further."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from fedattn.core.errors import ConfigurationError, FedAttnError, NotSignedInError
from fedattn.page import is_page
from fedattn.runtime.api_keys import PREFIX, ApiKey, KeyFile, find_key
from gateway.callers import ANYONE, Caller, Limits
from gateway.problems import headers_of, problem_of
from gateway.rendering import Rendering

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""For what supervises the gateway, which holds no key."""
KEY_HEADER = "x-api-key"

log = structlog.get_logger(__name__)


class ReadsTokens(Protocol):
    """What `TokenReader` is."""

    async def read(self, token: str) -> Caller:
        """Who signed in with a token; raises FedAttnError if nobody did."""


class FindsKeys(Protocol):
    """Knows API keys."""

    def find(self, given: str) -> Caller:
        """Whose key it is; raises NotSignedInError if it is nobody's, or has expired."""


def caller_with(key: ApiKey | None, defaults: Limits) -> Caller:
    """Who has a key that was found; raises NotSignedInError if none was."""
    if key is None:
        raise NotSignedInError(
            "the API key is not known here: mistyped, revoked or expired; ask for a new one"
        )
    return Caller(
        subject=key.name,
        account=f"key {key.id}",
        publishers=frozenset(key.publishers) or None,
        limits=Limits(
            queries_per_minute=key.queries_per_minute or defaults.queries_per_minute,
            max_concurrent=key.max_concurrent or defaults.max_concurrent,
            kv_bytes_per_day=key.kv_bytes_per_day or defaults.kv_bytes_per_day,
        ),
    )


class KeyRing:
    """The keys of a file, read again when it changes.

    Args:
        path: of the file.
        defaults: limits of keys that have none of their own.
        clock: seconds since the epoch.

    Raises:
        ConfigurationError: there is no such file, or it holds no list of keys.
    """

    def __init__(self, path: Path, defaults: Limits, clock: Callable[[], float] = time.time):
        self._file = KeyFile(path)
        self._defaults = defaults
        self._clock = clock
        self._keys: Mapping[str, ApiKey] = {}
        self._version = _version(path)
        if self._version is None:
            raise ConfigurationError(
                f"--keys {path}: no such file; make the first key with: fedattn keys create NAME "
                f"--keys {path}"
            )
        self._keys = _by_id(self._file.read())

    def find(self, given: str) -> Caller:
        """Whose key it is.

        Raises:
            NotSignedInError: nobody's, or one that has expired.
        """
        self._refresh()
        return caller_with(find_key(self._keys, given, self._clock()), self._defaults)

    def _refresh(self) -> None:
        """Take what the file says now; nobody's key is good while it cannot be read."""
        version = _version(self._file.path)
        if version == self._version:
            return
        try:
            self._keys = _by_id(self._file.read())
        except ConfigurationError as error:
            log.error("keys_unreadable", error=str(error))  # noqa: TRY400 - known
            self._keys = {}
        self._version = version


class SignIn:
    """Tells who sends a request, from its headers.

    Args:
        keys: of those who have one.
        tokens: of those who have signed in elsewhere.
    """

    def __init__(self, keys: FindsKeys | None, tokens: ReadsTokens | None) -> None:
        self._keys = keys
        self._tokens = tokens

    async def find(self, headers: Headers) -> Caller:
        """Who sends it.

        Raises:
            NotSignedInError: it does not say, or what it says is not good.
            FedAttnError: as `ReadsTokens.read`.
        """
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get(KEY_HEADER, "")
        if not given:
            raise NotSignedInError(
                "this gateway asks who you are; send an API key or a token of its issuer: set "
                "FEDATTN_API_KEY or give --api-key, or send the header Authorization: Bearer KEY"
            )
        if self._keys is not None and (given.startswith(PREFIX) or self._tokens is None):
            return self._keys.find(given)
        if self._tokens is None:
            raise NotSignedInError("this gateway takes no such credentials")
        return await self._tokens.read(given)


class SignInMiddleware:
    """Refuses whoever does not sign in, and notes who does as `request.state.caller`.

    Args:
        app: what is guarded.
        sign_in: None lets anyone ask.
        render: how errors are written.
    """

    def __init__(self, app: ASGIApp, sign_in: SignIn | None, render: Rendering) -> None:
        self._app = app
        self._render = render
        self._sign_in = sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = ANYONE
        if self._sign_in is not None and not _is_open(scope["path"]):
            try:
                caller = await self._sign_in.find(Headers(scope=scope))
            except FedAttnError as error:
                refusal = self._render(scope["path"], problem_of(error), headers_of(error))
                await refusal(scope, receive, send)
                return
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or is_page(path)


def _by_id(keys: tuple[ApiKey, ...]) -> dict[str, ApiKey]:
    return {key.id: key for key in keys}


def _version(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file is replaced or written; None if there is none."""
    try:
        state = os.stat(path)  # noqa: PTH116 - asked at each request
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size
