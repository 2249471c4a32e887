"""The stores of jobs, each in a form that can be opened by several."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from fedattn.cluster.access import NatsAccess
from fedattn.cluster.shared_key import SharedKey
from gateway.cluster.jobs import NatsJobStore
from gateway.cluster.link import Link
from gateway.jobs_port import JobStore
from gateway.jobs_sqlite import SqliteJobStore

SHARED_KEY = SharedKey(bytes(32))
LEASE_S = 1.0


class Opens(Protocol):
    """Opens a store with what is kept there."""

    def __call__(self) -> AbstractAsyncContextManager[JobStore]: ...


def sqlite_stores(path: Path) -> Opens:
    """Those of one file."""
    return lambda: SqliteJobStore(path)


def nats_stores(url: str) -> Opens:
    """Those of gateways with one server."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[JobStore]:
        async with new_link(url) as link, NatsJobStore(link) as store:
            yield store

    return opened


def new_link(url: str) -> Link:
    """Of one more gateway."""
    return Link(NatsAccess(servers=(url,)), SHARED_KEY, LEASE_S)
