"""Opening a session: choose contributors, ask their lengths, lay out the spans."""

import secrets
from dataclasses import replace
from itertools import compress

from cachetools import LRUCache

from fedattn.core.errors import (
    ContextTooLongError,
    FedAttnError,
    NothingToGiveError,
    RateLimitedError,
)
from fedattn.core.errors import ParticipantDepartedError as _Departed
from fedattn.core.request import SessionRequest
from fedattn.core.reuse import rows_identity, with_cache_keys
from fedattn.core.share import Share
from fedattn.core.spans import PrefixMode, SessionLayout
from fedattn.core.terms import SessionTerms
from fedattn.core.token_budget import take_best
from fedattn.wire.requests import Opening
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.aggregator.attendance import must_take_part, owns_prefix, require_enough
from services.aggregator.choosing import ExcludedNode, choose_contributors
from services.aggregator.claims import claims_too_much, hold_to_budget, longest_claim
from services.aggregator.invitations import Acceptance, Invitations
from services.aggregator.opened import OpenedSession, open_members
from services.aggregator.planning import check_bytes, check_window, fit_layout, lay_out
from services.aggregator.registry import Node, NodeRegistry
from services.aggregator.settings import AggregatorSettings
from services.aggregator.standing import Standing

_MAX_CLEAN_KEYS = 1 << 14


