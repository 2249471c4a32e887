"""Opening a session: choose contributors, ask their lengths, lay out the spans."""

import asyncio
import secrets
from dataclasses import dataclass, replace

from fedattn.core.codecs import Codec
from fedattn.core.compression import Compression
from fedattn.core.contexts import ContextSummary
from fedattn.core.costs import session_bytes
from fedattn.core.errors import (
    ContextTooLongError,
    FedAttnError,
    InvalidRequestError,
    ModelMismatchError,
    NoContributorsError,
    NotEnoughParticipantsError,
    NothingToGiveError,
    UnknownParticipantError,
)
from fedattn.core.reuse import cache_keys
from fedattn.core.session import SessionState
from fedattn.core.spans import (
    PrefixMode,
    RolePlans,
    SessionLayout,
    build_layout,
    limit_keep_ratios,
)
from fedattn.wire.convert import (
    compression_from_wire,
    plan_from_wire,
    prefix_mode_from_wire,
    require_range,
)
from fedattn.wire.protocol import (
    MAX_DEADLINE_S,
    MAX_MEMBERS,
    MAX_PUBLISHER_KEYS,
)
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.aggregator.clean_keys import CleanKeys
from services.aggregator.invitations import Acceptance, Invitations
from services.aggregator.planning import fit_layout, plan_costs
from services.aggregator.registry import Node, NodeRegistry
from services.aggregator.report import exclude
from services.aggregator.settings import AggregatorSettings

