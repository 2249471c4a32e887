"""Opening a channel to another node."""

import grpc

from fedattn.wire.protocol import MAX_MESSAGE_SIZE
from fedattn.wire.security import Certificates

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_SIZE),
    ("grpc.max_send_message_length", MAX_MESSAGE_SIZE),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def open_channel(
    address: str, certificates: Certificates | None = None, *, peer: str = ""
) -> grpc.aio.Channel:
    """A channel to host:port; connects when first used.

    Args:
        address: host:port.
        certificates: what this end proves itself with; None for plaintext.
        peer: name that the other end's certificate must bear.
    """
    if certificates is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", peer)]
    return grpc.aio.secure_channel(address, certificates.for_client(), options=options)
