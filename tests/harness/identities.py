"""Certificates of one authority for all tests, made once a process."""

import tempfile
from functools import cache
from pathlib import Path

from fedattn.cli.certificates import init_certificates
from fedattn.wire.security import Certificates, read_certificates


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fedattn-certs-")


@cache
def certificates_of(name: str) -> Certificates:
    """Those of a node, of `aggregator` or of `gateway`."""
    return read_certificates(folder_of(name))


@cache
def folder_of(name: str) -> Path:
    """Folder of a service's certificates."""
    folder = Path(_folder().name)
    init_certificates(folder, [] if name in {"aggregator", "gateway"} else [name], 30)
    return folder / name
