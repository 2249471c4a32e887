"""Opening a channel to another node."""

import asyncio

import grpc

from fedattn.core.limits import MAX_DEADLINE_S
from fedattn.core.proxies import Endpoint
from fedattn.wire.options import COMMON_OPTIONS, PING_TIMEOUT_S, Options
from fedattn.wire.security import Certificates, OwnCertificates

_OPTIONS: Options = [
    *COMMON_OPTIONS,
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 1000 * PING_TIMEOUT_S),  # of one attempt to connect
]

_State = grpc.ChannelConnectivity
_LINGER_S = MAX_DEADLINE_S + 60
"""What still runs on a channel that has been replaced has ended after so long."""


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


async def becomes_ready(channel: grpc.aio.Channel) -> bool:
    """Whether an attempt to connect succeeds that begins now; the last may have failed long ago.

    A channel that has failed once shows nothing but that until an attempt succeeds, so then this
    waits for as long as it is let.
    """
    state = channel.get_state(try_to_connect=True)
    has_failed_before = state is _State.TRANSIENT_FAILURE
    while state is not _State.READY:
        if state is _State.TRANSIENT_FAILURE and not has_failed_before:
            return False
        await channel.wait_for_state_change(state)
        has_failed_before = False
        state = channel.get_state(try_to_connect=True)
    return True


class PeerChannel:
    """The way to a peer for as long as a service runs, proving itself with the certificates of now.

    Args:
        endpoint: where the peer is, and by which way.
        certificates: of this end; None for plaintext.
        peer: name that the other end's certificate must bear.
    """

    def __init__(self, endpoint: Endpoint, certificates: OwnCertificates | None, peer: str) -> None:
        self._endpoint, self._certificates, self._peer = endpoint, certificates, peer
        self._made_with = None if certificates is None else certificates.current
        self._channel = open_channel(endpoint, self._made_with, peer=peer)
        self._replaced: set[asyncio.Task[None]] = set()

    def current(self) -> grpc.aio.Channel:
        """The channel for the next call: another one after each change of certificates."""
        if self._certificates is not None and self._certificates.current is not self._made_with:
            closing = asyncio.create_task(_close_later(self._channel))
            self._replaced.add(closing)
            closing.add_done_callback(self._replaced.discard)
            self._made_with = self._certificates.current
            self._channel = open_channel(self._endpoint, self._made_with, peer=self._peer)
        return self._channel

    async def close(self) -> None:
        """End every call."""
        for closing in tuple(self._replaced):
            closing.cancel()
        await asyncio.gather(*self._replaced, return_exceptions=True)
        await self._channel.close()


async def _close_later(channel: grpc.aio.Channel) -> None:
    """Let calls that run go on: each has a deadline, or moves to the new channel by itself."""
    try:
        await asyncio.sleep(_LINGER_S)
    finally:
        await channel.close()
