"""Whom the aggregator blames when a contributor is asked and says no."""

import asyncio

import pytest

from fedattn.core.errors import FedAttnError, NotEnoughParticipantsError
from fedattn.core.report import NodeState
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.invitations import Invitations
from services.aggregator.registry import Node
from services.aggregator.standing import Record, Standing
from tests.harness.raw import SHAPE, join_message

NO = pb.InviteReply(session_id="s", decline=pb.Decline(code="nothing_to_give", message="no"))
INVITE = pb.Invite(session_id="s", reply_within_s=3600.0)
NO_TIME_S, MUCH_TIME_S = 0.0, 3600.0


def joined(node_id: str) -> Node:
    return Node(join=join_message(node_id), shape=SHAPE, joined_at=0.0, token_digest=b"")


async def state_after(timeout_s: float, *, leaves: bool) -> Record:
    """What is remembered of a node that is asked and then leaves, or else declines."""
    standing = Standing(10, first_pause_s=30.0, max_pause_s=30.0)
    invitations = Invitations(standing, timeout_s, margin_s=3600.0)
    node = joined("a")
    asking = asyncio.create_task(invitations.ask_all([(node, INVITE)], 3600.0))
    await node.outbox.get()
    if leaves:
        invitations.leave("a", "its connection broke")
    else:
        invitations.answer("a", NO)
    (answer,) = await asking
    assert isinstance(answer, FedAttnError)
    return standing.of("a")


@pytest.mark.parametrize(
    ("leaves", "reason"), [(True, "it left late"), (False, "it declined late")]
)
async def test_saying_no_after_half_of_the_time_is_a_failure_and_before_it_is_none(
    reason: str, *, leaves: bool
) -> None:
    assert (await state_after(NO_TIME_S, leaves=leaves)).reason == reason
    assert (await state_after(MUCH_TIME_S, leaves=leaves)).state is NodeState.GOOD


async def test_silent_node_is_late_once_most_others_have_answered() -> None:
    standing = Standing(10, first_pause_s=30.0, max_pause_s=30.0)
    invitations = Invitations(standing, MUCH_TIME_S, margin_s=0.0)
    nodes = [joined(name) for name in "abc"]
    asking = asyncio.create_task(
        invitations.ask_all([(node, INVITE) for node in nodes], MUCH_TIME_S)
    )
    for node in nodes:
        await node.outbox.get()
    invitations.answer("a", NO)
    invitations.answer("b", NO)
    silent = (await asking)[-1]
    assert isinstance(silent, NotEnoughParticipantsError)
    assert str(silent).startswith("c did not answer within ")
    assert standing.of("c").state is NodeState.LATE
    assert standing.of("a").state is NodeState.GOOD


async def test_publisher_in_a_hurry_makes_nobody_late() -> None:
    standing = Standing(10, first_pause_s=30.0, max_pause_s=30.0)
    invitations = Invitations(standing, MUCH_TIME_S, margin_s=MUCH_TIME_S)
    invite = pb.Invite(session_id="s", reply_within_s=0.0)
    (answer,) = await invitations.ask_all([(joined("a"), invite)], 0.0)
    assert isinstance(answer, NotEnoughParticipantsError)
    assert standing.of("a").state is NodeState.GOOD
