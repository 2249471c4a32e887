"""One connection to NATS, from its making to its loss: what is written and read there."""

import asyncio
from collections.abc import Awaitable, Callable

import nats
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import BadRequestError
from nats.js.kv import KeyValue

from fedattn.core.node_id import NATS
from fedattn.wire.status import raise_if_cancelled
from services.aggregator.cluster.access import NatsAccess
from services.aggregator.cluster.entries import KEPT_S
from services.aggregator.cluster.roster import MAX_VALUE_SIZE

log = structlog.get_logger(__name__)

CALL_TIMEOUT_S = 2.0
"""Longest wait for an answer of NATS."""
_PING_S = 2
"""Between looks whether the server is there; two without an answer end the connection."""
_MAX_WAITING_BYTES = 8 << 20

Take = Callable[[str, bytes | None], None]


class NatsConnection:
    """A connection that is made. Whatever fails ends it; there is no mending, but a next one."""

    def __init__(self, client: Client, access: NatsAccess, lost: asyncio.Event) -> None:
        self._client, self._access, self.lost = client, access, lost
        self._directory: KeyValue | None = None

    @classmethod
    async def open(cls, access: NatsAccess) -> "NatsConnection":
        """Connect to one of the servers, and make the directory if it is not there.

        Raises:
            nats.errors.Error, OSError, TimeoutError: none of them can be used.
        """
        lost = asyncio.Event()

        async def on_closed() -> None:
            lost.set()

        async def on_error(error: Exception) -> None:
            log.info("nats_error", error=str(error)[:200])

        tls = access.tls()
        client = await nats.connect(
            list(access.servers),
            allow_reconnect=False,
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
        connection = cls(client, access, lost)
        try:
            connection._directory = await connection._make_directory()
        except BaseException:
            await client.close()
            raise
        return connection

    async def close(self) -> None:
        """End it; what waits to be sent is sent first, if that takes no time."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._client.close()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            log.info("nats_error", error=str(error)[:200])

    async def _make_directory(self) -> KeyValue:
        """The bucket of the own domain."""
        domain = self._access.domain
        stream = self._client.jetstream(domain=domain or None, timeout=CALL_TIMEOUT_S)
        config = api.KeyValueConfig(
            bucket=self._access.bucket(domain),
            ttl=KEPT_S,
            storage=api.StorageType.MEMORY,
            replicas=self._access.replicas,
            max_value_size=MAX_VALUE_SIZE,
        )
        try:
            return await stream.create_key_value(config)
        except BadRequestError as error:  # it is there, made with other settings
            log.info("directory_differs", bucket=config.bucket, error=str(error)[:200])
            return await stream.key_value(config.bucket)

    async def put(self, key: str, value: bytes | None) -> None:
        """Write a key, or delete it."""
        assert self._directory is not None
        if value is None:
            await self._directory.delete(key)
        else:
            await self._directory.put(key, value)

    async def watch(self, domain: str, take: Take, silence_s: float) -> None:
        """Tell every key of a domain's directory, and every change, until it falls silent.

        Raises:
            nats.errors.Error, TimeoutError: it is not there, or nothing came for so long.
        """
        stream = self._client.jetstream(domain=domain or None, timeout=CALL_TIMEOUT_S)
        bucket = await stream.key_value(self._access.bucket(domain))
        watcher = await bucket.watchall()
        try:
            while True:
                entry = await watcher.updates(timeout=silence_s)  # type: ignore[no-untyped-call]
                raise_if_cancelled()
                if entry is not None:
                    take(entry.key, None if entry.operation else entry.value)
        finally:
            await _quietly(watcher.stop())  # type: ignore[no-untyped-call]

    async def write(self, name: str, letter: bytes) -> None:
        """Send a letter to an aggregator, unless the server takes none that are so long."""
        if len(letter) > self._client.max_payload:
            log.warning("letter_not_sent", aggregator=name, size=len(letter))
            return
        await self._client.publish(self._access.subject("to", name), letter)

    async def ask(self, name: str, question: bytes, within_s: float) -> bytes:
        """What an aggregator answers; raises nats.errors.Error if it does not."""
        subject = self._access.subject("ask", name)
        return (await self._client.request(subject, question, timeout=within_s)).data

    async def listen(
        self, name: str, take: Callable[[bytes], None], answer: Callable[[bytes], bytes]
    ) -> None:
        """Be written to, and asked, under a name."""

        async def on_letter(message: Msg) -> None:
            take(message.data)

        async def on_question(message: Msg) -> None:
            await message.respond(answer(message.data))

        await self._client.subscribe(self._access.subject("to", name), cb=on_letter)
        await self._client.subscribe(self._access.subject("ask", name), cb=on_question)
        await self._client.flush(timeout=int(CALL_TIMEOUT_S))


async def _quietly(work: Awaitable[object]) -> None:
    """Await what may fail because its connection is gone."""
    try:
        await work
    except (nats.errors.Error, OSError, TimeoutError) as error:
        log.debug("nats_error", error=str(error)[:200])
