"""Whether the aggregator is reached, how far it is, and how fast the way there is.

Speed is measured with health checks (grpc.health.v1) that ask for a service with a very long name:
every aggregator answers those, keeps nothing of them, and takes none above 1 MiB.
"""

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedattn.cli.doctor.finding import Found, ok, problem, skipped, warning
from fedattn.cli.doctor.subject import Subject
from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError
from fedattn.core.node_id import AGGREGATOR
from fedattn.core.proxies import Endpoint
from fedattn.wire.certificate_folder import CertificateFolder
from fedattn.wire.channel import open_channel
from fedattn.wire.security import Certificates
from fedattn.wire.status import raise_if_cancelled

_TIMEOUT_S = 5.0
_ROUND_TRIPS = 5
_UPLOAD_BYTES, _MAX_UPLOADS = 256 << 10, 8
_UPLOAD_WITHIN_S = 4.0
"""No upload begins later: 2 MiB in all, or as many as a slow link takes in so long."""
_LEAST_S = 1e-4
"""No upload counts as shorter: clocks and schedulers are no better."""
_FAR_S, _SLOW_MBIT_S = 0.3, 2.0
"""A session of the embedded model still answers in seconds on this side of both."""
_FAST_MBIT_S = 1000.0
"""From here on no session waits for the link, and so few bytes measure it badly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What was measured.

    Attributes:
        round_trip_s: shortest of a health check, on an open connection.
        upload_mbit_s: rate of the fastest upload, round trip taken off: others may be held up by
            what else goes on here.
    """

    round_trip_s: float
    upload_mbit_s: float


def check_link(subject: Subject) -> Iterator[Found]:
    """Connects as the node does, and measures."""
    if not subject.is_described:
        yield skipped(
            "no aggregator was named",
            "give --aggregator HOST:PORT; a network of fedattn up is examined with --gateway alone",
        )
        return
    endpoint = subject.settings.endpoint
    if endpoint.proxy is None:
        connected = _connect(endpoint)
        yield connected
        if connected.remedy:
            return
    path = subject.settings.certificates
    try:
        own = None if path is None else CertificateFolder(path).current
    except ConfigurationError:
        yield skipped("without certificates it goes no further; see there")
        return
    try:
        link = asyncio.run(measure(endpoint, own))
    except grpc.aio.AioRpcError as error:
        yield problem(f"{endpoint}: {_reason(error)}", _remedy(subject, path))
        return
    yield from describe(link)


def describe(link: Link) -> Iterator[Found]:
    """What the numbers mean."""
    delay = f"a round trip takes {link.round_trip_s * 1000:.1f} ms"
    if link.round_trip_s > _FAR_S:
        yield warning(delay, "expect seconds a question: each sync layer waits for the others")
    else:
        yield ok(delay)
    mbit_s = link.upload_mbit_s
    speed = f"about {mbit_s:.1f}" if mbit_s < _FAST_MBIT_S else f"more than {_FAST_MBIT_S:.0f}"
    rate = f"uploads at {speed} Mbit/s; downloads are not measured"
    if link.upload_mbit_s < _SLOW_MBIT_S:
        yield warning(rate, "send fewer bytes: fedattn ask --kv-budget-bytes, or --keep-ratio")
    else:
        yield ok(rate)


async def measure(endpoint: Endpoint, certificates: Certificates | None) -> Link:
    """Delay and speed to an aggregator.

    Raises:
        grpc.aio.AioRpcError: it cannot be reached, or does not know this node's authority.
    """
    async with open_channel(endpoint, certificates, peer=AGGREGATOR) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        await _ask(stub, 0)
        round_trip_s = min([await _ask(stub, 0) for _ in range(_ROUND_TRIPS)])
        began, uploads = time.monotonic(), [await _ask(stub, _UPLOAD_BYTES)]
        while len(uploads) < _MAX_UPLOADS and time.monotonic() - began < _UPLOAD_WITHIN_S:
            uploads.append(await _ask(stub, _UPLOAD_BYTES))
    taken_s = max(min(uploads) - round_trip_s, _LEAST_S)
    return Link(round_trip_s=round_trip_s, upload_mbit_s=8 * _UPLOAD_BYTES / taken_s / 1e6)


async def _ask(stub: health_pb2_grpc.HealthStub, num_bytes: int) -> float:
    """Seconds of one health check with so many bytes."""
    began = time.monotonic()
    request = health_pb2.HealthCheckRequest(service="-" * num_bytes)
    try:
        await stub.Check(request, timeout=_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        raise_if_cancelled()
        if error.code() is not grpc.StatusCode.NOT_FOUND:  # which is what a long name gets
            raise
    return time.monotonic() - began


def _connect(endpoint: Endpoint) -> Found:
    """Name and TCP alone: what fails here is no matter of certificates."""
    address = endpoint.address
    assert isinstance(address, HostPort)  # the aggregator is reached by TCP
    began = time.monotonic()
    try:
        with socket.create_connection((address.host, address.port), timeout=_TIMEOUT_S):
            return ok(f"{address} takes connections, in {(time.monotonic() - began) * 1000:.1f} ms")
    except socket.gaierror as error:
        return problem(
            f"{address}: the name is not known here ({error.strerror})",
            "correct --aggregator, or the DNS of this machine",
        )
    except OSError as error:
        return problem(
            f"{address}: no connection ({error.strerror or error})",
            "start the aggregator, correct --aggregator, or open its port in the firewall",
        )


def _reason(error: grpc.aio.AioRpcError) -> str:
    return (error.details() or error.code().name)[:300]


def _remedy(subject: Subject, path: Path | None) -> str:
    if subject.settings.endpoint.proxy is not None:
        return "see whether the proxy passes CONNECT to that port, or give --proxy none"
    if path is None:
        return "something else listens there, or an aggregator with certificates: give some too"
    return (
        "something else listens there, or an aggregator of another authority or without "
        "certificates"
    )
