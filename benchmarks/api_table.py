"""The tables of docs/api.md, from the gateway's OpenAPI document and the table of errors.

python -m benchmarks.api_table
"""

from pathlib import Path
from typing import Any

from benchmarks.blocks import ROOT, with_block, write_documents
from benchmarks.settings_table import number
from fedattn.wire.status import STATUS_TABLE
from gateway.app import create_app
from gateway.settings import GatewaySettings

DOCUMENT = ROOT / "docs" / "api.md"
_BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "from",
    "exclusiveMaximum": "below",
    "maximum": "to",
    "minLength": "from",
    "maxLength": "to",
    "maxItems": "at most",
}


class Schemas:
    """Renders schemas of an OpenAPI document, each once."""

    def __init__(self, openapi: dict[str, Any]) -> None:
        self._schemas: dict[str, dict[str, Any]] = openapi["components"]["schemas"]
        self._shown: set[str] = set()

    def render(self, name: str) -> str:
        """Markdown of a schema, and of those it refers to that were not shown yet."""
        schema = self._schemas[name]
        if name in self._shown or "properties" not in schema:
            return ""
        self._shown.add(name)
        fields = schema["properties"]
        lines = [f"**{name}**: {_one_line(schema.get('description', ''))}", ""]
        required = schema.get("required", [])
        columns = ["field", "type", "default", "values", "meaning"]
        if len(required) == len(fields):
            columns.remove("default")
        lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for key, field in fields.items():
            cells = self._cells(key, field, is_required=key in required)
            lines.append(f"| {' | '.join(cells[column] for column in columns)} |")
        inner = [self.render(ref) for field in fields.values() for ref in references(field)]
        return "\n\n".join(["\n".join(lines), *filter(None, inner)])

    def _cells(self, key: str, field: dict[str, Any], *, is_required: bool) -> dict[str, str]:
        enums = [self._schemas[ref] for ref in references(field) if "enum" in self._schemas[ref]]
        return {
            "field": f"`{key}`",
            "type": "string" if enums else _type(field),
            "default": "required" if is_required else _default(field),
            "values": _values([field, *field.get("anyOf", []), *enums]),
            "meaning": _one_line(field.get("description", "")),
        }


def references(node: Any) -> list[str]:
    """Names of the schemas that a piece of a schema refers to."""
    if isinstance(node, dict):
        own = [node["$ref"].rpartition("/")[2]] if "$ref" in node else []
        return own + [ref for value in node.values() for ref in references(value)]
    if isinstance(node, list):
        return [ref for value in node for ref in references(value)]
    return []


def _default(field: dict[str, Any]) -> str:
    match field.get("default"):
        case None if "$ref" in field:
            return "its defaults"
        case None | []:
            return "empty" if field.get("type") == "array" else "none"
        case "":
            return "empty"
        case bool() as value:
            return str(value).lower()
        case int() | float() as value:
            return number(value)
        case value:
            return f"`{value}`"


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return references(field)[0]
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    return str(field.get("type", ""))


def _values(schemas: list[dict[str, Any]]) -> str:
    for schema in schemas:
        if "enum" in schema:
            return ", ".join(f"`{value}`" for value in schema["enum"])
    bounds = [
        f"{words} {number(schema[key])}"
        for key, words in _BOUNDS.items()
        for schema in schemas
        if key in schema
    ]
    return " ".join(bounds)


def _one_line(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split()).removesuffix(".").replace("|", "\\|")


def error_table() -> str:
    """Markdown: the code of every error, its HTTP status, whether to try again."""
    rows = [
        f"| `{leaf.code}` | {status.http_status} | {'yes' if status.is_retryable else 'no'} |"
        for leaf, status in STATUS_TABLE.items()
    ]
    return "\n".join(["| code | status | retry |", "|---|---|---|", *rows])


def document(text: str) -> str:
    """docs/api.md with every table as the code has it."""
    settings = GatewaySettings(plaintext=True)
    openapi = create_app(settings).openapi()
    schemas = Schemas(openapi)
    paths = openapi["paths"]
    ask, warm = paths["/v1/queries"]["post"], paths["/v1/warm"]["post"]
    nodes = paths["/v1/participants"]["get"]
    job, jobs = paths["/v1/queries/{job_id}"]["get"], paths["/v1/queries"]["get"]
    blocks = {
        "query fields": references(ask["requestBody"]),
        "answer fields": references(ask["responses"]["200"]["content"]["application/json"]),
        "event fields": references(ask["responses"]["200"]["content"]["text/event-stream"]),
        "job fields": references([job["responses"]["200"], jobs["responses"]["200"]]),
        "other fields": references([warm["responses"]["200"], nodes["responses"]["200"]]),
    }
    for name, roots in blocks.items():
        rendered = [schemas.render(root) for root in dict.fromkeys(roots)]
        text = with_block(text, name, "\n\n".join(filter(None, rendered)))
    return with_block(text, "error codes", error_table())


def documents() -> dict[Path, str]:
    """The document, as it should be."""
    return {DOCUMENT: document(DOCUMENT.read_text())}


if __name__ == "__main__":
    write_documents(documents())
