"""`python -m gateway`."""

import asyncio
import sys

from fedattn.core.errors import ConfigurationError
from fedattn.runtime.lifecycle import run_service
from fedattn.runtime.logging import configure_logging
from fedattn.runtime.metrics import new_registry, serve_metrics
from fedattn.wire.security import choose_security
from gateway.app import create_app
from gateway.server import listen, serve
from gateway.settings import GatewaySettings


def main() -> int:
    """Run until SIGTERM."""
    try:
        settings = GatewaySettings.load()
    except ConfigurationError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)  # noqa: T201
        return 2
    configure_logging(settings.log_level, settings.log_format, "gateway")

    async def run(stopping: asyncio.Event) -> None:
        certificates = choose_security(settings.certificates, plaintext=settings.plaintext)
        listener = listen(settings.host, settings.port)
        registry = new_registry("gateway")
        app = create_app(settings, certificates, registry)
        with serve_metrics(settings.metrics, registry):
            await serve(app, listener, stopping, settings.grace_s)

    return run_service(run)


if __name__ == "__main__":
    sys.exit(main())