_MAX_TOKENS = 1 << 24
_MAX_NAMED = 5
"""Nodes whose reasons an error tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSession:
    """A session all of whose lengths are known."""

    session_id: str
    state: SessionState
    contributors: tuple[Node, ...]
    cache_keys: tuple[bytes, ...]
    rows_lifetimes_s: tuple[float, ...]
    planned: tuple[session_pb2.PlannedCost, ...]
    contexts: tuple[ContextSummary | None, ...]
    excluded: tuple[session_pb2.MemberReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """A checked request, with the nodes that fit it in token order and those that do not."""

    session_id: str
    request: pb.OpenSessionRequest
    publisher: Node
    compression: Compression
    chosen: list[Node]
    excluded: list[session_pb2.MemberReport]


class SessionOpener:
    """Turns a publisher's wish into a laid-out session."""

    def __init__(
        self, registry: NodeRegistry, invitations: Invitations, settings: AggregatorSettings
    ) -> None:
        self._registry = registry
        self._invitations = invitations
        self.clean_keys = CleanKeys()
        self._settings = settings

    async def open(self, request: pb.OpenSessionRequest) -> OpenedSession:
        """Choose, ask and lay out.

        Raises:
            InvalidInputError, UnavailableError, IncompatibleError: says what does not fit.
        """
        _check_request(request)
        publisher = self._registry.authenticate(request.node_id, request.node_token)
        publisher.tell_context(request)
        compression = compression_from_wire(request.compression)
        codec = compression.codec
        chosen, excluded = self._choose(request, publisher, codec)
        _require_enough(request, len(chosen), [])
        wish = _Wish(
            session_id=secrets.token_hex(16),
            request=request,
            publisher=publisher,
            compression=compression,
            chosen=chosen,
            excluded=excluded,
        )
        try:
            return await self._invite(wish)
        except BaseException:  # also if the publisher has gone: nobody must wait for a start
            self._cancel(wish.session_id, chosen, "the session was not opened")
            raise

    async def _invite(self, wish: _Wish) -> OpenedSession:
        """Ask the chosen nodes, and lay out those that take part."""
        request, chosen = wish.request, wish.chosen
        excluded = list(wish.excluded)
        answers = await self._ask_all(wish.session_id, request, chosen)
        acceptances: list[Acceptance] = []
        failures: list[FedAttnError] = []
        for node, answer in zip(chosen, answers, strict=True):
            if isinstance(answer, Acceptance):
                acceptances.append(answer)
            elif _must_take_part(request, node, chosen, answer):
                raise answer
            else:
                failures.append(answer)
                excluded.append(exclude(node, answer))
        _require_enough(request, len(acceptances), failures)
        acceptances = self._put_in_order(wish, acceptances)
        layout = self._lay_out(wish, acceptances)
        nodes = [*(acceptance.node for acceptance in acceptances), wish.publisher]
        layout = fit_layout(layout, nodes, request)
        layout, keys = self._reuse(wish, layout, acceptances)
        self._check_sizes(request, wish.publisher, layout)
        return OpenedSession(
            session_id=wish.session_id,
            state=SessionState(layout, wish.publisher.shape),
            contributors=tuple(acceptance.node for acceptance in acceptances),
            cache_keys=keys,
            rows_lifetimes_s=tuple(acceptance.reply.rows_lifetime_s for acceptance in acceptances),
            planned=plan_costs(layout, wish.publisher, request.max_new_tokens),
            contexts=tuple(node.context for node in nodes),
            excluded=tuple(excluded),
        )

    def _put_in_order(self, wish: _Wish, acceptances: list[Acceptance]) -> list[Acceptance]:
        """Offers in token order: as named; else by id, but those whose context changed come last.

        A change makes everything from its place on be computed anew anyhow, so moving it behind
        all others costs nothing, and what changes often gathers at the end.
        """
        for acceptance in acceptances:
            self._registry.note_version(acceptance.node.node_id, acceptance.reply.context_version)
        is_public = prefix_mode_from_wire(wish.request.prefix.mode) is PrefixMode.PUBLIC
        if wish.request.contributors or not is_public:
            return acceptances
        return sorted(
            acceptances, key=lambda acceptance: self._registry.changed_at(acceptance.node.node_id)
        )

    def _reuse(
        self, wish: _Wish, layout: SessionLayout, acceptances: list[Acceptance]
    ) -> tuple[SessionLayout, tuple[bytes, ...]]:
        """The layout with what is kept and held already, and the contributors' cache keys."""
        request = wish.request
        identity = b":".join((wish.publisher.fingerprint.encode(), _prefix_identity(request)))
        keys = cache_keys(
            layout, identity, [acceptance.reply.context_version for acceptance in acceptances]
        )
        if request.no_reuse:
            return layout, keys
        held = set(request.cached_keys)
        contributors = tuple(
            replace(
                member,
                is_cached_by_publisher=key in held,
                is_cached_by_owner=key in acceptance.reply.cached_keys and key in self.clean_keys,
            )
            for member, key, acceptance in zip(layout.contributors, keys, acceptances, strict=True)
        )
        return replace(layout, members=(*contributors, layout.publisher)), keys

    def _cancel(self, session_id: str, nodes: list[Node], reason: str) -> None:
        """Tell invited nodes that nothing comes of it."""
        message = pb.SessionCancel(session_id=session_id, reason=reason)
        for node in nodes:
            node.send(pb.ControlResponse(cancel=message))

    def _choose(
        self, request: pb.OpenSessionRequest, publisher: Node, codec: Codec
    ) -> tuple[list[Node], list[session_pb2.MemberReport]]:
        """Contributors in token order, and nodes left out because they do not fit."""
        chosen: list[Node] = []
        excluded: list[session_pb2.MemberReport] = []
        if not request.contributors:
            for node in self._registry.all():
                incompatibility = _incompatibility(node, publisher, codec)
                if node is publisher:
                    continue
                if incompatibility is None and len(chosen) < MAX_MEMBERS - 1:
                    chosen.append(node)
                elif len(excluded) < MAX_MEMBERS:
                    reason = (
                        str(incompatibility)
                        if incompatibility
                        else f"a session has {MAX_MEMBERS} members"
                    )
                    excluded.append(exclude(node, reason))
            return chosen, excluded
        for node_id in request.contributors:
            found = self._registry.find(node_id)
            if found is None or found is publisher:
                known = [n.node_id for n in self._registry.all() if n is not publisher]
                raise UnknownParticipantError(
                    f"contributor {node_id[:64]!r} is not joined; "
                    f"joined are: {', '.join(known) or 'none'}"
                )
            if (incompatibility := _incompatibility(found, publisher, codec)) is not None:
                raise incompatibility
            chosen.append(found)
        return chosen, excluded

    async def _ask_all(
        self, session_id: str, request: pb.OpenSessionRequest, nodes: list[Node]
    ) -> list[Acceptance | FedAttnError]:
        within = min(self._settings.invite_timeout_s, request.deadline_s)
        invites = [
            pb.Invite(
                session_id=session_id,
                prefix=request.prefix,
                owns_prefix=_owns_prefix(request, node, nodes),
                reply_within_s=within,
            )
            for node in nodes
        ]
        asks = map(self._invitations.ask, nodes, invites)
        return list(await asyncio.gather(*asks))

    def _lay_out(self, wish: _Wish, acceptances: list[Acceptance]) -> SessionLayout:
        request, publisher = wish.request, wish.publisher
        is_public = prefix_mode_from_wire(request.prefix.mode) is PrefixMode.PUBLIC
        num_layers = publisher.shape.num_layers
        layout = build_layout(
            num_layers=num_layers,
            prefix_len=request.prefix.num_tokens if is_public else 0,
            contributors=[
                (acceptance.node.node_id, acceptance.span_len) for acceptance in acceptances
            ],
            publisher=(publisher.node_id, request.span_len),
            plans=RolePlans(
                contributors=plan_from_wire(request.contributor_sync_layers, num_layers),
                publisher=plan_from_wire(request.publisher_sync_layers, num_layers),
            ),
            compression=wish.compression,
            independent=request.independent,
        )
        return limit_keep_ratios(layout, [acceptance.max_keep_ratio for acceptance in acceptances])

    def _check_sizes(
        self,
        request: pb.OpenSessionRequest,
        publisher: Node,
        layout: SessionLayout,
    ) -> None:
        """The joined sequence must fit the window, and each member's rows its memory."""
        limit = publisher.join.capabilities.max_positions
        if layout.num_tokens + request.max_new_tokens > limit:
            parts = ", ".join(f"{m.node_id} {len(m.span)}" for m in layout.members)
            raise ContextTooLongError(
                f"the joined prompt has {layout.num_tokens} tokens ({parts}, prefix "
                f"{layout.prefix_len}) and {request.max_new_tokens} may be decoded, but the "
                f"model's window is {limit}; shorten a context or ask fewer contributors"
            )
        for member in session_bytes(layout, publisher.shape):
            size = member.total_down
            if size > self._settings.max_session_bytes:
                raise ContextTooLongError(
                    f"{member.node_id} would receive {size} bytes of KV, the limit is "
                    f"{self._settings.max_session_bytes}; use fewer sync layers or shorter contexts"
                )


