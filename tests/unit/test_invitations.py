"""Whom the aggregator blames when a contributor is asked and says no."""

import asyncio

import pytest

from fedattn.core.errors import FedAttnError
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.invitations import Invitations
from services.aggregator.registry import Node
from services.aggregator.standing import Standing
from tests.harness.raw import SHAPE, join_message

INVITE = pb.Invite(session_id="s", reply_within_s=3600.0)
NO_TIME_S, MUCH_TIME_S = 0.0, 3600.0


async def pause_after(timeout_s: float, *, leaves: bool) -> str:
    """Why queries go without a node that is asked and then leaves, or else declines."""
    standing = Standing(10, first_pause_s=30.0, max_pause_s=30.0)
    invitations = Invitations(standing, timeout_s)
    node = Node(join=join_message("a"), shape=SHAPE, joined_at=0.0)
    asking = asyncio.create_task(invitations.ask(node, INVITE))
    await node.outbox.get()
    if leaves:
        invitations.leave("a", "its connection broke")
    else:
        decline = pb.Decline(code="nothing_to_give", message="no")
        invitations.answer("a", pb.InviteReply(session_id="s", decline=decline))
    assert isinstance(await asking, FedAttnError)
    return standing.pause_of("a")


@pytest.mark.parametrize(
    ("leaves", "reason"), [(True, "it left late"), (False, "it declined late")]
)
async def test_saying_no_after_half_of_the_time_is_a_failure_and_before_it_is_none(
    reason: str, *, leaves: bool
) -> None:
    assert reason in await pause_after(NO_TIME_S, leaves=leaves)
    assert await pause_after(MUCH_TIME_S, leaves=leaves) == ""
