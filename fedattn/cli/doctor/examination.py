"""All checks of a machine, in the order in which they are told."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from structlog.testing import capture_logs

from fedattn.cli.doctor.certificates import check_certificates
from fedattn.cli.doctor.clock import check_clock
from fedattn.cli.doctor.context import check_context
from fedattn.cli.doctor.disks import check_disks
from fedattn.cli.doctor.examining import examined
from fedattn.cli.doctor.finding import Check, Finding, Found, ok, problem
from fedattn.cli.doctor.gateway import check_gateway
from fedattn.cli.doctor.link import check_link
from fedattn.cli.doctor.memory import check_memory
from fedattn.cli.doctor.model import check_model
from fedattn.cli.doctor.ports import check_ports
from fedattn.cli.doctor.proxies import check_proxy
from fedattn.cli.doctor.running import run_checks
from fedattn.cli.doctor.subject import Subject
from fedattn.cli.doctor.versions import check_software
from fedattn.client import Client


def check_settings(subject: Subject) -> Iterator[Found]:
    """What the service would refuse to start with."""
    if subject.refused:
        yield problem(subject.refused, "docs/settings.md says what each setting takes")
    yield ok(
        f"{subject.source}: node {subject.node_id or 'not named'}, aggregator "
        f"{subject.settings.aggregator}, model {subject.settings.model}"
    )


def check_policy(subject: Subject) -> Iterator[Found]:
    """The owner's policy, as the service reads it."""
    from services.participant.policy import check_policy as check_readable

    path = subject.settings.policy
    check_readable(path)
    yield ok("no policy: whoever asks, of every block but 0" if path is None else f"{path} is good")


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "settings": check_settings,
        "software": check_software,
        "certificates": check_certificates,
        "clock": check_clock,
        "proxy": check_proxy,
        "link": check_link,
        "gateway": check_gateway,
        "ports": check_ports,
        "disks": check_disks,
        "model": check_model,
        "memory": check_memory,
        "policy": check_policy,
        "context": check_context,
    }
)


def examine(
    flags: Mapping[str, str], env_file: Path | None, gateway: Client | None
) -> Iterator[Finding]:
    """Findings of all checks.

    Args:
        flags: settings by name.
        env_file: as `examined`.
        gateway: as `examined`.

    Raises:
        ConfigurationError: there are no settings to examine.
    """
    _load_libraries()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # findings say what gRPC would
    with capture_logs(), examined(flags, env_file, gateway) as subject:
        yield from run_checks(CHECKS, subject)


def _load_libraries() -> None:
    """Import what takes seconds, and what does not bear being imported by several threads."""
    with suppress(ImportError):  # the checks that need it say so
        import services.participant.context
        import services.participant.policy
        import services.participant.terms  # noqa: F401
