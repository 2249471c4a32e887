"""docs/settings.md says what the settings classes say: names, defaults, bounds, meanings."""

import pytest
from pydantic import Field
from pydantic.fields import FieldInfo

from benchmarks.settings_table import DOCUMENT, default_of, document, table, values_of
from fedattn.runtime.settings import ServiceSettings, service_config


class ExampleSettings(ServiceSettings):
    model_config = service_config("FEDATTN_EXAMPLE_", "python -m example")

    max_nodes: int = Field(7, ge=1, description="Nodes joined at once.")


def test_document_says_what_the_code_says() -> None:
    text = DOCUMENT.read_text()
    assert text == document(text), "docs/settings.md is out of date; run: make docs"


def test_changed_default_changes_the_document() -> None:
    row = table(ExampleSettings, ["max_nodes"], "FEDATTN_EXAMPLE_").splitlines()[-1]
    assert row == (
        "| `--max-nodes` | `FEDATTN_EXAMPLE_MAX_NODES` | 7 | from 1 | Nodes joined at once |"
    )
    assert default_of("max_nodes", FieldInfo(default=8)) == "8"


@pytest.mark.parametrize(
    ("name", "default", "shown"),
    [
        ("rows_bytes", 256 << 20, "268435456 (256 MiB)"),
        ("grace_s", 10.0, "10"),
        ("reflection", False, "false"),
        ("listen", None, "none"),
        ("model", "default", "`default`"),
    ],
)
def test_default_is_shown_as_a_user_writes_it(name: str, default: object, shown: str) -> None:
    assert default_of(name, FieldInfo(default=default)) == shown


def test_choices_are_listed() -> None:
    assert values_of(ServiceSettings.model_fields["log_format"]) == "`console`, `json`"
