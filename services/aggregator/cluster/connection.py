"""What aggregators write and read in NATS."""

from collections.abc import Callable

import structlog
from nats.aio.msg import Msg
from nats.js import api
from nats.js.kv import KeyValue

from fedattn.cluster.connection import CALL_TIMEOUT_S, NatsConnection
from services.aggregator.cluster.entries import KEPT_S
from services.aggregator.cluster.roster import MAX_VALUE_SIZE

log = structlog.get_logger(__name__)


class FederationConnection(NatsConnection):
    """A connection with the directory of the own domain, which is made if it is not there."""

    _directory: KeyValue

    async def prepare(self) -> None:
        self._directory = await self.make_bucket(
            api.KeyValueConfig(
                bucket=self.access.bucket(self.access.domain),
                ttl=KEPT_S,
                storage=api.StorageType.MEMORY,
                replicas=self.access.replicas,
                max_value_size=MAX_VALUE_SIZE,
            )
        )

    async def put(self, key: str, value: bytes | None) -> None:
        """Write a key, or delete it."""
        if value is None:
            await self._directory.delete(key)
        else:
            await self._directory.put(key, value)

    async def read(
        self, domain: str, take: Callable[[str, bytes | None], None], silence_s: float
    ) -> None:
        """Tell every key of a domain's directory, and every change, until it falls silent.

        Raises:
            nats.errors.Error, TimeoutError: it is not there, or nothing came for so long.
        """
        bucket = await self.stream(domain).key_value(self.access.bucket(domain))
        await self.watch(bucket, lambda key, value, _: take(key, value), silence_s)

    async def write(self, name: str, letter: bytes) -> None:
        """Send a letter to an aggregator, unless the server takes none that are so long."""
        if len(letter) > self.client.max_payload:
            log.warning("letter_not_sent", aggregator=name, size=len(letter))
            return
        await self.client.publish(self.access.subject("to", name), letter)

    async def ask(self, name: str, question: bytes, within_s: float) -> bytes:
        """What an aggregator answers; raises nats.errors.Error if it does not."""
        subject = self.access.subject("ask", name)
        return (await self.client.request(subject, question, timeout=within_s)).data

    async def listen(
        self, name: str, take: Callable[[bytes], None], answer: Callable[[bytes], bytes]
    ) -> None:
        """Be written to, and asked, under a name."""

        async def on_letter(message: Msg) -> None:
            take(message.data)

        async def on_question(message: Msg) -> None:
            await message.respond(answer(message.data))

        await self.client.subscribe(self.access.subject("to", name), cb=on_letter)
        await self.client.subscribe(self.access.subject("ask", name), cb=on_question)
        await self.client.flush(timeout=int(CALL_TIMEOUT_S))