class SessionOpener:
    """Turns a publisher's request into a laid-out session.

    Attributes:
        clean_keys: cache keys of sessions in which nobody missed anything, the latest so many. A
            contributor does not know whether those before it computed on all they should have, so
            the frames it has cached count only if its aggregator knows.
        standing: which nodes let others wait.
    """

    def __init__(
        self,
        registry: NodeRegistry,
        invitations: Invitations,
        standing: Standing,
        settings: AggregatorSettings,
    ) -> None:
        self._registry = registry
        self._invitations = invitations
        self.standing = standing
        self._settings = settings
        self.clean_keys: LRUCache[bytes, None] = LRUCache(_MAX_CLEAN_KEYS)

    async def open(self, opening: Opening, publisher: Node, *, has_others: bool) -> OpenedSession:
        """Choose, ask and lay out for a publisher that has proved itself.

        Args:
            opening: what is asked for.
            publisher: who asks.
            has_others: whether it has other sessions. A contributor at which it has its share
                already is then waited for: the query is refused for now, and not answered without.

        Raises:
            RateLimitedError: it is to come again when one of its sessions has ended.
            InvalidInputError, UnavailableError, IncompatibleError: says what does not fit.
        """
        request = opening.request
        if opening.context is not None:
            publisher.context = opening.context
        request.check_shape(publisher.shape)
        choice = choose_contributors(request, publisher, self._registry, self.standing)
        left = [one.reason for one in choice.excluded if isinstance(one.reason, _Departed)]
        require_enough(request, len(choice.chosen), [], left)
        session_id = secrets.token_hex(16)
        try:
            accepted, excluded = await self._ask_all(
                session_id, opening, choice.chosen, has_others=has_others
            )
            accepted, layout, too_long = self._lay_out(session_id, opening, publisher, accepted)
            members = open_members(request, publisher, accepted, layout)
            return OpenedSession(
                request=request,
                terms=self._terms(session_id, request, publisher, layout),
                members=members,
                statements=tuple(one.statement for one in accepted),
                excluded=(*choice.excluded, *excluded, *too_long),
            )
        except BaseException:  # also if the publisher has gone: nobody must wait for a start
            self._cancel(session_id, choice.chosen, "the session was not opened")
            raise

    def _terms(
        self, session_id: str, request: SessionRequest, publisher: Node, layout: SessionLayout
    ) -> SessionTerms:
        return SessionTerms(
            session_id=session_id,
            layout=layout,
            shape=publisher.shape,
            deadline_s=request.options.deadline_s,
            progress_timeout_s=self._settings.receiver_timeout_s,
            min_participants=request.options.min_participants,
            wants_timeline=request.options.wants_timeline,
        )

    async def _ask_all(
        self, session_id: str, opening: Opening, nodes: tuple[Node, ...], *, has_others: bool
    ) -> tuple[list[Acceptance], list[ExcludedNode]]:
        """Invite the chosen nodes; who accepts, in token order, and who does not.

        Raises:
            FedAttnError: a node that must take part does not, or too few are left.
        """
        request = opening.request
        within_s = min(self._settings.invite_timeout_s, request.options.deadline_s)
        invites = [
            pb.Invite(
                session_id=session_id,
                request=opening.signed,
                owns_prefix=owns_prefix(request, node, nodes),
                reply_within_s=within_s,
                hint=opening.hints.get(node.node_id, b""),
            )
            for node in nodes
        ]
        asked = list(zip(nodes, invites, strict=True))
        replies = await self._invitations.ask_all(asked, within_s)
        answers = [hold_to_budget(request, reply) for reply in replies]
        held_back = [one is not other for one, other in zip(replies, answers, strict=True)]
        self._cancel(session_id, tuple(compress(nodes, held_back)), "its answer cannot be used")
        accepted: list[Acceptance] = []
        failures: list[FedAttnError] = []
        excluded: list[ExcludedNode] = []
        for node, answer in zip(nodes, answers, strict=True):
            if isinstance(answer, Acceptance):
                accepted.append(answer)
            elif must_take_part(request, node, nodes, answer) or (
                has_others and isinstance(answer, RateLimitedError)
            ):
                raise answer
            else:
                failures.append(answer)
                excluded.append(ExcludedNode(node.node_id, answer, node.context))
        require_enough(request, len(accepted), failures)
        accepted, left_out = self._take_best(session_id, request, accepted)
        require_enough(request, len(accepted), [one.reason for one in left_out])
        return self._put_in_order(request, accepted), [*excluded, *left_out]

    def _take_best(
        self, session_id: str, request: SessionRequest, accepted: list[Acceptance]
    ) -> tuple[list[Acceptance], list[ExcludedNode]]:
        """Those whose texts fit best, as many as the request has tokens for; and the others."""
        most = request.options.context_tokens
        is_first = request.prefix.mode is PrefixMode.FIRST  # its owner cannot be left out
        required = {*request.options.require, accepted[0].node.node_id if is_first else ""}
        certain = {at for at, one in enumerate(accepted) if one.node.node_id in required}
        taken = take_best([(one.text_len, one.fit) for one in accepted], most, certain)
        left = [one for place, one in enumerate(accepted) if place not in taken]
        some_fit = any(one.fit for one in accepted)
        self._cancel(session_id, tuple(one.node for one in left), "other texts fit better")
        return (
            [one for place, one in enumerate(accepted) if place in taken],
            [
                ExcludedNode(one.node.node_id, _why_left_out(one, some_fit, most), one.node.context)
                for one in left
            ],
        )

    def _put_in_order(
        self, request: SessionRequest, accepted: list[Acceptance]
    ) -> list[Acceptance]:
        """In token order: as named; else by id, but those whose context changed come last.

        A change makes everything from its place on be computed anew anyhow, so moving it behind
        all others costs nothing, and what changes often gathers at the end. Where contributors
        choose by the question, spans differ with each, which is no change of a text; then what fits
        best comes last, next to the question.
        """
        if request.options.share is not Share.NOTHING and not request.options.contributors:
            return sorted(accepted, key=lambda one: one.fit)
        for one in accepted:
            self._registry.note_version(one.node.node_id, one.context_version)
        if request.options.contributors or request.prefix.mode is not PrefixMode.PUBLIC:
            return accepted
        return sorted(accepted, key=lambda one: self._registry.changed_at(one.node.node_id))

    def _lay_out(
        self, session_id: str, opening: Opening, publisher: Node, accepted: list[Acceptance]
    ) -> tuple[list[Acceptance], SessionLayout, list[ExcludedNode]]:
        """Who takes part, how, and who claims too much for all to fit: the longest go first.

        Raises:
            ContextTooLongError: nobody can be left out, or too few would be left.
        """
        left_out: list[ExcludedNode] = []
        while True:
            try:
                return accepted, self._lay_out_all(opening, publisher, accepted), left_out
            except ContextTooLongError as error:
                longest = longest_claim(opening.request, accepted)
                if longest is None:
                    raise
                why = claims_too_much(longest, accepted, error)
            accepted = [one for one in accepted if one is not longest]
            left_out.append(ExcludedNode(longest.node.node_id, why, longest.node.context))
            self._cancel(session_id, (longest.node,), str(why))
            require_enough(opening.request, len(accepted), [one.reason for one in left_out])

    def _lay_out_all(
        self, opening: Opening, publisher: Node, accepted: list[Acceptance]
    ) -> SessionLayout:
        """Spans, plans and compression as they will be, with what is cached already.

        Raises:
            ContextTooLongError: not all of it fits.
        """
        request = opening.request
        layout = lay_out(request, publisher, accepted)
        check_window(layout, publisher, request)  # before the budget: whose claim it is, is known
        layout = fit_layout(layout, request, publisher, accepted)
        layout = self._mark_cached(opening, publisher, layout, accepted)
        check_bytes(layout, publisher, self._settings.max_session_bytes)
        return layout

    def _mark_cached(
        self,
        opening: Opening,
        publisher: Node,
        layout: SessionLayout,
        accepted: list[Acceptance],
    ) -> SessionLayout:
        """The layout with the contributors' cache keys, and who has which rows already."""
        request = opening.request
        identity = rows_identity(publisher.fingerprint, request)
        versions = [acceptance.context_version for acceptance in accepted]
        layout = with_cache_keys(layout, identity, versions)
        reuses = request.options.reuse
        contributors = tuple(
            replace(
                member,
                cache_lifetime_s=one.cache_lifetime_s,
                is_cached_by_publisher=reuses and member.cache_key in opening.cached_keys,
                is_cached_by_owner=reuses
                and member.cache_key in one.cached_keys
                and member.cache_key in self.clean_keys,
            )
            for member, one in zip(layout.contributors, accepted, strict=True)
        )
        return replace(layout, members=(*contributors, layout.publisher))

    def _cancel(self, session_id: str, nodes: tuple[Node, ...], reason: str) -> None:
        """Tell invited nodes that nothing comes of it."""
        message = pb.SessionCancel(session_id=session_id, reason=reason)
        for node in nodes:
            node.send(pb.ControlResponse(cancel=message))


def _why_left_out(one: Acceptance, some_fit: bool, most: int | None) -> FedAttnError:
    if some_fit and not one.fit:
        return NothingToGiveError("nothing to give: its text does not fit what is asked")
    return ContextTooLongError(
        f"what others give fits better, and fills the {most} tokens asked for"
    )
