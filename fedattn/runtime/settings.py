"""What every service's settings class has in common."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from fedattn.core.address import HostPort, HostPorts
from fedattn.core.errors import ConfigurationError
from fedattn.core.expectations import message_of
from fedattn.core.proxies import check_proxy_choice

T = TypeVar("T")


def _read_by(parse: Callable[[str], T]) -> BeforeValidator:
    """Reads the text of a setting; a number is what pydantic makes of some texts."""

    def read(value: object) -> object:
        try:
            return parse(str(value)) if isinstance(value, str | int | float) else value
        except ConfigurationError as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(read)


PeerAddresses = Annotated[HostPorts, NoDecode, _read_by(HostPorts.parse)]
"""HOST:PORT of one peer, or of several with commas between."""
PeerAddress = Annotated[HostPort, NoDecode, _read_by(HostPort.parse)]
"""HOST:PORT where a peer is."""
ListenAddress = Annotated[HostPort, NoDecode, _read_by(HostPort.parse_listening)]
"""HOST:PORT to listen on; port 0 for any."""
ProxyChoice = Annotated[str, _read_by(check_proxy_choice)]
"""What `find_endpoint` takes."""
PROXY_MEANING = (
    "Proxy to other nodes: http://HOST:PORT, none, or auto: https_proxy and its like of the "
    "environment, but never to private addresses."
)


def service_config(prefix: str, program: str) -> SettingsConfigDict:
    """Settings from environment variables with `prefix`, overridden by --flags."""
    return SettingsConfigDict(
        env_prefix=prefix,
        cli_prog_name=program,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=False,
    )


def split_texts(text: str) -> tuple[str, ...]:
    """The parts between commas; those that are empty are left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


class ServiceSettings(BaseSettings):
    """Base of the one settings class of each service; read once, in main."""

    certificates: Path | None = Field(
        None,
        description="Folder with ca.crt, tls.crt and tls.key of this service, for mutual TLS.",
    )
    certificates_interval_s: float = Field(
        5.0,
        gt=0,
        description="Time between looks at that folder, and at what the authority has revoked.",
    )
    plaintext: bool = Field(
        False, description="Speak without TLS; for the loopback, or networks nobody else is on."
    )
    metrics: ListenAddress | None = Field(
        None, description="HOST:PORT for Prometheus to read numbers from."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log entries to write."
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Log for people or for machines."
    )

    @property
    def log_name(self) -> str:
        """What entries of its log call the service."""
        return type(self).__name__.removesuffix("Settings").lower()

    @classmethod
    def load(cls, argv: list[str] | None = None) -> Self:
        """Read environment and flags.

        Args:
            argv: flags, None for those of the process.

        Raises:
            ConfigurationError: names each unknown or malformed key and its value.
        """
        cls._refuse_unknown_environment()
        try:
            return cls(_cli_parse_args=True if argv is None else argv)
        except SettingsError as error:  # a list or mapping that is no JSON
            raise ConfigurationError(f'{error}; write lists as JSON, such as ["a"]') from error
        except ValidationError as error:
            raise ConfigurationError(_describe(cls, error)) from error

    @classmethod
    def _refuse_unknown_environment(cls) -> None:
        prefix = str(cls.model_config.get("env_prefix", "")).upper()
        known = {f"{prefix}{name}".upper() for name in cls.model_fields}
        unknown = sorted(
            key for key in os.environ if key.upper().startswith(prefix) and key.upper() not in known
        )
        if unknown:
            raise ConfigurationError(
                f"unknown setting {unknown[0]}; known are {', '.join(sorted(known))}"
            )


def _describe(cls: type[ServiceSettings], error: ValidationError) -> str:
    prefix = str(cls.model_config.get("env_prefix", "")).upper()

    def line(item: Any) -> str:
        name = str(item["loc"][0]) if item["loc"] else "settings"
        message = message_of(item)
        says_it = item["type"] == "missing" or "got " in message
        given = "" if says_it else f", got {str(item['input'])[:80]!r}"
        flag = "--" + name.replace("_", "-")
        return f"{prefix}{name.upper()} ({flag}): {message}{given}"

    return "; ".join(line(item) for item in error.errors())
