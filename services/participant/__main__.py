"""`python -m services.participant`."""

import asyncio
import sys

import structlog

from fedattn.core.errors import ConfigurationError
from fedattn.runtime.lifecycle import run_service
from fedattn.runtime.logging import configure_logging
from fedattn.runtime.metrics import serve_metrics
from fedattn.wire.security import choose_security
from services.participant.settings import ParticipantSettings

log = structlog.get_logger(__name__)


def main() -> int:
    """Run until SIGTERM."""
    try:
        settings = ParticipantSettings.load()
    except ConfigurationError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        return 2
    try:  # only now: settings are checked, and --help answers, without loading torch
        from services.participant.app import Participant, build_node  # noqa: PLC0415
        from services.participant.context import check_context  # noqa: PLC0415
    except ModuleNotFoundError as error:
        print(
            f"error [configuration]: {error.name} is not installed; a participant needs the "
            f"extra: pip install 'fedattn[participant]'",
            file=sys.stderr,
        )
        return 2
    try:
        check_context(settings.context, settings.context_encoding)
    except ConfigurationError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log_level, settings.log_format, f"participant/{settings.node_id}")

    async def serve(stopping: asyncio.Event) -> None:
        certificates = choose_security(settings.certificates, plaintext=settings.plaintext)
        node = await asyncio.to_thread(build_node, settings)
        with serve_metrics(settings.metrics, node.metrics.registry):
            await Participant(settings, node, certificates).serve(stopping)

    return run_service(serve)


if __name__ == "__main__":
    sys.exit(main())
