"""`python -m gateway`."""

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import ip_address

from fedattn.runtime.extras import ending_without

with ending_without("gateway"):
    import structlog

    from fedattn.core.errors import ConfigurationError
    from fedattn.runtime.lifecycle import end_process, run_main
    from fedattn.runtime.listening import open_listeners
    from fedattn.runtime.metrics import new_registry, serve_metrics
    from fedattn.runtime.serving import serve_app
    from fedattn.wire.certificate_folder import choose_security
    from fedattn.wire.certificate_keeper import kept_certificates
    from gateway.app import create_app
    from gateway.jobs_lock import keeping_jobs_alone
    from gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)


async def serve(settings: GatewaySettings, stopping: asyncio.Event) -> None:
    """Serve until told to stop.

    Raises:
        ConfigurationError: certificates, address or state folder are of no use, or anyone could
            ask there.
    """
    certificates = choose_security(settings.certificates, plaintext=settings.plaintext)
    doors = settings.doors()
    listeners = open_listeners(settings.listen)
    _check_reach(settings, listeners)
    registry = new_registry("gateway")
    with keeping_jobs_alone(settings.state), serve_metrics(settings.metrics, registry):
        app = create_app(settings, certificates, registry)
        async with kept_certificates(certificates, settings.certificates_interval_s):
            await serve_app(app, listeners, stopping, settings.grace_s, doors)


def _check_reach(settings: GatewaySettings, listeners: Iterable[socket.socket]) -> None:
    """Raise ConfigurationError if others could ask without a name; warn of keys in the clear."""
    hosts = [str(listener.getsockname()[0]).partition("%")[0] for listener in listeners]
    if all(ip_address(host).is_loopback for host in hosts):
        return
    if not (settings.needs_sign_in or settings.open):
        raise ConfigurationError(
            f"--listen {settings.listen}: anyone could ask there; let callers sign in with --keys "
            f"FILE (`fedattn keys create`) or --oidc-issuer, listen on 127.0.0.1, or say --open "
            f"where nobody else is on the network"
        )
    if settings.needs_sign_in and settings.tls_certificate is None:
        log.warning("keys_in_the_clear", remedy="give --tls-certificate, or put TLS before it")


def main() -> int:
    """Run until SIGTERM."""
    return run_main(GatewaySettings, serve)


if __name__ == "__main__":
    end_process(main())
