"""What callers have had at each gateway, told to the others."""

import asyncio
import json
import time
from collections.abc import Callable

import structlog
from cachetools import LRUCache
from nats.aio.msg import Msg

from fedattn.cluster.connection import CALL_TIMEOUT_S
from fedattn.cluster.shared_key import SharedKey
from fedattn.core.errors import CorruptFrameError
from fedattn.wire.status import raise_if_cancelled
from gateway.cluster.connection import GatewayConnection
from gateway.quotas import Count, Counted

log = structlog.get_logger(__name__)

_MAX_WAITING = 1000
_MAX_AGE_S = 60.0
"""Older ones are not taken: clocks of gateways may differ by less."""
_MAX_GATEWAYS = 256
_MAX_AMOUNT = 1 << 50


class Counts:
    """Tells and hears counts; one that is lost is not sent again. Lives on the event loop.

    Args:
        name: of this gateway.
        key: seals what is told.
        clock: seconds since the epoch.

    Attributes:
        hear: what a sibling's count does; set before it opens.
    """

    def __init__(self, name: str, key: SharedKey, clock: Callable[[], float] = time.time) -> None:
        self.hear: Callable[[Count], None] = lambda _count: None
        self._name, self._key, self._clock = name, key, clock
        self._waiting: asyncio.Queue[Count] = asyncio.Queue(_MAX_WAITING)
        self._number = 0
        self._heard: LRUCache[str, int] = LRUCache(_MAX_GATEWAYS)

    def tell(self, count: Count) -> None:
        """Have the siblings hear it, soon; too many at once are dropped."""
        if not self._waiting.full():
            self._waiting.put_nowait(count)

    async def exchange(self, connection: GatewayConnection) -> None:
        """Send and take counts until the connection is lost, which raises Failure."""
        subject = connection.subject("counts")
        await connection.client.subscribe(subject, cb=self._take)
        await connection.client.flush(timeout=int(CALL_TIMEOUT_S))
        while True:
            raise_if_cancelled()
            count = await self._waiting.get()
            await connection.client.publish(subject, self.write(subject, count))

    def write(self, subject: str, count: Count) -> bytes:
        """A count as it is told, numbered."""
        self._number += 1
        fields = [
            self._name,
            self._number,
            self._clock(),
            count.account,
            count.what.value,
            count.amount,
        ]
        return self._key.seal(subject, json.dumps(fields).encode())

    async def _take(self, message: Msg) -> None:
        self.take(message.subject, message.data)

    def take(self, subject: str, content: bytes) -> None:
        """Take what a sibling tells, once."""
        try:
            name, number, told_at, account, what, amount = json.loads(
                self._key.open(subject, content)
            )
            count = Count(account, Counted(what), amount)
        except (CorruptFrameError, ValueError) as error:
            log.warning("count_dropped", error=str(error)[:200])
            return
        is_old = abs(self._clock() - told_at) > _MAX_AGE_S or number <= self._heard.get(name, 0)
        if name == self._name or is_old or not 0 <= amount <= _MAX_AMOUNT:
            return
        self._heard[name] = number
        self.hear(count)