def _check_request(request: pb.OpenSessionRequest) -> None:
    require_range("span_len", request.span_len, 1, _MAX_TOKENS)
    require_range("prefix tokens", request.prefix.num_tokens, 0, _MAX_TOKENS)
    require_range("max_new_tokens", request.max_new_tokens, 1, _MAX_TOKENS)
    require_range("min_participants", request.min_participants, 1, MAX_MEMBERS)
    require_range("deadline_s", request.deadline_s, 1e-3, MAX_DEADLINE_S)
    require_range("number of cached_keys", len(request.cached_keys), 0, MAX_PUBLISHER_KEYS)
    require_range("number of contributors", len(request.contributors), 0, MAX_MEMBERS - 1)
    if len(set(request.contributors)) != len(request.contributors):
        raise InvalidRequestError("a contributor is named twice; name each once")
    is_public = prefix_mode_from_wire(request.prefix.mode) is PrefixMode.PUBLIC
    if request.independent and (request.contributor_sync_layers or not is_public):
        raise InvalidRequestError(
            "independent contributors need a public prefix and attend to nobody; leave out their "
            "sync layers"
        )


def _require_enough(
    request: pb.OpenSessionRequest, num_contributors: int, failures: list[FedAttnError]
) -> None:
    """Raise unless as many participants are left as the publisher asks for."""
    first = prefix_mode_from_wire(request.prefix.mode) is PrefixMode.FIRST
    needed = max(request.min_participants, 2 if first else 1)
    if num_contributors + 1 >= needed:
        return
    if failures and all(isinstance(failure, NothingToGiveError) for failure in failures):
        raise NothingToGiveError(
            f"{num_contributors + 1} of {needed} required participants have something to give; "
            + "; ".join(str(failure) for failure in failures[:_MAX_NAMED])
        )
    if failures:
        raise failures[0]
    if num_contributors == 0:
        raise NoContributorsError(
            "no contributor with the publisher's model is joined; start one, or check the "
            "participants list and the logs of the nodes"
        )
    raise NotEnoughParticipantsError(
        f"{num_contributors + 1} participants are there, {needed} are required; "
        f"start more or lower min_participants"
    )


def _prefix_identity(request: pb.OpenSessionRequest) -> bytes:
    prefix = request.prefix
    return b"%d:%d:" % (prefix.mode, prefix.num_tokens) + prefix.digest


def _must_take_part(
    request: pb.OpenSessionRequest, node: Node, nodes: list[Node], failure: FedAttnError
) -> bool:
    """Whether a session cannot go on without a node that does not take part.

    A named one that has nothing to give is left out and reported so: nothing of it is missing.
    """
    is_named = bool(request.contributors) and not isinstance(failure, NothingToGiveError)
    return is_named or _owns_prefix(request, node, nodes)


def _owns_prefix(request: pb.OpenSessionRequest, node: Node, nodes: list[Node]) -> bool:
    return prefix_mode_from_wire(request.prefix.mode) is PrefixMode.FIRST and node is nodes[0]


def _incompatibility(node: Node, publisher: Node, codec: Codec) -> FedAttnError | None:
    """Why a node cannot take part in a publisher's session, if so."""
    if node.fingerprint != publisher.fingerprint or node.shape != publisher.shape:
        return ModelMismatchError(
            f"{node.node_id} runs model {node.join.capabilities.model_name} "
            f"({node.fingerprint[:12]}), the publisher {publisher.join.capabilities.model_name} "
            f"({publisher.fingerprint[:12]}); all nodes of a session need the same model"
        )
    if not node.supports(codec.codec_id):
        return InvalidRequestError(
            f"{node.node_id} does not know codec {codec.name}; upgrade it or choose another codec"
        )
    return None
