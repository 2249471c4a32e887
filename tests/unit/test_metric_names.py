"""One name, one meaning: metrics of the services, and the dashboard that shows them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVICES = ("services/aggregator", "services/participant", "gateway")
_NAME = re.compile(r'"(fedattn_\w+)"')
_SUFFIX = re.compile(r"_(total|bucket|count|sum)$")


def names(service: str) -> set[str]:
    return set(_NAME.findall((ROOT / service / "metrics.py").read_text(encoding="utf-8")))


def test_no_two_services_give_one_name_to_two_things() -> None:
    every = [name for service in SERVICES for name in names(service)]
    assert sorted(every) == sorted(set(every))


def test_the_dashboard_shows_metrics_there_are() -> None:
    text = (ROOT / "docker/monitoring/dashboard.json").read_text(encoding="utf-8")
    shown = {_SUFFIX.sub("", name) for name in re.findall(r"fedattn_\w+", text)}
    assert shown <= set().union(*map(names, SERVICES))
