"""Bearer tokens of an OpenID Connect issuer (OpenID Connect Discovery 1.0, RFC 9068)."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx
import jwt
import structlog

from fedattn.core.errors import (
    ConfigurationError,
    GatewayUnavailableError,
    InvalidRequestError,
    NotAllowedError,
    NotSignedInError,
)
from fedattn.core.request import check_label
from gateway.callers import Caller, Limits

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""Those with a public key: with a shared one, whoever checks tokens could make them."""
MIN_REFRESH_S = 30.0
"""Tokens that name unknown keys make the gateway fetch keys at most so often."""
MAX_AGE_S = 600.0
"""A key that the issuer withdrew is taken for so long."""
LEEWAY_S = 30.0
"""Two clocks may differ by this much."""
_FETCH_TIMEOUT_S = 5.0

_Key: TypeAlias = Any
"""A `jwt.PyJWK`, which is good for one algorithm, or a public key of `cryptography`."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Whose tokens are taken, and what in them says who asks.

    Attributes:
        url: as the `iss` of its tokens says it.
        audience: one of the `aud` of its tokens.
        subject_claim: the name that owners' policies know.
        publishers_claim: lists nodes to publish through; None lets every token ask everywhere.
    """

    url: str
    audience: str
    subject_claim: str = "sub"
    publishers_claim: str | None = None

    def __post_init__(self) -> None:
        try:
            parsed = httpx.URL(self.url)
        except httpx.InvalidURL:
            parsed = httpx.URL()
        if not _is_safe(parsed):
            raise ConfigurationError(
                f"--oidc-issuer {self.url!r}: expected an https:// URL (http:// on the loopback)"
            )


class TokenReader:
    """Tells who asks from a token; holds the issuer's keys.

    Args:
        issuer: whose tokens are taken.
        limits: of everybody who signs in this way.
        client: fetches documents of the issuer; None for one of its own a fetch.
        clock: seconds, for the age of keys.
    """

    def __init__(
        self,
        issuer: Issuer,
        limits: Limits,
        client: httpx.AsyncClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._limits = limits
        self._client = client
        self._clock = clock
        self._keys: dict[str | None, _Key] = {}
        self._fetched_at = self._tried_at = -float("inf")
        self._fetching = asyncio.Lock()

    async def read(self, token: str) -> Caller:
        """Who signed in with a token.

        Raises:
            NotSignedInError: it is none of the issuer's, for another audience, or out of date.
            NotAllowedError: it names nobody that nodes can know.
            GatewayUnavailableError: the issuer's keys cannot be fetched.
        """
        try:
            header = jwt.get_unverified_header(token)
            key = await self._find_key(header.get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._issuer.audience,
                issuer=self._issuer.url,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise NotSignedInError(
                f"the token is not taken ({type(error).__name__}); get a new one of "
                f"{self._issuer.url} for audience {self._issuer.audience!r}"
            ) from None
        return self._caller(claims)

    def _caller(self, claims: dict[str, Any]) -> Caller:
        name = claims.get(self._issuer.subject_claim)
        try:
            subject = check_label(self._issuer.subject_claim, name if isinstance(name, str) else "")
        except InvalidRequestError as error:
            raise NotAllowedError(f"token: {error}; name another --oidc-subject-claim") from None
        if not subject:
            raise NotAllowedError(
                f"the token has no text in its claim {self._issuer.subject_claim!r}, so nodes "
                f"cannot be told who asks; name another --oidc-subject-claim"
            )
        return Caller(
            subject=subject,
            account=f"{self._issuer.url} {subject}",
            publishers=self._publishers(claims),
            limits=self._limits,
        )

    def _publishers(self, claims: dict[str, Any]) -> frozenset[str] | None:
        """A list, or words with blanks between; nothing of the kind allows no node."""
        if self._issuer.publishers_claim is None:
            return None
        match claims.get(self._issuer.publishers_claim):
            case str() as words:
                return frozenset(words.split())
            case list() as names:
                return frozenset(name for name in names if isinstance(name, str))
        return frozenset()

    async def _find_key(self, key_id: str | None) -> _Key:
        """The key a token names; without a name the only one.

        Raises:
            NotSignedInError: the issuer has no such key.
            GatewayUnavailableError: nothing is known of its keys.
        """
        if self._should_fetch(key_id):
            async with self._fetching:
                if self._should_fetch(key_id):  # nobody did meanwhile
                    await self._fetch()
        if not self._keys:
            raise GatewayUnavailableError(
                f"the keys of {self._issuer.url} cannot be fetched, so no token can be checked; "
                f"try again, or look into the gateway's log"
            )
        key = self._known(key_id)
        if key is None:
            raise NotSignedInError(
                f"the token names a key that {self._issuer.url} does not have; get a new token"
            )
        return key

    def _should_fetch(self, key_id: str | None) -> bool:
        now = self._clock()
        is_old = now - self._fetched_at > MAX_AGE_S
        return now - self._tried_at >= MIN_REFRESH_S and (is_old or self._known(key_id) is None)

    def _known(self, key_id: str | None) -> _Key | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _fetch(self) -> None:
        """Get the keys; those that are known stay if that fails."""
        begun = self._clock()
        try:
            if self._client is not None:
                keys = await self._get_keys(self._client)
            else:
                async with httpx.AsyncClient(timeout=_FETCH_TIMEOUT_S) as client:
                    keys = await self._get_keys(client)
        except (httpx.HTTPError, httpx.InvalidURL, jwt.PyJWTError, ValueError) as error:
            log.warning("issuer_unreachable", issuer=self._issuer.url, error=str(error))
        else:
            self._keys = keys
            self._fetched_at = begun
        finally:
            self._tried_at = self._clock()  # not before: who comes meanwhile waits for the keys

    async def _get_keys(self, client: httpx.AsyncClient) -> dict[str | None, _Key]:
        url = f"{self._issuer.url.rstrip('/')}/.well-known/openid-configuration"
        document = await _get_object(client, url)
        if document.get("issuer") != self._issuer.url:
            raise ValueError(f"{url} is of {document.get('issuer')!r}, not {self._issuer.url!r}")
        keys_url = str(document.get("jwks_uri"))
        if not _is_safe(httpx.URL(keys_url)):
            raise ValueError(f"jwks_uri {keys_url!r}: expected an https:// URL")
        return _read_keys(await _get_object(client, keys_url))


def _read_keys(document: dict[str, Any]) -> dict[str | None, _Key]:
    """By their names; one that names no algorithm is good for all of its kind."""
    keys = jwt.PyJWKSet.from_dict(document)
    free = {
        one.get("kid") for one in document["keys"] if isinstance(one, dict) and not one.get("alg")
    }
    return {
        key.key_id: key.key if key.key_id in free else key
        for key in keys
        if key.public_key_use != "enc" and key.algorithm_name in ALGORITHMS
    }


async def _get_object(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    response = (await client.get(url)).raise_for_status()
    document = response.json()
    if not isinstance(document, dict):
        raise ValueError(f"{url}: expected a JSON object")  # noqa: TRY004 - of the issuer's
    return document


def _is_safe(url: httpx.URL) -> bool:
    """Whether nobody on the way can say what it says."""
    is_here = url.host in {"localhost", "127.0.0.1", "::1"}
    return bool(url.host) and (url.scheme == "https" or (url.scheme == "http" and is_here))
