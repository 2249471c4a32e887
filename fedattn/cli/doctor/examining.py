"""Reading the settings a participant would use here, also where it would refuse some of them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from fedattn.cli.doctor.env_file import DEFAULT_ENV_FILE, read_env_file
from fedattn.cli.doctor.subject import UNNAMED, Subject
from fedattn.client import Client
from fedattn.core.errors import ConfigurationError
from services.participant.settings import ParticipantSettings

_PREFIX = str(ParticipantSettings.model_config["env_prefix"])
_TOGETHER = frozenset({"keep_warm_s", "critical_temperature_c", "critical_memory_free"})
"""Settings that may fit by themselves and not beside others."""


@contextmanager
def examined(
    flags: Mapping[str, str], env_file: Path | None, gateway: Client | None
) -> Iterator[Subject]:
    """The subject; inside the block the environment is that of its service.

    Args:
        flags: settings by name, which go before those of the environment; empty for a switch.
        env_file: settings of the service; None for the installer's, if no node id is given.
        gateway: that the node is reached through, if one was named.

    Raises:
        ConfigurationError: the file cannot be read, or the settings not even in part.
    """
    if env_file is None and "node_id" not in flags and DEFAULT_ENV_FILE.exists():
        env_file = DEFAULT_ENV_FILE
    before = dict(os.environ)
    try:
        if env_file is not None:
            _replace_environment({**_without_settings(before), **read_env_file(env_file)})
        settings, refused = _read(dict(flags))
        yield Subject(
            settings=settings,
            refused=refused,
            source="flags and environment" if env_file is None else f"{env_file} and flags",
            environment=dict(os.environ),
            gateway=gateway,
        )
    finally:
        _replace_environment(before)


def _read(flags: dict[str, str]) -> tuple[ParticipantSettings, str]:
    """Settings, and what the service would say of those that it would refuse."""
    if "node_id" not in flags and not os.environ.get(f"{_PREFIX}NODE_ID"):
        flags["node_id"] = UNNAMED
    try:
        return _load(flags), ""
    except ConfigurationError as error:
        refused = error
    remaining = {**flags, "proxy": "none"}
    for name in _names_in(refused) or _TOGETHER | _unknown():
        remaining.pop(name, None)
        os.environ.pop(f"{_PREFIX}{name.upper()}", None)
    remaining.setdefault("node_id", UNNAMED)
    return _load(remaining), str(refused)


def _load(flags: Mapping[str, str]) -> ParticipantSettings:
    pairs = ((f"--{name.replace('_', '-')}", value) for name, value in flags.items())
    return ParticipantSettings.load(
        [f"{option}={value}" if value else option for option, value in pairs]
    )


def _names_in(error: ConfigurationError) -> frozenset[str]:
    """Settings that are refused for themselves."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return frozenset()
    return frozenset(str(item["loc"][0]).lower() for item in cause.errors() if item["loc"])


def _unknown() -> frozenset[str]:
    own = (key.removeprefix(_PREFIX).lower() for key in os.environ if key.startswith(_PREFIX))
    return frozenset(own) - ParticipantSettings.model_fields.keys()


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if not key.startswith(_PREFIX)}


def _replace_environment(wanted: Mapping[str, str]) -> None:
    for key in os.environ.keys() - wanted.keys():
        del os.environ[key]
    os.environ.update(wanted)
