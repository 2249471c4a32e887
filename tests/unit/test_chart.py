"""Chart and Compose file name what the code has. `make chart-check` renders the chart."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from fedattn.runtime.settings import ServiceSettings
from fedattn.wire.certificate_folder import CertificateFolder
from gateway.settings import GatewaySettings
from services.aggregator.settings import AggregatorSettings
from services.participant.settings import ParticipantSettings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "fedattn"
SETTINGS: dict[str, type[ServiceSettings]] = {
    "aggregator": AggregatorSettings,
    "gateway": GatewaySettings,
    "participant": ParticipantSettings,
}


def known_settings() -> set[str]:
    return {
        f"{cls.model_config['env_prefix']}{name}".upper()
        for cls in SETTINGS.values()
        for name in cls.model_fields
    }


def test_templates_set_settings_that_are_there() -> None:
    written = "".join(path.read_text() for path in (CHART / "templates").glob("*.yaml"))
    named = set(re.findall(r"name: (FEDATTN_[A-Z_]+)", written))
    assert named
    assert named <= known_settings()


@pytest.mark.parametrize("path", sorted((CHART / "ci").glob("*.yaml")), ids=lambda path: path.stem)
def test_values_set_settings_that_are_there(path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    for service in ("aggregator", "gateway"):
        for name in values[service].get("settings", {}):
            assert f"FEDATTN_{service}_{name}".upper() in known_settings()


def test_compose_sets_settings_that_are_there() -> None:
    files = (ROOT / "docker-compose.yml", ROOT / "docker" / "cluster.env")
    written = "".join(path.read_text() for path in files)
    services = "|".join(name.upper() for name in SETTINGS)
    named = set(re.findall(rf"(?m)^ *(FEDATTN_(?:{services})_[A-Z_]+)[:=]", written))
    assert named
    assert named <= known_settings()


def test_images_are_those_of_the_dockerfile() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    for service in SETTINGS:
        assert f"FROM base AS {service}" in dockerfile
        assert f"fedattn-{service}" in (CHART / "values.yaml").read_text()


@pytest.fixture
def job() -> ModuleType:
    path = CHART / "files" / "certificates.py"
    spec = importlib.util.spec_from_file_location("chart_certificates", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


NAMES = {"demo-aggregator-0-tls": "aggregator", "demo-gateway-tls": "gateway", "demo-a-tls": "a"}


def test_job_makes_certificates_and_goes_on_with_its_authority(
    job: ModuleType, tmp_path: Path
) -> None:
    kept: dict[str, dict[str, bytes]] = {}

    class Kept:
        def read(self, name: str) -> dict[str, bytes] | None:
            return kept.get(name)

        def write(self, name: str, folder: Path) -> None:
            kept[name] = {path.name: path.read_bytes() for path in folder.iterdir()}

    secrets: Any = Kept()
    job.make(secrets, "demo-authority", NAMES, 30)
    first = dict(kept)
    job.make(secrets, "demo-authority", NAMES, 30)
    assert set(kept) == {"demo-authority", *NAMES}
    for secret in NAMES:
        folder = tmp_path / secret
        folder.mkdir()
        for name, content in kept[secret].items():
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o600)
        assert CertificateFolder(folder).current.authority == first[secret]["ca.crt"]
        assert kept[secret]["tls.crt"] != first[secret]["tls.crt"]
