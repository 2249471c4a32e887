"""The doctor looks at clock, ports, disks, memory and proxies."""

import os
import shutil
import socket
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedattn.cli.doctor.clock import check_clock
from fedattn.cli.doctor.disks import SCARCE, TOO_LITTLE, check_disks
from fedattn.cli.doctor.finding import State
from fedattn.cli.doctor.memory import check_memory, needed_bytes
from fedattn.cli.doctor.ports import check_ports
from fedattn.cli.doctor.proxies import check_proxy
from fedattn.cli.doctor.versions import check_software
from fedattn.core.costs import ModelSizes
from fedattn.core.types import KvShape
from fedattn.model.prepare import PreparedModel
from services.participant.machine import Memory
from tests.unit.cli.doctor.subjects import FakeGateway, states, subject

SIZES = ModelSizes(
    kv=KvShape(num_layers=4, num_kv_heads=2, head_dim=8),
    hidden_size=64,
    num_query_heads=8,
    intermediate_size=128,
    vocab_size=1000,
    weight_bytes=1 << 30,
)
FAR = ("--plaintext", "--aggregator=aggregator.example.com:50051")
PROXY = {"HTTPS_PROXY": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("ahead_s", "state"), [(0, State.OK), (-200, State.WARNING), (2000, State.PROBLEM)]
)
def test_clock_is_held_against_the_gateway(ahead_s: float, state: State) -> None:
    date = formatdate(time.time() - ahead_s, usegmt=True)
    (found,) = check_clock(subject("--plaintext", gateway=FakeGateway(date)))
    assert found.state is state
    assert ahead_s == 0 or found.found.startswith("-" if ahead_s < 0 else "+")


@pytest.mark.parametrize("gateway", [None, FakeGateway("soon")])
def test_without_a_date_nothing_is_said_of_the_clock(gateway: FakeGateway | None) -> None:
    assert states(check_clock(subject("--plaintext", gateway=gateway))) == [State.SKIPPED]


def test_who_has_a_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (found,) = check_ports(subject("--plaintext", f"--metrics={address}"))
    assert found.state is State.PROBLEM
    assert f"--metrics {address} is taken by process {os.getpid()} (" in found.found


def test_a_node_that_listens_nowhere_needs_no_port() -> None:
    assert states(check_ports(subject("--plaintext"))) == [State.SKIPPED]


@pytest.mark.parametrize(
    ("free", "state"),
    [(SCARCE, State.OK), (SCARCE - 1, State.WARNING), (TOO_LITTLE - 1, State.PROBLEM)],
)
def test_room_of_cache_and_state_is_told(
    free: int, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDATTN_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    found = check_disks(subject("--node-id=a", f"--state={tmp_path / 'state'}"))
    assert states(found) == [state, state]


def test_a_file_in_the_place_of_the_cache_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("FEDATTN_CACHE", str(tmp_path / "cache"))
    (found,) = check_disks(subject())
    assert found.state is State.PROBLEM


def test_a_publisher_needs_more_memory_than_a_contributor() -> None:
    contributor = needed_bytes(SIZES, subject().settings)
    publisher = needed_bytes(SIZES, subject("--publish").settings)
    assert contributor > SIZES.weight_bytes
    assert publisher > contributor + SIZES.weight_bytes // 4


PREPARED = PreparedModel(path=Path("/nowhere"), fingerprint="0" * 64, name="tiny")


@pytest.mark.parametrize(
    ("memory", "state"),
    [
        (Memory(free=4 << 30, total=8 << 30), State.OK),
        (Memory(free=1 << 30, total=8 << 30), State.WARNING),
        (Memory(free=1 << 30, total=1 << 30), State.PROBLEM),
    ],
)
def test_memory_is_held_against_what_the_model_needs(
    memory: Memory, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedattn.model.prepare.find_prepared", lambda _: PREPARED)
    monkeypatch.setattr("fedattn.model.loading.read_sizes", lambda *_: SIZES)
    monkeypatch.setattr("services.participant.machine.read_memory", lambda: memory)
    assert states(check_memory(subject())) == [state]


def test_a_publisher_that_decodes_in_float32_needs_no_copy_in_int8(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedattn.model.prepare.find_prepared", lambda _: PREPARED)
    monkeypatch.setattr("fedattn.model.loading.read_sizes", lambda *_: SIZES)
    enough = needed_bytes(SIZES, subject("--publish").settings, decodes_int8=False)
    memory = Memory(free=enough, total=enough)
    monkeypatch.setattr("services.participant.machine.read_memory", lambda: memory)
    assert states(check_memory(subject("--publish"))) == [State.PROBLEM]
    in_float32 = subject("--publish", "--decode-weights=float32")
    assert states(check_memory(in_float32)) == [State.OK]


def test_a_proxy_on_the_way_is_a_warning() -> None:
    (found,) = check_proxy(subject(*FAR, environment=PROXY))
    assert found.state is State.WARNING
    assert "through the proxy http://proxy:3128" in found.found
    assert "add aggregator.example.com to no_proxy" in found.remedy


def test_a_proxy_that_is_not_taken_is_well() -> None:
    near = subject("--plaintext", environment=PROXY)
    exempt = subject(*FAR, environment={**PROXY, "no_proxy": "example.com"})
    assert states(check_proxy(near)) == states(check_proxy(exempt)) == [State.OK]
    assert states(check_proxy(subject(*FAR))) == [State.SKIPPED]


def test_a_private_address_behind_a_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = [(0, 0, 0, "", ("10.0.0.7", 50051))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: inner)
    (found,) = check_proxy(subject(*FAR, environment=PROXY))
    assert "its name means 10.0.0.7 here" in found.found


def test_versions_are_those_asked_for() -> None:
    assert states(check_software(subject())) == [State.OK]


def test_a_version_that_is_too_old_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["grpcio>=9999", "absent-package", "left-out; extra == 'plots'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda _: asked)
    _, found = check_software(subject())
    assert found.state is State.PROBLEM
    assert "expected >=9999; absent-package is not installed" in found.found
