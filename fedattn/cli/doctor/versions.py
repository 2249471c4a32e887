"""Whether the software is what this version was made for."""

import platform
from collections.abc import Iterator
from importlib import metadata

from fedattn import __version__
from fedattn.cli.doctor.finding import Found, ok, problem
from fedattn.cli.doctor.subject import Subject
from fedattn.runtime.extras import install_hint, require_extras
from fedattn.wire.protocol import PROTOCOL_VERSION

_SHOWN = ("torch", "transformers", "grpcio", "protobuf")


def check_software(_subject: Subject) -> Iterator[Found]:
    """Versions of Python, of this package, and of what it stands on."""
    require_extras("participant")
    found = {name: metadata.version(name) for name in _SHOWN}
    yield ok(
        f"fedattn {__version__}, protocol {PROTOCOL_VERSION}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in found.items())
    )
    if wrong := list(_wrong_versions()):
        yield problem("; ".join(wrong), install_hint("participant"))


def _wrong_versions() -> Iterator[str]:
    """Installed packages that are not as this package asks for them."""
    from packaging.requirements import Requirement  # comes with transformers

    for text in metadata.requires("fedattn") or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": "participant"}):
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield f"{wanted.name} is not installed"
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            yield f"{wanted.name} {version}: expected {wanted.specifier}"
