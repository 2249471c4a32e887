"""One connection to NATS, from its making to its loss."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Self

import nats
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.errors import BadRequestError
from nats.js.kv import KeyValue

from fedattn.cluster.access import NatsAccess
from fedattn.core.node_id import NATS
from fedattn.wire.status import raise_if_cancelled

log = structlog.get_logger(__name__)

CALL_TIMEOUT_S = 2.0
"""Longest wait for an answer of NATS."""
Failure = (nats.errors.Error, OSError, TimeoutError)
"""Whatever is raised where NATS cannot be used."""
_PING_S = 2
"""Between looks whether the server is there; two without an answer end the connection."""
_AGAIN_S = 1
"""Between two attempts at one server."""
_MAX_WAITING_BYTES = 8 << 20

Take = Callable[[str, bytes | None, int], None]
"""Takes key, value (None if it is gone) and revision."""


class NatsConnection:
    """A connection that is made. Whatever fails ends it; there is no mending, but a next one.

    Attributes:
        client: what speaks to the server.
        access: how it was reached.
        lost: set once it is over.
    """

    def __init__(self, client: Client, access: NatsAccess, lost: asyncio.Event) -> None:
        self.client, self.access, self.lost = client, access, lost

    @classmethod
    async def open(cls, access: NatsAccess) -> Self:
        """Connect to one of the servers.

        Raises:
            nats.errors.Error, OSError, TimeoutError: none of them can be used.
        """
        lost = asyncio.Event()
        reasons: list[Exception] = []

        async def on_closed() -> None:
            lost.set()

        async def on_error(error: Exception) -> None:
            reasons.append(error)
            log.info("nats_error", error=str(error)[:200])

        tls = access.tls()
        try:
            client = await nats.connect(
                list(access.servers),
                allow_reconnect=False,
                max_reconnect_attempts=1,  # of each server, before it is known that none is there
                reconnect_time_wait=_AGAIN_S,
                connect_timeout=int(CALL_TIMEOUT_S),
                ping_interval=_PING_S,
                max_outstanding_pings=2,
                pending_size=_MAX_WAITING_BYTES,
                closed_cb=on_closed,
                error_cb=on_error,
                user_credentials=None if access.credentials is None else str(access.credentials),
                tls=tls,
                tls_hostname=None if tls is None else NATS,
            )
        except Failure as error:
            raise nats.errors.Error(_explain(access, [*reasons, error])) from error
        connection = cls(client, access, lost)
        try:
            await connection.prepare()
        except BaseException:
            await connection.close()
            raise
        return connection

    async def prepare(self) -> None:
        """Make what this kind of connection needs; raises as `open`."""

    async def close(self) -> None:
        """End it; what waits to be sent is sent first, if that takes no time."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self.client.close()
        except Failure as error:
            log.info("nats_error", error=str(error)[:200])

    async def wait_lost(self) -> None:
        """Raise nats.errors.Error once it is over."""
        await self.lost.wait()
        raise nats.errors.ConnectionClosedError

    def stream(self, domain: str | None = None) -> JetStreamContext:
        """JetStream of a domain; None for the own one."""
        domain = self.access.domain if domain is None else domain
        return self.client.jetstream(domain=domain or None, timeout=CALL_TIMEOUT_S)

    async def make_bucket(self, config: api.KeyValueConfig) -> KeyValue:
        """The bucket, which is made if it is not there."""
        stream = self.stream()
        try:
            return await stream.create_key_value(config)
        except BadRequestError as error:  # it is there, made with other settings
            log.info("bucket_differs", bucket=config.bucket, error=str(error)[:200])
            return await stream.key_value(config.bucket)

    async def watch(
        self,
        bucket: KeyValue,
        take: Take,
        silence_s: float | None,
        settled: Callable[[], None] | None = None,
    ) -> None:
        """Tell every key of a bucket, and every change.

        Args:
            bucket: whose keys.
            take: is told of them.
            silence_s: end after so long without a change; None for never.
            settled: called once, after all that was there.

        Raises:
            nats.errors.Error, TimeoutError: it is not there, or nothing came for so long.
        """
        watcher = await bucket.watchall()
        try:
            while True:
                entry = await watcher.updates(timeout=silence_s)  # type: ignore[no-untyped-call]
                raise_if_cancelled()
                if entry is not None:
                    take(entry.key, None if entry.operation else entry.value, entry.revision)
                elif settled is not None:
                    settled()
        finally:
            await _quietly(watcher.stop())  # type: ignore[no-untyped-call]


async def _quietly(work: Awaitable[object]) -> None:
    """Await what may fail because its connection is gone."""
    try:
        await work
    except Failure as error:
        log.debug("nats_error", error=str(error)[:200])


def _explain(access: NatsAccess, errors: list[Exception]) -> str:
    """What is wrong, if a certificate or a right is, with the remedy."""
    for error in errors:
        text = str(error)
        if isinstance(error, ssl.SSLError):
            return (
                f"{', '.join(access.servers)}: TLS failed ({text[:120]}); give both sides "
                f"certificates of one authority, that of the server with the name {NATS!r}"
            )
        if "authorization" in text.lower():
            return (
                f"{', '.join(access.servers)}: NATS lets this service not in ({text[:120]}); name "
                f"it among the users of the server's configuration"
            )
    return f"{', '.join(access.servers)}: {str(errors[0])[:160] or type(errors[0]).__name__}"
