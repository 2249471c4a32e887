"""Work beside what a service is for."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

_RESTART_AFTER_S = 5.0

log = structlog.get_logger(__name__)


async def keep_running(
    work: Callable[[], Awaitable[None]], restart_after_s: float = _RESTART_AFTER_S
) -> None:
    """Do background work until it ends; a defect in it is logged, and it begins again."""
    while True:
        try:
            return await work()
        except Exception:  # border: a defect beside the sessions must not end the service
            log.exception("background_failed", restart_after_s=restart_after_s)
        await asyncio.sleep(restart_after_s)
