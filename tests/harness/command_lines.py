"""Finds commands, options, routes and fields in command lines that do not exist."""

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer

from tests.harness import codebase

TOOLS = frozenset({"docker", "journalctl", "pytest", "pip"})
"""Programs of others; only the files they are given are looked for."""

_OTHER_ROUTES = frozenset({"/docs", "/openapi.json", "/metrics"})
_USAGE_ERROR: Any = typer.BadParameter.__bases__[0]


def check_block(block: str) -> Iterator[str]:
    """Problems of the commands in a fenced block; other lines are output."""
    for line in block.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # no shell line
        while words and re.fullmatch(r"sudo|[A-Z_]+=\S+", words[0]):
            words = words[1:]
        if words:
            yield from (f"{line.strip()}: {problem}" for problem in check_command(words))


def check_command(words: list[str], *, is_whole: bool = True) -> Iterator[str]:
    """Problems of a command line; `is_whole` says that it could be run as it stands."""
    match [words[0].removeprefix(".venv/bin/"), *words[1:]]:
        case ["make", *rest]:
            yield from _check_make(rest)
        case ["fedattn", *rest]:
            yield from _check_fedattn(rest, is_whole=is_whole)
        case ["python", "-m", module, *rest]:
            yield from _check_module(module, rest)
        case [tool, *rest] if tool in TOOLS:
            yield from (
                f"no file {word}" for word in rest if "/" in word and not codebase.is_path(word)
            )
        case ["curl", *rest]:
            yield from _check_curl(rest)
        case ["deploy/edge/install.sh" | "docker/compose-test.sh" as script, *rest]:
            known = (codebase.ROOT / script).read_text()
            yield from (f"no option {word}" for word in _flags(rest) if word not in known)


def _check_make(words: list[str]) -> Iterator[str]:
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in (codebase.make_variables() if equals else codebase.targets()):
            yield f"the Makefile has no {name}"


def _check_fedattn(words: list[str], *, is_whole: bool) -> Iterator[str]:
    command = codebase.command_line()
    while codebase.subcommands(command) and words and not words[0].startswith("-"):
        inner = codebase.subcommands(command).get(words[0])
        if inner is None:
            yield f"fedattn has no command {words[0]}"
            return
        command, words = inner, words[1:]
    if is_whole and "--help" not in words and not codebase.subcommands(command):
        try:
            command.make_context(command.name, list(words))
        except _USAGE_ERROR as error:
            yield error.format_message()
    known = {*codebase.command_options(command), "--help"}
    yield from (f"no option {word}" for word in _flags(words) if word not in known)


def _check_module(module: str, words: list[str]) -> Iterator[str]:
    path = module.replace(".", "/")
    if not {f"{path}.py", f"{path}/__main__.py"} & codebase.paths():
        yield f"no module {module}"
    elif module in codebase.SERVICES:
        fields = codebase.SERVICES[module].model_fields
        known = {f"--{name.replace('_', '-')}" for name in fields}
        yield from (f"no option {word}" for word in _flags(words) if word not in known)
    elif f"{path}.py" in codebase.paths():
        source = (codebase.ROOT / f"{path}.py").read_text()
        yield from (f"no option {word}" for word in _flags(words) if f'"{word}"' not in source)


def _flags(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if word.startswith("--")]


def _check_curl(words: list[str]) -> Iterator[str]:
    routes = [re.sub(r"https?://[^/]+", "", word) for word in words if word.startswith("http")]
    for route in routes:
        yield from check_route(route)
    if "-d" in words and routes[0] in codebase.openapi()["paths"]:
        operation = codebase.openapi()["paths"][routes[0]]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        yield from _check_body(json.loads(words[words.index("-d") + 1]), schema)


def check_route(route: str) -> Iterator[str]:
    route = re.sub(r"/[0-9a-f]{32}\b", "/{job_id}", route)
    if route not in {*codebase.openapi()["paths"], *_OTHER_ROUTES}:
        yield f"the gateway has no route {route}"


def _check_body(value: Any, schema: dict[str, Any]) -> Iterator[str]:
    if isinstance(value, dict) and "$ref" in schema:
        known = codebase.openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        for key, inner in value.items():
            if key not in known["properties"]:
                yield f"no field {key}"
            else:
                yield from _check_body(inner, known["properties"][key])
