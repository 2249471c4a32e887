"""Where a gateway is, who asks there, and how it is reached."""

import os
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from httpx_sse import SSEError

from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError, GatewayUnavailableError
from fedattn.core.proxies import Endpoint, find_endpoint

GATEWAY_VARIABLE, KEY_VARIABLE = "FEDATTN_GATEWAY", "FEDATTN_API_KEY"
DEFAULT_GATEWAY = "http://127.0.0.1:8000"
_KEEP_S = 2.0
"""An idle connection is kept for less time than by any gateway, which may close it in use else."""
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to speak with one gateway.

    Attributes:
        url: of the gateway, without a slash at its end.
        headers: that say who asks.
        trust: whom an https gateway is believed by.
        endpoint: its address, and the proxy on the way there.
    """

    url: str
    headers: Mapping[str, str]
    trust: ssl.SSLContext | bool
    endpoint: Endpoint

    @classmethod
    def find(
        cls,
        gateway: str | None,
        api_key: str | None,
        ca: str | os.PathLike[str] | None,
        environment: Mapping[str, str],
    ) -> Self:
        """What arguments say, or else the environment.

        Raises:
            ConfigurationError: it is no URL of a gateway, or a key, file or proxy is of no use.
        """
        url = _check_url(gateway or environment.get(GATEWAY_VARIABLE) or DEFAULT_GATEWAY)
        key = api_key or environment.get(KEY_VARIABLE)
        return cls(
            url=url,
            headers={"Authorization": f"Bearer {_check_key(key)}"} if key else {},
            trust=url.startswith("https:") if ca is None else _trusting(Path(ca)),
            endpoint=find_endpoint(_address_of(url), environment),
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """Of httpx's classes that open connections."""
        limits = httpx.Limits(keepalive_expiry=_KEEP_S)
        return {"verify": self.trust, "proxy": self.endpoint.proxy, "limits": limits}

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Raise what goes wrong on the way to the gateway as GatewayUnavailableError."""
        try:
            yield
        except SSEError:
            raise GatewayUnavailableError(
                f"{self.url} answered with something else than events; is it a fedattn gateway?"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise GatewayUnavailableError(
                f"the gateway at {self.endpoint} cannot be reached: "
                f"{str(error) or type(error).__name__}; {_remedy(error)}"
            ) from error


def _remedy(error: Exception) -> str:
    match error:
        case httpx.ConnectError() if "SSL" in str(error):
            return (
                "it speaks no TLS that this machine trusts: write http://, or name the file of "
                "its authority (--ca FILE; ca= in Python)"
            )
        case httpx.RemoteProtocolError() | httpx.ReadError():
            return "it ended the connection: is it a fedattn gateway, and does it still run?"
        case httpx.ReadTimeout():
            return "it took the request and did not answer: is it a fedattn gateway?"
    return f"start one with `fedattn up`, or name another with --gateway or {GATEWAY_VARIABLE}"


def _check_url(text: str) -> str:
    url = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        parsed = httpx.URL(url)
        is_good = parsed.scheme in _PORTS and bool(parsed.host)
    except (httpx.InvalidURL, ValueError):
        is_good = False
    if not is_good:
        raise ConfigurationError(
            f"{text!r} is no URL of a gateway; expected such as {DEFAULT_GATEWAY}"
        )
    return url.rstrip("/")


def _check_key(api_key: str) -> str:
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
