"""gRPC options that both ends of a connection share."""

from fedattn.wire.protocol import MAX_MESSAGE_SIZE

Options = list[tuple[str, int | str]]

PING_AFTER_S = 5
"""A connection on which nothing came for so long is asked whether its other end lives."""
PING_TIMEOUT_S = 7
"""How long an end has to answer; gRPC's own threads do, however busy the process is."""

COMMON_OPTIONS: Options = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_SIZE),
    ("grpc.max_send_message_length", MAX_MESSAGE_SIZE),
    ("grpc.keepalive_time_ms", 1000 * PING_AFTER_S),
    ("grpc.keepalive_timeout_ms", 1000 * PING_TIMEOUT_S),  # of what TCP has not delivered
    ("grpc.http2.ping_timeout_ms", 1000 * PING_TIMEOUT_S),  # else a minute, whatever the above says
    ("grpc.http2.max_pings_without_data", 0),  # else one a minute where nothing is sent
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
]
"""The other end of a connection is known to be gone 12 s after its last sign of life."""
