"""`python -m gateway`."""

import asyncio

from fedattn.runtime.lifecycle import end_process, run_main
from fedattn.runtime.listening import open_listeners
from fedattn.runtime.metrics import new_registry, serve_metrics
from fedattn.runtime.serving import serve_app
from fedattn.wire.certificate_folder import choose_security
from fedattn.wire.certificate_keeper import kept_certificates
from gateway.app import create_app
from gateway.settings import GatewaySettings


async def serve(settings: GatewaySettings, stopping: asyncio.Event) -> None:
    """Serve until told to stop.

    Raises:
        ConfigurationError: certificates or the address are of no use.
    """
    certificates = choose_security(settings.certificates, plaintext=settings.plaintext)
    listeners = open_listeners(settings.listen)
    registry = new_registry("gateway")
    app = create_app(settings, certificates, registry)
    with serve_metrics(settings.metrics, registry):
        async with kept_certificates(certificates, settings.certificates_interval_s):
            await serve_app(app, listeners, stopping, settings.grace_s)


def main() -> int:
    """Run until SIGTERM."""
    return run_main(GatewaySettings, serve)


if __name__ == "__main__":
    end_process(main())
