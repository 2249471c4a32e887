"""The tables of docs/settings.md, from the settings classes of the services.

python -m benchmarks.settings_table
"""

from enum import Enum
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from benchmarks.blocks import ROOT, with_block, write_documents
from fedattn.runtime.settings import ServiceSettings
from gateway.settings import GatewaySettings
from services.aggregator.settings import AggregatorSettings
from services.participant.settings import ParticipantSettings

DOCUMENT = ROOT / "docs" / "settings.md"
SERVICES: dict[str, type[ServiceSettings]] = {
    "aggregator": AggregatorSettings,
    "participant": ParticipantSettings,
    "gateway": GatewaySettings,
}
_BOUNDS = {"gt": "above ", "ge": "from ", "lt": "below ", "le": "to "}


def table(settings: type[ServiceSettings], names: list[str], prefix: str) -> str:
    """Markdown: a row for each named setting, in the order of the class."""
    lines = ["| flag | variable | default | values | meaning |", "|---|---|---|---|---|"]
    for name in names:
        field = settings.model_fields[name]
        flag, variable = name.replace("_", "-"), f"{prefix}{name.upper()}"
        cells = [f"`--{flag}`", f"`{variable}`", default_of(name, field), values_of(field)]
        lines.append(f"| {' | '.join([*cells, meaning_of(name, field)])} |")
    return "\n".join(lines)


def default_of(name: str, field: FieldInfo) -> str:
    """The default as a user would write it; sizes in MiB too."""
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if value in {None, ""}:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if name.endswith("_bytes"):
        return f"{value} ({value >> 20} MiB)"
    if isinstance(value, int | float):
        return number(value)
    return f"`{value.value if isinstance(value, Enum) else value}`"


def number(value: float) -> str:
    """Whole numbers without a point; those that a float cannot hold, roughly."""
    if abs(value) > 1 << 53:
        return f"{value:.1e}"
    return str(int(value) if value == int(value) else value)


def values_of(field: FieldInfo) -> str:
    """Choices, or bounds, or nothing."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    bounds = [
        f"{words}{number(getattr(limit, key))}"
        for key, words in _BOUNDS.items()
        for limit in field.metadata
        if hasattr(limit, key)
    ]
    return " ".join(bounds)


def meaning_of(name: str, field: FieldInfo) -> str:
    """The description, without the full stop.

    Raises:
        ValueError: the setting has none.
    """
    if not field.description:
        raise ValueError(f"setting {name} has no description; give its Field one")
    return field.description.removesuffix(".").replace("|", "\\|")


def document(text: str) -> str:
    """docs/settings.md with every table as the code has it."""
    shared = list(ServiceSettings.model_fields)
    text = with_block(text, "shared settings", table(ServiceSettings, shared, "FEDATTN_..._"))
    for service, settings in SERVICES.items():
        own = [name for name in settings.model_fields if name not in shared]
        prefix = str(settings.model_config["env_prefix"])
        text = with_block(text, f"{service} settings", table(settings, own, prefix))
    return text


def documents() -> dict[Path, str]:
    """The document, as it should be."""
    return {DOCUMENT: document(DOCUMENT.read_text())}


if __name__ == "__main__":
    write_documents(documents())
