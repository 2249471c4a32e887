"""What a node does besides sessions, for as long as it runs."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from services.participant.node import ParticipantNode

LOOK_EVERY_S = 5.0
"""Between two looks at what nobody has asked for."""
_RESTART_AFTER_S = 5.0

log = structlog.get_logger(__name__)


async def keep_running(
    work: Callable[[], Awaitable[None]], restart_after_s: float = _RESTART_AFTER_S
) -> None:
    """Do background work until it ends; a defect in it is logged, and it begins again."""
    while True:
        try:
            return await work()
        except Exception:  # border: a defect beside the sessions must not end the node
            log.exception("background_failed", restart_after_s=restart_after_s)
        await asyncio.sleep(restart_after_s)


async def look_after(node: ParticipantNode, every_s: float = LOOK_EVERY_S) -> None:
    """Now and then drop rows whose lifetime is over: an idle node holds none longer than it may."""
    while True:
        await asyncio.sleep(every_s)
        for cache in (node.frames, node.rows, node.states):
            cache.expire()
