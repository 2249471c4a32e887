"""Opening a channel to another node."""

import grpc

from fedattn.core.proxies import Endpoint
from fedattn.wire.options import COMMON_OPTIONS, Options
from fedattn.wire.security import Certificates

_OPTIONS: Options = [
    *COMMON_OPTIONS,
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def open_channel(
    endpoint: Endpoint, certificates: Certificates | None = None, *, peer: str = ""
) -> grpc.aio.Channel:
    """A channel to a peer; connects when first used.

    Args:
        endpoint: where it is, and by which way. The environment has no say in it any more.
        certificates: what this end proves itself with; None for plaintext.
        peer: name that the other end's certificate must bear.
    """
    target = str(endpoint.address)
    options = [*_OPTIONS, _proxy_option(endpoint.proxy)]
    if certificates is None:
        return grpc.aio.insecure_channel(target, options=options)
    options.append(("grpc.ssl_target_name_override", peer))
    return grpc.aio.secure_channel(target, certificates.for_client(), options=options)


def _proxy_option(proxy: str | None) -> tuple[str, int | str]:
    return ("grpc.enable_http_proxy", 0) if proxy is None else ("grpc.http_proxy", proxy)
