"""What a node does besides sessions, for as long as it runs."""

import asyncio

from services.participant.node import ParticipantNode

LOOK_EVERY_S = 5.0
"""Between two looks at what nobody has asked for."""


async def look_after(node: ParticipantNode, every_s: float = LOOK_EVERY_S) -> None:
    """Now and then drop rows whose lifetime is over: an idle node holds none longer than it may."""
    while True:
        await asyncio.sleep(every_s)
        for cache in (node.frames, node.rows, node.states, node.asked):
            cache.expire()
