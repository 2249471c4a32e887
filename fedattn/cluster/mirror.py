"""All values of a bucket, as they are now."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from nats.js.kv import KeyValue

from fedattn.cluster.connection import CALL_TIMEOUT_S, NatsConnection
from fedattn.cluster.shared_key import SharedKey
from fedattn.core.errors import FedAttnError

log = structlog.get_logger(__name__)

MARKER_S = 120.0
"""A deletion is told for so long to who was away."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """A value.

    Attributes:
        value: what was written last.
        revision: of that writing.
        since: revision at which it was seen first.
    """

    value: T
    revision: int
    since: int


class Mirror(Generic[T]):
    """Follows one bucket of sealed values. Lives on the event loop.

    Args:
        name: of the bucket.
        key: opens the values.
        parse: makes a value; raises ValueError or FedAttnError if it is none.
        most: values that are held; further ones are left out.
    """

    def __init__(self, name: str, key: SharedKey, parse: Callable[[bytes], T], most: int) -> None:
        self.name, self.held = name, dict[str, Held[T]]()
        self.is_complete = False
        self._key, self._parse, self._most = key, parse, most
        self._seen, self._into = 0, self.held
        self._changed = asyncio.Event()

    async def follow(self, connection: NatsConnection, bucket: KeyValue) -> None:
        """Hold what the bucket holds until the connection is lost, which raises Failure.

        What was held stays until all of it has come anew.
        """
        first = (await bucket.status()).stream_info.state.last_seq
        self._seen, self._into = 0, {}

        def settled() -> None:
            self.held = self._into
            self.is_complete = True
            self._note(first)

        await connection.watch(bucket, self._take, None, settled)

    async def settle(self) -> None:
        """Until all is held that was there when `follow` began."""
        while self._into is not self.held:
            await self._changed.wait()

    async def catch_up(self, bucket: KeyValue, revision: int | None = None) -> None:
        """Until all is held that has been written by now, by whomever.

        Args:
            bucket: what is followed.
            revision: wait for that one alone.

        Raises:
            nats.errors.Error, TimeoutError: NATS does not answer.
        """
        last = revision or (await bucket.status()).stream_info.state.last_seq
        async with asyncio.timeout(CALL_TIMEOUT_S):
            while self._seen < last or self._into is not self.held:
                changed = self._changed
                await changed.wait()

    def place(self, key: str) -> str:
        """What the value of a key is bound to."""
        return self.place_of(self.name, key)

    @staticmethod
    def place_of(bucket: str, key: str) -> str:
        """As `place`, where nothing is mirrored."""
        return f"{bucket} {key}"

    def _take(self, key: str, value: bytes | None, revision: int) -> None:
        if value is None:
            self._into.pop(key, None)
        else:
            try:
                parsed = self._parse(self._key.open(self.place(key), value))
            except (FedAttnError, ValueError) as error:
                self._into.pop(key, None)
                log.warning("value_dropped", bucket=self.name, key=key[:80], error=str(error)[:200])
            else:
                self._hold(key, parsed, revision)
        self._note(revision)

    def _hold(self, key: str, value: T, revision: int) -> None:
        known = self._into.get(key)
        if known is None and len(self._into) >= self._most:
            log.warning("value_dropped", bucket=self.name, key=key[:80], most=self._most)
            return
        self._into[key] = Held(value, revision, revision if known is None else known.since)

    def _note(self, revision: int) -> None:
        self._seen = max(self._seen, revision)
        self._changed.set()
        self._changed = asyncio.Event()
