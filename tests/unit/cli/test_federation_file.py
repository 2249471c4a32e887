"""`federation.toml`: what it says, and how its mistakes are told."""

import re
from pathlib import Path
from typing import get_args
from unittest.mock import Mock

import pytest

from fedattn.cli.federation import (
    AggregatorTable,
    DecodeWeightsName,
    GatewayTable,
    NodeTable,
    Table,
    WeightsName,
)
from fedattn.cli.federation_file import read_federation
from fedattn.core.errors import ConfigurationError
from fedattn.model.placement import choose_decoder, choose_weights
from fedattn.runtime.settings import ServiceSettings
from gateway.settings import GatewaySettings
from services.aggregator.settings import AggregatorSettings
from services.participant.settings import ParticipantSettings
from tests.harness.codebase import ROOT

DOCUMENT = ROOT / "docs" / "federation-file.md"
NODE = '[[node]]\nid = "a"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "federation.toml"
    path.write_text(text)
    return path


def test_the_documented_example_is_a_network(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    for folder in ("notes/workshop", "notes/storeroom", "policies"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("policies/workshop.toml", "parts.csv", "keys.json"):
        (tmp_path / file).touch()
    network = read_federation(write(tmp_path, example))
    desk, workshop, storeroom, parts = network.nodes()
    assert [desk.id, workshop.id, storeroom.id, parts.id] == [
        *("desk", "workshop", "storeroom", "parts")
    ]
    assert workshop.context == tmp_path / "notes" / "workshop"
    assert network.state == tmp_path / "state"
    assert storeroom.flags("id", "model", "context") == [
        *("--context-encoding=cp1252", "--threads=2", "--rows-lifetime-s=600.0")
    ]
    assert network.gateway.flags("port") == [
        *(f"--keys={tmp_path / 'keys.json'}", "--queries-per-minute=20")
    ]


@pytest.mark.parametrize(
    ("table", "settings", "own"),
    [
        (NodeTable, ParticipantSettings, {"id"}),
        (GatewayTable, GatewaySettings, {"port"}),
        (AggregatorTable, AggregatorSettings, set()),
    ],
)
def test_keys_are_settings_and_documented(
    table: type[Table], settings: type[ServiceSettings], own: set[str]
) -> None:
    assert table.model_fields.keys() - own <= settings.model_fields.keys()
    documented = set(re.findall(r"`(\w+)`", DOCUMENT.read_text()))
    assert table.model_fields.keys() <= documented


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "[[node]]: expected at least one table, got none"),
        (NODE * 2, "[[node]] 1, key id: expected one that no other node has"),
        ("[[node]]", "[[node]] 1: expected an id, a context or both, got neither"),
        (NODE * 17, "[[node]]: expected at most 16 tables, got 17"),
        ('[node]\nid = "a"', "[[node]]: expected one or more tables, each in double brackets"),
        (f'{NODE}context = "gone"', "[[node]] 1, key context: expected a file or folder that is"),
        (f"{NODE}polcy = 3", "[[node]] 1, key polcy: unknown; expected one of id, context"),
        ('[[node]]\nid = "a b"', "[[node]] 1, key id: node id 'a b': expected 1 to 64 characters"),
        ('[[node]]\nid = "gateway"', "key id: node id 'gateway' is that of another part"),
        (f"{NODE}[gateway]\nport = 80000", "[gateway], key port: expected at most 65535, got"),
        (
            f'{NODE}[gateway]\nshare = "all"',
            "key share: expected 'nothing' or 'question', got",
        ),
        (
            f"{NODE}[aggregator]\nmax_sessions = 0",
            "[aggregator], key max_sessions: expected at least 1, got 0",
        ),
        (f"colour = 1\n{NODE}", "key colour: unknown; expected one of model, publisher"),
        ("[[node]", "expected TOML in UTF-8, got: "),
        (f'{NODE}weights = "int3"', "[[node]] 1, key weights: expected 'auto', 'float32'"),
        (f'{NODE}decode_weights = "q8_0"', "key decode_weights: expected 'auto', 'float32' or"),
        (f'{NODE}device = "tpu"', "key device: expected auto, cpu, cuda or cuda:N, got 'tpu'"),
        (f'{NODE}context_encoding = "x"', "key context_encoding: expected a text encoding"),
        (f"{NODE}max_sessions = 65", "key max_sessions: expected at most 64, got 65"),
    ],
)
def test_mistakes_are_told_by_file_table_and_key(tmp_path: Path, text: str, told: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        read_federation(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert told in str(caught.value)


def test_forms_of_weights_are_those_that_models_take() -> None:
    for choose, names in (
        (lambda: choose_weights("int3", Mock()), WeightsName),
        (lambda: choose_decoder("int3", Mock()), DecodeWeightsName),
    ):
        with pytest.raises(ConfigurationError, match=", ".join(get_args(names)) + ", got"):
            choose()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.toml: cannot be read: No such file"):
        read_federation(tmp_path / "gone.toml")


def test_a_model_beside_the_file_is_found_and_another_name_stays(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").touch()
    text = 'model = "small.gguf"\n[[node]]\nid = "a"\nmodel = "owner/name"'
    desk, other = read_federation(write(tmp_path, text)).nodes()
    assert (desk.model, other.model) == (str(tmp_path / "small.gguf"), "owner/name")
