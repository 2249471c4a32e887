"""Every package is pinned with the hashes of its files, as pyproject.toml asks for it."""

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.harness.codebase import ROOT
from tests.harness.locks import read_hashes, read_lock

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]
LOCKS = {
    "build": GROUPS["build"],
    "aggregator": ["fedattn[services,cluster]"],
    "gateway": ["fedattn[client,gateway,oidc,cluster]"],
    "participant": ["fedattn[participant]", *GROUPS["model"]],
    "dev": ["fedattn[dev]", *GROUPS["build"], *GROUPS["model"]],
}


def wanted(requirements: list[str]) -> list[Requirement]:
    """What these come to, where they name extras of this project."""
    found = []
    for requirement in map(Requirement, requirements):
        if requirement.name == "fedattn":
            extras = [one for extra in requirement.extras for one in EXTRAS[extra]]
            found += wanted([*PROJECT["project"]["dependencies"], *extras])
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_lock_holds_what_the_project_asks_for(name: str) -> None:
    pins = read_lock(name) | read_lock("torch")
    for requirement in wanted(LOCKS[name]):
        (specifier,) = pins[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(specifier.version), requirement


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_the_hashes_of_its_files(name: str) -> None:
    pins, hashes = read_lock(name), read_hashes(name)
    assert pins.keys() == hashes.keys()
    for key, pin in pins.items():
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert hashes[key]
        assert all(len(one) == 64 for one in hashes[key])


@pytest.mark.parametrize("name", LOCKS)
def test_locks_agree_and_name_no_index(name: str) -> None:
    every = read_lock("dev")
    assert read_hashes(name).items() <= read_hashes("dev").items()
    for key, pin in read_lock(name).items():  # who is asked for on some systems only may differ
        assert every[key].specifier == pin.specifier
    assert "://" not in (ROOT / "locks" / f"{name}.txt").read_text()


def test_torch_and_its_cuda_are_in_no_lock() -> None:
    assert list(read_lock("torch")) == ["torch"]
    left_out = {"torch", *PROJECT["tool"]["uv"]["exclude-dependencies"]}
    for name in LOCKS:
        assert not left_out & read_lock(name).keys()
