"""Every package is pinned with the hashes of its files, as pyproject.toml asks for it."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]
LOCKS = {
    "build": GROUPS["build"],
    "aggregator": ["fedattn[services]"],
    "gateway": ["fedattn[client,gateway,oidc]"],
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


def read_lock(name: str) -> dict[str, Requirement]:
    """The pins of a lock, by name."""
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    lines = [line.split("--hash")[0] for line in text.replace("\\\n", "").splitlines()]
    pins = [Requirement(line) for line in lines if line.strip() and line[0] != "#"]
    return {canonicalize_name(pin.name): pin for pin in pins}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_holds_what_the_project_asks_for(name: str) -> None:
    pins = read_lock(name) | read_lock("torch")
    for requirement in wanted(LOCKS[name]):
        (specifier,) = pins[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(specifier.version), requirement


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_the_hashes_of_its_files(name: str) -> None:
    text = (ROOT / "locks" / f"{name}.txt").read_text().replace("\\\n", "")
    for line in text.splitlines():
        if line[0] != "#":
            pin, *hashes = line.split("--hash=sha256:")
            assert len(Requirement(pin).specifier) == 1
            assert "==" in pin
            assert hashes
            assert all(len(one.strip()) == 64 for one in hashes)


@pytest.mark.parametrize("name", LOCKS)
def test_locks_agree_and_name_no_index(name: str) -> None:
    every = read_lock("dev")
    for key, pin in read_lock(name).items():  # who is asked for on some systems only may differ
        assert every[key].specifier == pin.specifier
    assert "://" not in (ROOT / "locks" / f"{name}.txt").read_text()


def test_torch_and_its_cuda_are_in_no_lock() -> None:
    assert list(read_lock("torch")) == ["torch"]
    left_out = {"torch", *PROJECT["tool"]["uv"]["exclude-dependencies"]}
    for name in LOCKS:
        assert not left_out & read_lock(name).keys()
