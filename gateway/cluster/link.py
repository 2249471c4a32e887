"""The link of one gateway to its siblings: one connection to NATS after the other."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from secrets import token_hex
from types import TracebackType
from typing import Self

import structlog
from nats.aio.msg import Msg

from fedattn.cluster.access import NatsAccess
from fedattn.cluster.api_keys import key_mirror
from fedattn.cluster.connection import Failure
from fedattn.cluster.mirror import Mirror
from fedattn.cluster.shared_key import SharedKey
from fedattn.core.errors import FedAttnError, JobsUnavailableError
from fedattn.runtime.background import keep_running
from fedattn.wire.status import raise_if_cancelled
from gateway.cluster.connection import ROWS, GatewayConnection
from gateway.cluster.counts import Counts
from gateway.cluster.rows import parse_row
from gateway.jobs_rows import JobRow

log = structlog.get_logger(__name__)

MAX_ROWS = 100_000
_PAUSE_S = 0.5
"""Between two attempts to reach NATS."""
_BEATS = 3
"""Leases are written so often within their time."""
_START_WITHIN_S = 5.0
"""A gateway starts without NATS after so long."""
_CANCEL_WITHIN_S = 5.0
_MAX_GATEWAYS = 256
_DONE = b"done"

Cancel = Callable[[str, str], Awaitable[None]]
"""Cancels a job of this gateway, of an account."""


class Link:
    """Lives on the event loop; open inside `async with`.

    Args:
        access: how NATS is reached.
        key: seals all that is written there.
        lease_s: silence after which a gateway is gone, seconds.
        clock: seconds since some moment.

    Attributes:
        name: of this gateway, another one for each process.
        rows: the jobs of all gateways.
        keys: the API keys.
        cancel: what a sibling's request does; set before it opens.
        counts: what callers have had, told among siblings.
    """

    def __init__(
        self,
        access: NatsAccess,
        key: SharedKey,
        lease_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.key = token_hex(8), key
        self.rows = Mirror[JobRow](access.shared(ROWS), key, parse_row, MAX_ROWS)
        self.keys = key_mirror(access, key)
        self.cancel: Cancel | None = None
        self.counts = Counts(self.name, key)
        self._access, self._lease_s, self._clock = access, lease_s, clock
        self._connection: GatewayConnection | None = None
        self._connected = asyncio.Event()
        self._connected_at = 0.0
        self._heard: dict[str, float] = {}
        self._is_closed = False

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(keep_running(self._run))
        if not await self.wait_connected(_START_WITHIN_S):
            log.warning("started_without_nats", remedy="jobs and shared keys come with NATS")
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._is_closed = True
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    def connection(self) -> GatewayConnection:
        """The one there is; raises JobsUnavailableError while there is none."""
        if self._connection is None:
            raise JobsUnavailableError(
                "the gateway cannot reach NATS, where it keeps jobs; try again in a moment, or "
                "look into its log"
            )
        return self._connection

    async def wait_connected(self, within_s: float) -> bool:
        """Until there is a connection, at most so long; whether there is one."""
        try:
            async with asyncio.timeout(within_s):
                await self._connected.wait()
        except TimeoutError:
            return False
        return True

    # -- the siblings ----------------------------------------------------------------------------

    def lives(self, gateway: str) -> bool:
        """Whether a gateway writes its lease; all do that could not be heard for a while."""
        last = max(self._heard.get(gateway, 0.0), self._connected_at + self._lease_s)
        return self._connection is None or self._clock() - last < self._lease_s

    async def request_cancel(self, gateway: str, account: str, job_id: str) -> None:
        """Have a sibling cancel a job; raises JobsUnavailableError if it does not."""
        connection = self.connection()
        subject = connection.subject("cancel", gateway)
        question = self.key.seal(subject, f"{job_id} {account}".encode())
        try:
            answer = await connection.client.request(subject, question, timeout=_CANCEL_WITHIN_S)
            is_done = answer.data == _DONE
        except Failure:
            is_done = False
        if not is_done:
            raise JobsUnavailableError(
                "the gateway where this job runs does not answer; try again in a few seconds"
            )

    async def _take_cancel(self, message: Msg) -> None:
        try:
            content = self.key.open(message.subject, message.data).decode()
            job_id, _, account = content.partition(" ")
            if self.cancel is not None:
                await self.cancel(account, job_id)
        except (FedAttnError, ValueError) as error:
            log.warning("not_cancelled", error=str(error)[:200])
            await message.respond(b"no")
        else:
            await message.respond(_DONE)

    # -- one connection after the other ----------------------------------------------------------

    async def _run(self) -> None:
        while not self._is_closed:  # the task counts as cancelled after a lost one (Python 3.11)
            try:
                await self._live()
            except* Failure as errors:
                log.warning("nats_lost", error=str(errors.exceptions[0])[:300])
            await asyncio.sleep(_PAUSE_S)

    async def _live(self) -> None:
        connection = await GatewayConnection.open(self._access)
        try:
            await connection.client.subscribe(
                connection.subject("cancel", self.name), cb=self._take_cancel
            )
            self._heard.clear()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(connection.wait_lost())
                tasks.create_task(self._beat(connection))
                tasks.create_task(self.counts.exchange(connection))
                tasks.create_task(self.rows.follow(connection, connection.rows))
                tasks.create_task(self.keys.follow(connection, connection.keys))
                tasks.create_task(connection.watch(connection.leases, self._hear, None))
                await self.rows.settle()
                await self.keys.settle()
                self._connection, self._connected_at = connection, self._clock()
                self._connected.set()
                log.info("nats_connected", gateway=self.name)
        finally:
            self._connection = None
            self._connected.clear()
            await connection.close()

    async def _beat(self, connection: GatewayConnection) -> None:
        while True:
            raise_if_cancelled()
            await connection.leases.put(self.name, b"")
            await asyncio.sleep(self._lease_s / _BEATS)

    def _hear(self, gateway: str, _value: bytes | None, _revision: int) -> None:
        """A lease has been written; what was there when the watch began says nothing."""
        if self._connection is None:
            return
        if gateway not in self._heard and len(self._heard) >= _MAX_GATEWAYS:
            del self._heard[min(self._heard, key=self._heard.__getitem__)]
        self._heard[gateway] = self._clock()
