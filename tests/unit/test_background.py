"""What a node does besides sessions goes on after a defect."""

import asyncio
from dataclasses import fields
from types import SimpleNamespace
from typing import get_origin

from structlog.testing import capture_logs

from fedattn.runtime.background import keep_running
from services.participant.background import look_after
from services.participant.kv_cache import KvCache
from services.participant.node import ParticipantNode


async def test_a_defect_is_logged_and_the_work_begins_again() -> None:
    num_runs = 0

    async def work() -> None:
        nonlocal num_runs
        num_runs += 1
        if num_runs == 1:
            raise ZeroDivisionError

    with capture_logs() as logs:
        await keep_running(work, restart_after_s=0.0)
    assert num_runs == 2
    assert [(entry["event"], entry["exc_info"]) for entry in logs] == [("background_failed", True)]


async def test_cancelled_work_does_not_begin_again() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(keep_running(work, restart_after_s=0.0))
    await begun.wait()
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()


class Caches:
    """Notes which of a node's caches are looked after."""

    def __init__(self) -> None:
        self.expired: set[str] = set()
        self.looked = asyncio.Event()

    def __getattr__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(expire=lambda: self._note(name))

    def _note(self, name: str) -> None:
        self.expired.add(name)
        self.looked.set()


async def test_all_that_a_node_keeps_is_looked_after() -> None:
    node = Caches()
    looking = asyncio.create_task(look_after(node, every_s=0.0))  # type: ignore[arg-type]
    await node.looked.wait()  # one look is one step of the loop
    looking.cancel()
    await asyncio.wait({looking})
    kept = {one.name for one in fields(ParticipantNode) if get_origin(one.type) is KvCache}
    assert node.expired == kept
    assert "asked" in kept
