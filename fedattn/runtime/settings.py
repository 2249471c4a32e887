"""What every service's settings class has in common."""

import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from fedattn.core.errors import ConfigurationError


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


class ServiceSettings(BaseSettings):
    """Base of the one settings class of each service; read once, in main."""

    certificates: Path | None = Field(
        None,
        description="Folder with ca.crt, tls.crt and tls.key of this service, for mutual TLS.",
    )
    plaintext: bool = Field(
        False, description="Speak without TLS; for the loopback, or networks nobody else is on."
    )
    metrics: str | None = Field(
        None, description="host:port for Prometheus to read numbers from; none if absent."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log entries to write."
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Log for people or for machines."
    )

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
        given = "" if item["type"] == "missing" else f", got {str(item['input'])[:80]!r}"
        flag = "--" + name.replace("_", "-")
        return f"{prefix}{name.upper()} ({flag}): {item['msg']}{given}"

    return "; ".join(line(item) for item in error.errors())
