"""What a node does besides sessions goes on after a defect."""

import asyncio

from structlog.testing import capture_logs

from services.participant.background import keep_running


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
