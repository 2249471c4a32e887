"""`python -m services.participant`."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from fedattn.runtime.extras import ending_without, require_extras

with ending_without("participant"):
    import structlog

    from fedattn.runtime.collector import making_what_stays
    from fedattn.runtime.lifecycle import end_process, run_main, run_unless_stopped
    from fedattn.runtime.metrics import serve_metrics
    from fedattn.wire.certificate_folder import CertificateFolder, choose_security
    from services.participant.settings import ParticipantSettings

if TYPE_CHECKING:
    from services.participant.node import ParticipantNode

log = structlog.get_logger(__name__)


async def serve(settings: ParticipantSettings, stopping: asyncio.Event) -> None:
    """Load the model, then take part until told to stop, which may be earlier.

    Raises:
        FedAttnError: the node cannot be made, or the aggregator will never take it.
    """
    certificates = choose_security(settings.certificates, plaintext=settings.plaintext)
    node = await run_unless_stopped(stopping, partial(_build_node, settings, certificates))
    if node is None:
        return
    from services.participant.app import Participant  # noqa: PLC0415 - as below

    with serve_metrics(settings.metrics, node.metrics.registry):
        await Participant(settings, node).serve(stopping)


def _build_node(
    settings: ParticipantSettings, certificates: CertificateFolder | None
) -> "ParticipantNode":
    log.info("model", step="loading torch")
    with making_what_stays():
        from services.participant.app import build_node  # noqa: PLC0415 - loads torch

        return build_node(settings, certificates)


def check(settings: ParticipantSettings) -> None:
    """What can be told before anything slow begins.

    Raises:
        ConfigurationError: an extra is not installed, or the context cannot be read.
    """
    require_extras("participant")
    from fedattn.texts.checking import check_context  # noqa: PLC0415 - takes a moment to load
    from services.participant.policy import check_policy  # noqa: PLC0415

    check_context(settings.context, settings.context_encoding)
    check_policy(settings.policy)


def main() -> int:
    """Run until SIGTERM."""
    return run_main(ParticipantSettings, serve, check)


if __name__ == "__main__":
    end_process(main())
