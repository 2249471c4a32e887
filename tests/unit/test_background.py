"""What a node does besides sessions goes on after a defect."""

import asyncio

from structlog.testing import capture_logs

from fedattn.runtime.background import keep_running
from services.participant.background import look_after


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


class Node:
    """Notes what is looked after; is its own caches."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.looked = asyncio.Event()
        self.frames = self.rows = self.states = self

    def expire(self) -> None:
        self.done.append("cache")
        self.looked.set()


async def test_caches_are_looked_after() -> None:
    node = Node()
    looking = asyncio.create_task(look_after(node, every_s=0.0))  # type: ignore[arg-type]
    await node.looked.wait()
    looking.cancel()
    await asyncio.wait({looking})
    assert node.done[:3] == ["cache", "cache", "cache"]
