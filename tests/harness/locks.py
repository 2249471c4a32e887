"""What the lock files pin."""

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.harness.codebase import ROOT


def read_lock(name: str) -> dict[str, Requirement]:
    """The pins of a lock, by name."""
    pins = [Requirement(pin) for pin, *_ in _lines(name)]
    return {canonicalize_name(pin.name): pin for pin in pins}


def read_hashes(name: str) -> dict[str, frozenset[str]]:
    """The SHA-256 of the files of every pin of a lock, by its name."""
    return {
        canonicalize_name(Requirement(pin).name): frozenset(one.strip() for one in hashes)
        for pin, *hashes in _lines(name)
    }


def _lines(name: str) -> list[list[str]]:
    text = (ROOT / "locks" / f"{name}.txt").read_text().replace("\\\n", "")
    lines = [line.split("--hash=sha256:") for line in text.splitlines()]
    return [line for line in lines if line[0].strip() and line[0][0] != "#"]
