"""Lints the chart, renders it with each file of its `ci`, and holds that to Kubernetes' schemas.

Helm itself does the first two, by its library for Python; `make chart-check` gets both packages.
NATS's chart is not fetched: an empty one stands for it.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import yaml

CHART = Path(__file__).parent / "fedattn"
KUBERNETES = "1.34"
_WARNING = 2


def chart_with_stand_in(folder: Path) -> Path:
    """A copy of the chart whose dependency is there."""
    chart = folder / CHART.name
    shutil.copytree(CHART, chart)
    for needed in yaml.safe_load((chart / "Chart.yaml").read_text())["dependencies"]:
        stand_in = chart / "charts" / needed["name"]
        (stand_in / "templates").mkdir(parents=True)
        described = {"apiVersion": "v2", "name": needed["name"], "version": needed["version"]}
        (stand_in / "Chart.yaml").write_text(yaml.safe_dump(described))
        (stand_in / "values.yaml").write_text("{}\n")
    return chart


def variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and values to render with."""
    yield "values.yaml", {}
    for path in sorted((CHART / "ci").glob("*.yaml")):
        yield path.name, yaml.safe_load(path.read_text())


def problems_of(chart: Path, values: dict[str, Any]) -> Iterator[str]:
    """What is wrong with one rendering."""
    for found in helm.lint(chart, values, strict=True)["messages"]:
        if found["severity"] >= _WARNING and "charts/" not in found["path"]:
            yield f"lint: {found['path']}: {found['error']}"
    with helm.Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        rendered = loaded.render(values, name="demo", namespace="research")
    for path, text in rendered.items():
        if not path.endswith(".txt"):
            yield from (f"{path}: {problem}" for problem in _invalid(text))


def _invalid(text: str) -> Iterator[str]:
    for document in filter(None, yaml.safe_load_all(text)):
        if document["apiVersion"].startswith("cert-manager.io/"):
            continue  # Kubernetes has no schema of it
        name = f"{document['kind']} {document['metadata']['name']}"
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{name}: {'.'.join(map(str, error.path))}: {error.message}"


def main() -> int:
    """Print what is wrong, and how much was looked at."""
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        chart = chart_with_stand_in(Path(folder))
        for name, values in variants():
            found = list(problems_of(chart, values))
            failed = failed or bool(found)
            print(
                f"{name}: {'; '.join(found) or 'lints, renders, and fits Kubernetes ' + KUBERNETES}"
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
