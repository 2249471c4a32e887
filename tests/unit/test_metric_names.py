"""One name, one meaning: metrics of the services, and what shows and watches them."""

import re
from pathlib import Path

import pytest
import yaml

from benchmarks.metrics_table import DOCUMENT, SERVICES, MetricInfo, document, metrics_of

ROOT = Path(__file__).parents[2]
SHOWN = ("docker/monitoring/dashboard.json", "docker/monitoring/alerts.yml")
LABELS = {
    "cause": "of few",
    "code": "of our errors",
    "direction": "up or down",
    "node": "joined nodes, of which the aggregator's settings bound the number",
    "outcome": "a word of ours, or the code of one of our errors",
    "role": "contributor or publisher",
}
"""Every label there is, and what bounds it: never a subject, a session or a text."""


def every() -> list[MetricInfo]:
    return [one for service in SERVICES for one in metrics_of(service)]


def test_no_two_services_give_one_name_to_two_things() -> None:
    names = [one.name for one in every()]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("service", SERVICES)
def test_names_say_whose_they_are_and_in_which_base_unit(service: str) -> None:
    for one in metrics_of(service):
        assert one.name.startswith((f"fedattn_{service}_", "fedattn_node_")), one.name
        assert not re.search(r"_(ms|minutes|percent|mib|kb|millis\w*)(_|$)", one.name)
        if one.kind == "counter":
            assert one.name.endswith("_total")
        if one.kind == "histogram":
            assert one.name.endswith(("_seconds", "_bytes", "_answers"))
        assert set(one.labels) <= LABELS.keys(), one.name
        assert one.meaning.endswith(".")


@pytest.mark.parametrize("path", SHOWN)
def test_dashboard_and_alerts_use_metrics_there_are(path: str) -> None:
    used = set(re.findall(r"fedattn_\w+", (ROOT / path).read_text(encoding="utf-8")))
    assert used
    assert used <= {sample for one in every() for sample in one.samples}


def test_document_says_what_the_code_and_the_rules_say() -> None:
    text = DOCUMENT.read_text()
    assert text == document(text), "docs/observability.md is out of date; run: make docs"


def test_prometheus_is_given_the_rules() -> None:
    assert "rule_files: [/etc/prometheus/alerts.yml]" in (
        ROOT / "docker/monitoring/prometheus.yml"
    ).read_text(encoding="utf-8")
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert "./docker/monitoring/alerts.yml:/etc/prometheus/alerts.yml:ro" in compose


def test_prometheus_scrapes_every_aggregator_and_gateway_that_compose_may_start() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    config = (ROOT / "docker/monitoring/prometheus.yml").read_text(encoding="utf-8")
    for job in yaml.safe_load(config)["scrape_configs"]:
        image = f"fedattn-{job['job_name']}"
        services = {
            name: bool(service.get("profiles"))
            for name, service in compose["services"].items()
            if service.get("image") == image and "monitoring" in service.get("networks", ())
        }
        always = {f"{name}:9100" for name, is_optional in services.items() if not is_optional}
        assert {one for group in job["static_configs"] for one in group["targets"]} == always
        found = {name for group in job["dns_sd_configs"] for name in group["names"]}
        assert found == {name for name, is_optional in services.items() if is_optional}
