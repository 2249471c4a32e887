"""Profiles shipped with this package, one file a model, those of users, and those of nodes."""

from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path

from fedattn.core.errors import InvalidPlanError
from fedattn.core.profile import Profile
from fedattn.core.profile_file import MAX_PROFILE_BYTES, read_profile, write_profile
from fedattn.core.unreadable import why_unreadable

KEPT_PROFILE = "profile.json"
"""What a node finds out about a model, in the model's folder."""


def shipped_profile(fingerprint: str) -> Profile | None:
    """The shipped profile of a model, if there is one."""
    return _shipped().get(fingerprint)


def load_profile(path: Path) -> Profile:
    """Read a profile file.

    Raises:
        InvalidPlanError: it cannot be read, is too large, or is no profile.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROFILE_BYTES + 1)
        if len(data) > MAX_PROFILE_BYTES:
            raise InvalidPlanError(
                f"profile {path}: expected at most {MAX_PROFILE_BYTES} bytes; is this the file?"
            )
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPlanError(f"profile {path} cannot be read: {why_unreadable(error)}") from error
    return read_profile(text, str(path))


def save_profile(profile: Profile, path: Path) -> None:
    """Write a profile file, or replace it in one step."""
    partial = path.with_suffix(".partial")
    partial.write_text(write_profile(profile), encoding="utf-8")
    partial.replace(path)


def kept_profile(path: Path, fingerprint: str) -> Profile | None:
    """A profile that a node made of a model; None if there is none that can be used."""
    with suppress(InvalidPlanError):  # made by another version, or of another model
        profile = load_profile(path)
        profile.check_model(fingerprint)
        return profile
    return None


@cache
def _shipped() -> dict[str, Profile]:
    files = [file for file in resources.files(__package__).iterdir() if file.name.endswith(".json")]
    profiles = [read_profile(file.read_text(encoding="utf-8"), file.name) for file in files]
    return {profile.fingerprint: profile for profile in profiles}
