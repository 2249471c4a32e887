"""Whether cache and state can be written, and how much room is left."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fedattn.cli.doctor.finding import Found, ok, problem, warning
from fedattn.cli.doctor.subject import Subject

TOO_LITTLE, SCARCE = 128 << 20, 1 << 30
"""Bytes left: an index or a record may fail; a model may not fit."""


def check_disks(subject: Subject) -> Iterator[Found]:
    """The folders of prepared models and of the node's state."""
    from fedattn.model.store import CACHE_VARIABLE, default_cache_dir

    yield _look("cache", default_cache_dir(), f"set {CACHE_VARIABLE} to a folder elsewhere")
    if subject.node_id is not None:
        yield _look("state", subject.settings.state_dir, "give another folder with --state DIR")


def _look(what: str, folder: Path, elsewhere: str) -> Found:
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        return problem(
            f"{what} {folder}: cannot be written by this user",
            f"let this user write {place}, or {elsewhere}",
        )
    free = shutil.disk_usage(place).free
    told = f"{what} {folder}: {free >> 20} MiB free"
    if free < TOO_LITTLE:
        return problem(told, f"make room there, or {elsewhere}")
    if free < SCARCE:
        return warning(told, f"make room there before a model is prepared, or {elsewhere}")
    return ok(told)
