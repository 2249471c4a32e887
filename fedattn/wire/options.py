"""gRPC options that both ends of a connection share."""

from fedattn.wire.protocol import MAX_MESSAGE_SIZE

Options = list[tuple[str, int | str]]

COMMON_OPTIONS: Options = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_SIZE),
    ("grpc.max_send_message_length", MAX_MESSAGE_SIZE),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]
