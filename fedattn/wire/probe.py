"""`python -m fedattn.wire.probe HOST:PORT`: whether a service serves, for health checks.

Exit code 0 if it does. With certificates, those of the machine that asks.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError
from fedattn.core.proxies import Endpoint, find_endpoint
from fedattn.wire.channel import open_channel
from fedattn.wire.security import Certificates, read_certificates
from fedattn.wire.status import raise_if_cancelled


async def is_serving(
    endpoint: Endpoint, certificates: Certificates | None, peer: str, timeout_s: float = 5.0
) -> bool:
    """Ask `grpc.health.v1` about the service as a whole."""
    async with open_channel(endpoint, certificates, peer=peer) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise_if_cancelled()
            print(f"{endpoint}: {error.details()}", file=sys.stderr)
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _expanded_path(text: str) -> Path:
    return Path(os.path.expandvars(text))  # where there is no shell that would


def main() -> int:
    """Ask once."""
    parser = argparse.ArgumentParser(description="Whether a service serves.")
    parser.add_argument("address", help="host:port")
    parser.add_argument("--certificates", help="folder, as for the services; takes $VARIABLE")
    parser.add_argument("--peer", default="", help="name its certificate bears; takes $VARIABLE")
    options = parser.parse_args()
    try:
        endpoint = find_endpoint(HostPort.parse(options.address), os.environ)
        folder = options.certificates
        certificates = None if folder is None else read_certificates(_expanded_path(folder))
    except ConfigurationError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        return 2
    peer = os.path.expandvars(options.peer)
    return 0 if asyncio.run(is_serving(endpoint, certificates, peer)) else 1


if __name__ == "__main__":
    sys.exit(main())
