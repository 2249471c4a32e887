"""A contributor's part: answer invitations, then compute and send."""

import asyncio
import time
from collections import OrderedDict

import structlog

from fedattn.core.errors import (
    ConfigurationError,
    ContextTooLongError,
    FedAttnError,
    NodeBusyError,
    PrefixMismatchError,
    SessionAbortedError,
)
from fedattn.wire.convert import prefix_mode_from_wire, prefix_to_wire
from fedattn.wire.stubs import AggregatorStub
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.exchange import GrpcKvExchange
from services.participant.node import ParticipantNode

log = structlog.get_logger(__name__)

_MAX_PENDING = 64


class Contributor:
    """Takes part in other nodes' sessions. Lives on the event loop."""

    def __init__(self, node: ParticipantNode, stub: AggregatorStub) -> None:
        self._node = node
        self._stub = stub
        self._pending: OrderedDict[str, list[int]] = OrderedDict()  # session id -> its tokens
        self._running: dict[str, tuple[asyncio.Task[None], GrpcKvExchange]] = {}

    async def answer(self, invite: pb.Invite) -> pb.InviteReply:
        """This node's span length, or why it cannot take part."""
        try:
            token_ids = await self._span_tokens(invite)
        except FedAttnError as error:
            log.warning("declined", session=invite.session_id, code=error.code)
            decline = pb.Decline(code=error.code, message=str(error))
            return pb.InviteReply(session_id=invite.session_id, decline=decline)
        self._pending[invite.session_id] = token_ids
        while len(self._pending) > _MAX_PENDING:  # invitations that came to nothing
            self._pending.popitem(last=False)
        return pb.InviteReply(session_id=invite.session_id, span_len=len(token_ids))

    def start(self, start: pb.SessionStart) -> None:
        """Begin a session this node was invited to."""
        session_id = start.layout.session_id
        token_ids = self._pending.pop(session_id, None)
        if token_ids is None:
            log.warning("unknown_session", session=session_id)
            return
        try:
            exchange = GrpcKvExchange(start, self._node.node_id, self._node.threads)
        except (FedAttnError, KeyError) as error:
            log.warning("bad_layout", session=session_id, error=str(error))
            return
        if not self._node.try_enter():
            log.warning("busy", session=session_id)
            return
        task = asyncio.create_task(self._take_part(session_id, exchange, token_ids))
        self._running[session_id] = (task, exchange)

    def cancel(self, cancel: pb.SessionCancel) -> None:
        """Forget or end a session."""
        self._pending.pop(cancel.session_id, None)
        if cancel.session_id in self._running:
            self._running[cancel.session_id][1].cancel(SessionAbortedError(cancel.reason))

    async def close(self) -> None:
        """End running sessions."""
        for task, exchange in list(self._running.values()):
            exchange.cancel(SessionAbortedError("this node stops"))
            task.cancel()
        await asyncio.gather(
            *(task for task, _ in list(self._running.values())), return_exceptions=True
        )

    async def _span_tokens(self, invite: pb.Invite) -> list[int]:
        if self._node.active_sessions >= self._node.max_sessions:
            raise NodeBusyError(f"takes part in {self._node.max_sessions} sessions already")
        prefix = self._node.tokenizer.prefix()
        mode = prefix_mode_from_wire(invite.prefix.mode)
        if prefix_to_wire(mode, prefix) != invite.prefix:
            raise PrefixMismatchError(
                "its system prompt or chat template differs from the publisher's; "
                "set FEDATTN_PARTICIPANT_SYSTEM_PROMPT to the same text on every node"
            )
        try:
            token_ids = await self._node.run(self._node.context.current)
        except ConfigurationError as error:
            log.warning("context_unreadable", error=str(error))
            raise ConfigurationError("its private context cannot be read; see its log") from None
        limit = self._node.prefiller.model.max_positions
        if len(prefix) + len(token_ids) > limit:
            raise ContextTooLongError(
                f"its context has {len(token_ids)} tokens and the prefix {len(prefix)}, but the "
                f"model's window is {limit}; shorten the context"
            )
        return prefix + token_ids if invite.owns_prefix else token_ids

    async def _take_part(
        self, session_id: str, exchange: GrpcKvExchange, token_ids: list[int]
    ) -> None:
        transfer = asyncio.create_task(exchange.run(self._stub))
        try:
            begun = time.monotonic()
            await self._node.run(lambda: self._compute(exchange, token_ids))
            exchange.finish(time.monotonic() - begun - exchange.wait_s)
            await transfer
            log.info("contributed", session=session_id, tokens=len(token_ids))
        except FedAttnError as error:
            log.warning("session_failed", session=session_id, code=error.code, error=str(error))
        except Exception:  # border: one session's defect must not end the node
            log.exception("session_failed", session=session_id)
        finally:
            transfer.cancel()
            await asyncio.gather(transfer, return_exceptions=True)
            self._running.pop(session_id, None)
            self._node.leave()

    def _compute(self, exchange: GrpcKvExchange, token_ids: list[int]) -> None:
        member = exchange.member
        if len(token_ids) != len(member.span):
            raise SessionAbortedError("the layout does not fit this node's length")
        prefix = self._node.tokenizer.prefix() if exchange.prefix_len else []
        self._node.prefiller.contribute(member, prefix, token_ids, exchange)
