"""docs/api.md says what the gateway's schema and the table of errors say."""

from benchmarks.api_table import DOCUMENT, Schemas, document, error_table
from fedattn.core.errors import NodeBusyError

OPENAPI = {
    "components": {
        "schemas": {
            "Outer": {
                "description": "What is asked.\n\nMore.",
                "required": ["question"],
                "properties": {
                    "question": {"type": "string", "maxLength": 9, "description": "Text."},
                    "inner": {"$ref": "#/components/schemas/Inner", "description": "How."},
                },
            },
            "Inner": {
                "description": "How it is done.",
                "properties": {
                    "ratio": {
                        "type": "number",
                        "default": 0.5,
                        "exclusiveMinimum": 0,
                        "maximum": 1,
                        "description": "Share.",
                    }
                },
            },
        }
    }
}


def test_document_says_what_the_code_says() -> None:
    text = DOCUMENT.read_text()
    assert text == document(text), "docs/api.md is out of date; run: make docs"


def test_nested_schema_follows_the_one_that_refers_to_it() -> None:
    shown = Schemas(OPENAPI).render("Outer")
    assert "| `question` | string | required | to 9 | Text |" in shown
    assert "| `ratio` | number | 0.5 | above 0 to 1 | Share |" in shown
    assert shown.index("**Outer**: What is asked") < shown.index("**Inner**: How it is done")


def test_every_error_code_is_listed_with_its_status() -> None:
    assert f"| `{NodeBusyError.code}` | 429 | yes |" in error_table()
