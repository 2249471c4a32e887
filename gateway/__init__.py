"""The HTTP front: REST and server-sent events outside, gRPC to the publishers inside."""
