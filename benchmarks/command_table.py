"""The commands, options and exit codes of docs/command-line.md, from the command line itself.

python -m benchmarks.command_table
"""

import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from benchmarks.blocks import ROOT, with_block, write_documents
from benchmarks.settings_table import number
from fedattn.cli.epilogs import EXAMPLES
from fedattn.cli.failures import EXIT_CODES
from fedattn.cli.main import command_line

DOCUMENT = ROOT / "docs" / "command-line.md"
_OF_TYPER = {"--help", "--install-completion", "--show-completion"}
"""Options that every command has, or that the document tells in words."""


def reference() -> str:
    """Markdown: a section a command."""
    root = typer.main.get_command(command_line())
    return "\n\n".join(section(path, command) for path, command in commands(root))


def commands(command: Any, path: str = "fedattn") -> Iterator[tuple[str, Any]]:
    """Every command that can be run, with the words that name it, in the order of the help."""
    inner = getattr(command, "commands", {})
    if not inner or getattr(command, "invoke_without_command", False):
        yield path, command
    for name, one in inner.items():
        yield from commands(one, f"{path} {name}")


def section(path: str, command: Any) -> str:
    """Heading, what it does, its options, examples."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    usage = " ".join([path, *map(_usage_of, arguments)])
    parts = [f"### {usage}", _text(command.help)]
    rows = [_row(_usage_of(one), one) for one in arguments]
    rows += [_row(_names_of(one), one) for one in options if not _OF_TYPER & set(one.opts)]
    if rows:
        head = ["| option | default | values | meaning |", "|---|---|---|---|"]
        parts.append("\n".join([*head, *rows]))
    if lines := EXAMPLES.get(path.removeprefix("fedattn "), ()):
        parts.append("\n".join(["```", *lines, "```"]))
    return "\n\n".join(parts)


def _usage_of(argument: Any) -> str:
    name = (argument.metavar or argument.name or "").upper().strip("[]")
    return (name if argument.required else f"[{name}]") + ("..." if argument.nargs < 0 else "")


def _names_of(option: Any) -> str:
    return ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))


def _row(names: str, parameter: Any) -> str:
    meaning = _text(parameter.help).removesuffix(".").replace("|", "\\|")
    if parameter.envvar:
        meaning += f" (`{parameter.envvar}`)"
    cells = [names, _default_of(parameter), _values_of(parameter), meaning]
    return f"| {' | '.join(cells)} |"


def _default_of(parameter: Any) -> str:
    value = parameter.default
    if parameter.required or value in {None, ""}:
        return "required" if parameter.required else "none" if value is None else "empty"
    match value:
        case bool():
            return "on" if value else "off"
        case int() | float():
            return number(value)
        case _:
            return f"`{value.value if isinstance(value, Enum) else value}`"


def _values_of(parameter: Any) -> str:
    """Choices, or bounds; several if it may be repeated."""
    choices = _choices(parameter.type_descriptor.annotation)
    if choices:
        shown = ", ".join(f"`{one.value}`" for one in choices)
    else:
        limits = (("from", parameter.min), ("to", parameter.max))
        shown = " ".join(f"{word} {number(limit)}" for word, limit in limits if limit is not None)
    is_told = "repeated" in (parameter.help or "")
    repeated = "may be repeated" if parameter.multiple and not is_told else ""
    return "; ".join(filter(None, (shown, repeated)))


def _choices(annotation: Any) -> tuple[Enum, ...]:
    """Members of an enum, all or those that a Literal names; none of another type."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    kind = next(iter(get_args(annotation)), annotation)
    return tuple(kind) if isinstance(kind, type) and issubclass(kind, Enum) else ()


def _text(text: str | None) -> str:
    """Help as one paragraph a paragraph."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def exit_codes() -> str:
    """Markdown: what each exit code means."""
    rows = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])


def document(text: str) -> str:
    """docs/command-line.md with every table as the code has it."""
    text = with_block(text, "exit codes", exit_codes())
    return with_block(text, "commands", reference())


def documents() -> dict[Path, str]:
    """The document, as it should be."""
    return {DOCUMENT: document(DOCUMENT.read_text())}


if __name__ == "__main__":
    write_documents(documents())
