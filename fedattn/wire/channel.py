"""Opening a channel to another node."""

import grpc

from fedattn.wire.protocol import MAX_MESSAGE_SIZE

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_SIZE),
    ("grpc.max_send_message_length", MAX_MESSAGE_SIZE),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to host:port; connects when first used."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)
