"""`python -m services.aggregator`."""

import asyncio

from fedattn.runtime.extras import ending_without, require_extras

with ending_without("services"):
    import structlog
    from prometheus_client import CollectorRegistry

    from fedattn.runtime.audit import AuditLog
    from fedattn.runtime.lifecycle import end_process, run_main
    from fedattn.runtime.metrics import new_registry, serve_metrics
    from fedattn.runtime.state import AUDIT_FILE, make_state_dir
    from fedattn.runtime.supervision import notify_ready
    from fedattn.wire.certificate_folder import choose_security
    from fedattn.wire.certificate_keeper import kept_certificates
    from fedattn.wire.security import OwnCertificates
    from fedattn.wire.server import WireServer
    from fedattn.wire.v1 import aggregator_pb2, aggregator_pb2_grpc
    from services.aggregator.federation import Alone, Federation
    from services.aggregator.peer import Peer
    from services.aggregator.servicer import AggregatorServicer
    from services.aggregator.settings import AggregatorSettings

log = structlog.get_logger(__name__)

SERVICE_NAME = aggregator_pb2.DESCRIPTOR.services_by_name["AggregatorService"].full_name


async def start_aggregator(
    settings: AggregatorSettings,
    certificates: OwnCertificates | None = None,
    registry: CollectorRegistry | None = None,
    audit: AuditLog | None = None,
) -> tuple[WireServer, AggregatorServicer]:
    """Compose and start the service; plaintext without certificates, no record without `audit`."""
    servicer = AggregatorServicer(settings, registry, audit, federation=_federation(settings))
    server = WireServer([SERVICE_NAME], certificates)
    await server.start(
        settings.listen,
        lambda grpc_server: aggregator_pb2_grpc.add_AggregatorServiceServicer_to_server(
            servicer, grpc_server
        ),
        with_reflection=settings.reflection,
    )
    await servicer.federation.begin(servicer.roll)
    return server, servicer


def _federation(settings: AggregatorSettings) -> Federation:
    """The other aggregators, if the settings say how to find them."""
    access = settings.nats_access
    if access is None:
        return Alone()
    require_extras("cluster")
    from services.aggregator.cluster.federation import (  # noqa: PLC0415 - an extra brings its library
        NatsFederation,
    )

    own = Peer(settings.name, str(settings.advertise))
    return NatsFederation(own, access, settings.lease_s)


async def stop_aggregator(server: WireServer, servicer: AggregatorServicer, grace_s: float) -> None:
    """Not serving, drain for at most `grace_s`, end."""
    await server.set_serving(serving=False)
    await servicer.federation.retire()
    try:
        async with asyncio.timeout(grace_s):
            await servicer.drain()
    except TimeoutError:
        log.warning("sessions_cut_short", grace_s=grace_s)
    servicer.close()
    await server.stop()
    await servicer.federation.close()
    await servicer.drain()  # aborted sessions still write down how they ended


async def serve(settings: AggregatorSettings, stopping: asyncio.Event) -> None:
    """Serve until told to stop.

    Raises:
        ConfigurationError: certificates, the address or the state folder are of no use.
    """
    certificates = choose_security(settings.certificates, plaintext=settings.plaintext)
    registry = new_registry("aggregator")
    audit = AuditLog(make_state_dir(settings.state_dir) / AUDIT_FILE)
    server, servicer = await start_aggregator(settings, certificates, registry, audit)
    with serve_metrics(settings.metrics, registry):
        log.info("serving", port=server.port)
        notify_ready()
        async with kept_certificates(certificates, settings.certificates_interval_s):
            await stopping.wait()
        log.info("stopping")
        await stop_aggregator(server, servicer, settings.grace_s)
        audit.close()


def main() -> int:
    """Run until SIGTERM."""
    return run_main(AggregatorSettings, serve)


if __name__ == "__main__":
    end_process(main())
