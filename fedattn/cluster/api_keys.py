"""API keys in NATS, where several gateways read them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from nats.js import api
from nats.js.errors import NotFoundError
from nats.js.kv import KeyValue

from fedattn.cluster.access import NatsAccess
from fedattn.cluster.connection import Failure, NatsConnection
from fedattn.cluster.mirror import MARKER_S, Mirror
from fedattn.cluster.shared_key import SharedKey
from fedattn.core.errors import ConfigurationError
from fedattn.runtime.api_keys import MAX_KEYS, ApiKey, choose_revoked, new_key

T = TypeVar("T")
_MAX_VALUE_SIZE = 64 << 10
"""Bytes of one, with the names of all its publishers."""
_MAX_BYTES = 32 << 20


async def make_key_bucket(connection: NatsConnection) -> KeyValue:
    """The bucket of API keys, on the disks of NATS."""
    return await connection.make_bucket(
        api.KeyValueConfig(
            bucket=connection.access.shared("keys"),
            storage=api.StorageType.FILE,
            replicas=connection.access.replicas,
            max_value_size=_MAX_VALUE_SIZE,
            max_bytes=_MAX_BYTES,
        )
    )


def key_mirror(access: NatsAccess, key: SharedKey) -> Mirror[ApiKey]:
    """What follows that bucket: API keys by their ids."""
    return Mirror(access.shared("keys"), key, ApiKey.model_validate_json, MAX_KEYS)


@dataclass(frozen=True, slots=True)
class SharedKeys:
    """The API keys in NATS, as `KeyFile` has those of a file; each call connects anew."""

    access: NatsAccess
    key: SharedKey

    def read(self) -> tuple[ApiKey, ...]:
        """All keys, expired ones too; raises ConfigurationError if NATS cannot be used."""

        async def work(_bucket: KeyValue, known: dict[str, ApiKey]) -> tuple[ApiKey, ...]:
            return tuple(sorted(known.values(), key=lambda one: one.created_at))

        return self._do(work)

    def create(self, entry: Callable[[str, str], ApiKey]) -> str:
        """Make a key, and return it; as `KeyFile.create`."""
        key_id, sha256, key = new_key()
        self.add([entry(key_id, sha256)])
        return key

    def add(self, entries: Iterable[ApiKey]) -> None:
        """Keep keys that were made elsewhere; raises ConfigurationError if there are too many."""

        async def work(bucket: KeyValue, known: dict[str, ApiKey]) -> None:
            for one in entries:
                if len(known) >= MAX_KEYS and one.id not in known:
                    raise ConfigurationError(f"NATS holds {MAX_KEYS} keys; revoke some")
                place = Mirror.place_of(self.access.shared("keys"), one.id)
                await bucket.put(one.id, self.key.seal(place, one.model_dump_json().encode()))
                known[one.id] = one

        self._do(work)

    def revoke(self, name_or_id: str) -> tuple[ApiKey, ...]:
        """Take the key of this id out, or all of this name; as `KeyFile.revoke`."""

        async def work(bucket: KeyValue, known: dict[str, ApiKey]) -> tuple[ApiKey, ...]:
            revoked = choose_revoked(known.values(), name_or_id)
            for one in revoked:
                await bucket.purge(one.id, msg_ttl=MARKER_S)
            return revoked

        return self._do(work)

    def _do(self, work: Callable[[KeyValue, dict[str, ApiKey]], Awaitable[T]]) -> T:
        try:
            return asyncio.run(self._work(work))
        except Failure as error:
            raise ConfigurationError(
                f"NATS cannot be used ({str(error)[:300] or type(error).__name__})"
            ) from None

    async def _work(self, work: Callable[[KeyValue, dict[str, ApiKey]], Awaitable[T]]) -> T:
        connection = await NatsConnection.open(self.access)
        try:
            try:
                bucket = await connection.stream().key_value(self.access.shared("keys"))
            except NotFoundError:  # made here it would have this program's number of replicas
                raise ConfigurationError(
                    f"no gateway of federation {self.access.federation!r} has used this NATS yet; "
                    f"start one with --nats first"
                ) from None
            mirror = key_mirror(self.access, self.key)
            following = asyncio.create_task(mirror.follow(connection, bucket))
            try:
                await mirror.catch_up(bucket)
                return await work(bucket, {i: held.value for i, held in mirror.held.items()})
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
        finally:
            await connection.close()
