"""Which extra of this package brings a library that is not installed."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import MappingProxyType

from fedattn.core.errors import ConfigurationError

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "client": ("rich", "typer"),
        "mcp": ("mcp", "uvicorn"),
        "services": (
            "cachetools",
            "cryptography",
            "google",
            "grpc",
            "grpc_health",
            "grpc_reflection",
            "prometheus_client",
            "pydantic_settings",
            "sdnotify",
            "structlog",
        ),
        "participant": (
            "accelerate",
            "charset_normalizer",
            "filelock",
            "gguf",
            "huggingface_hub",
            "jinja2",
            "lxml",
            "psutil",
            "regex",
            "safetensors",
            "tokenizers",
            "torch",
            "transformers",
            "watchfiles",
        ),
        "gateway": ("aiosqlite", "fastapi", "fastapi_offline", "h11", "sse_starlette", "uvicorn"),
        "cluster": ("nats",),
        "oidc": ("jwt",),
        "plots": ("matplotlib",),
        "documents": ("docx", "pypdf"),
        "telemetry": ("opentelemetry",),
    }
)
"""Extra -> modules that come with it. pyproject.toml says the same of distributions."""


def require_extras(*extras: str) -> None:
    """Check, without importing anything, that what needs these extras can run.

    Raises:
        ConfigurationError: names the missing modules and the command that installs them.
    """
    missing = {extra: [name for name in EXTRAS[extra] if not find_spec(name)] for extra in extras}
    lacking = [extra for extra, names in missing.items() if names]
    if lacking:
        names = ", ".join(name for extra in lacking for name in missing[extra][:3])
        raise ConfigurationError(f"{names}: not installed; {install_hint(*lacking)}")


def install_hint(*extras: str) -> str:
    """The command that installs some extras."""
    return f"install with: pip install 'fedattn[{','.join(extras)}]'"


def missing_module(name: str) -> ConfigurationError:
    """The error for a module that could not be imported, by the name Python tells."""
    top = name.partition(".")[0]
    for extra, names in EXTRAS.items():
        if top in names:
            return ConfigurationError(f"{top}: not installed; {install_hint(extra)}")
    return ConfigurationError(f"{top}: not installed; install the package that brings it")


@contextmanager
def ending_without(extra: str) -> Iterator[None]:
    """End a program whose imports, which stand in the block, need an extra that is not installed.

    It says so in one line, with the exit code of a bad setting.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or str(error)).partition(".")[0]
        line = f"error [{ConfigurationError.code}]: {module}: not installed; {install_hint(extra)}"
        sys.stderr.write(f"{line}\n")
        raise SystemExit(2) from None
