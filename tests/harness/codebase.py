"""What the code offers beside its names: files, options, settings, routes."""

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import typer

from benchmarks import metrics_table
from fedattn.cli import main as cli
from fedattn.runtime.settings import ServiceSettings
from gateway.app import create_app
from gateway.settings import GatewaySettings
from services.aggregator.settings import AggregatorSettings
from services.participant.settings import ParticipantSettings

ROOT = Path(__file__).parents[2]
PRODUCT = ("fedattn", "services", "gateway", "benchmarks")
SERVICES: dict[str, type[ServiceSettings]] = {
    "services.aggregator": AggregatorSettings,
    "services.participant": ParticipantSettings,
    "gateway": GatewaySettings,
}
_OTHERS = ("tests", "proto", "docs", "examples", "docker", "deploy", "locks", ".ci", ".github")
_FOLDERS = (*PRODUCT, *_OTHERS)


@cache
def metrics() -> frozenset[str]:
    """Names that Prometheus reads from the services."""
    return frozenset(
        name
        for service in metrics_table.SERVICES
        for one in metrics_table.metrics_of(service)
        for name in (one.name, *one.samples)
    )


@cache
def paths() -> frozenset[str]:
    """Files and folders, relative to the root."""
    top = [path for path in ROOT.iterdir() if path.is_file()]
    inner = [path for folder in _FOLDERS for path in (ROOT / folder).rglob("*")]
    found = [str(path.relative_to(ROOT)) for path in [*top, *inner]]
    return frozenset([*_FOLDERS, *(path for path in found if "__pycache__" not in path)])


@cache
def targets() -> frozenset[str]:
    """Targets of the Makefile."""
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def make_variables() -> frozenset[str]:
    """Variables of the Makefile that a user may set."""
    return frozenset(re.findall(r"^([A-Z]+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def openapi() -> dict[str, Any]:
    """The gateway's own description."""
    return create_app(GatewaySettings(plaintext=True)).openapi()


def command_line() -> Any:
    """The `fedattn` command, a click command; typer brings a click of its own."""
    entry = vars(cli).get("app") or vars(cli)["command_line"]()
    return typer.main.get_command(entry)


def subcommands(command: Any) -> dict[str, Any]:
    """Those of a group; none of any other command."""
    found: dict[str, Any] = getattr(command, "commands", {})
    return found


def command_options(command: Any) -> Iterator[str]:
    """Every option of a command and its subcommands."""
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for inner in subcommands(command).values():
        yield from command_options(inner)


@cache
def options() -> frozenset[str]:
    """Every --option of commands, services, benchmarks and scripts."""
    flags = set(command_options(command_line())) | {"--help"}
    for settings in SERVICES.values():
        flags |= {f"--{name.replace('_', '-')}" for name in settings.model_fields}
    for path in paths():
        if path.startswith("benchmarks/") and path.endswith(".py"):
            flags |= set(re.findall(r'"(--[a-z][a-z-]+)"', (ROOT / path).read_text()))
    for script in (ROOT / "deploy/edge/install.sh", ROOT / "docker/compose-test.sh"):
        flags |= set(re.findall(r"--[a-z][a-z-]+", script.read_text()))
    return frozenset(flags)


@cache
def environment() -> frozenset[str]:
    """Every variable that something reads."""
    variables = {
        f"{settings.model_config['env_prefix']}{name.upper()}"
        for settings in SERVICES.values()
        for name in settings.model_fields
    }
    for path in paths():
        is_read = path.endswith((".py", ".sh", ".yml", "Dockerfile", "Makefile", ".hcl"))
        if is_read and not path.startswith("tests/"):
            variables |= set(re.findall(r"\b[A-Z]{3,}_[A-Z_]+[A-Z]\b", (ROOT / path).read_text()))
    return frozenset(variables)


def is_path(word: str) -> bool:
    """Whether a file or folder is there; patterns and ends of paths count."""
    ends = (word.removesuffix("/"), f"*/{word.removesuffix('/')}")
    return any(fnmatch(path, end) for path in paths() for end in ends)
