"""What gateways share in NATS: buckets of rows, keys and leases, and a stream of texts."""

from nats.js import JetStreamContext, api
from nats.js.errors import BadRequestError, NotFoundError
from nats.js.kv import KeyValue

from fedattn.cluster.api_keys import make_key_bucket
from fedattn.cluster.connection import NatsConnection
from fedattn.cluster.mirror import MARKER_S

MAX_TEXT_BYTES = 256 << 20
"""Of questions, events and answers, as they are kept."""
_MAX_ROW_BYTES = 32 << 20
_MAX_VALUE_SIZE = 16 << 10
"""Bytes of a row."""
_LEASES_KEPT_S = 120.0
ROWS, LEASES, TEXTS = "jobs", "leases", "texts"


class GatewayConnection(NatsConnection):
    """A connection with all of it, which is made if it is not there."""

    js: JetStreamContext
    rows: KeyValue
    keys: KeyValue
    leases: KeyValue

    async def prepare(self) -> None:
        self.js = self.stream()
        disk, memory = api.StorageType.FILE, api.StorageType.MEMORY
        self.rows = await self._bucket(ROWS, disk, max_bytes=_MAX_ROW_BYTES)
        self.keys = await make_key_bucket(self)
        self.leases = await self._bucket(LEASES, memory, ttl=_LEASES_KEPT_S)
        await self._make_texts()

    @property
    def texts(self) -> str:
        """The stream of questions, events and answers."""
        return self.access.shared(TEXTS)

    def subject(self, *parts: str) -> str:
        """A subject of these gateways."""
        return ".".join((f"gateways.{self.access.federation}", *parts))

    async def _bucket(
        self,
        kind: str,
        storage: api.StorageType,
        ttl: float | None = None,
        max_bytes: int | None = None,
    ) -> KeyValue:
        return await self.make_bucket(
            api.KeyValueConfig(
                bucket=self.access.shared(kind),
                ttl=ttl,
                storage=storage,
                replicas=self.access.replicas,
                max_value_size=_MAX_VALUE_SIZE,
                max_bytes=max_bytes,
            )
        )

    async def _make_texts(self) -> None:
        config = api.StreamConfig(
            name=self.texts,
            subjects=[self.subject("text", ">")],
            storage=api.StorageType.FILE,
            num_replicas=self.access.replicas,
            max_bytes=MAX_TEXT_BYTES,
            discard=api.DiscardPolicy.NEW,
            max_consumers=-1,
            allow_direct=False,  # read where it was written: no reader is behind
        )
        try:
            await self.js.stream_info(self.texts)
        except NotFoundError:
            try:
                await self.js.add_stream(config)
            except BadRequestError:  # another gateway has made it just now
                await self.js.stream_info(self.texts)

    async def purge(self, bucket: KeyValue, key: str) -> None:
        """Remove a key; what tells the others of it goes by itself later."""
        await bucket.purge(key, msg_ttl=MARKER_S)
