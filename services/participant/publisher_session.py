"""The session of one query, as its publisher opens and uses it."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from fedattn.core.agreement import PassageSpan
from fedattn.core.errors import (
    AggregatorUnavailableError,
    DeadlineExceededError,
    FedAttnError,
)
from fedattn.core.request import SessionRequest, describe_prefix
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.identity import Kind
from fedattn.wire.protocol import MAX_PUBLISHER_KEYS
from fedattn.wire.requests import Opening, request_to_wire
from fedattn.wire.sealing import KeyPair
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.arrivals import LayerListener
from services.participant.disclosure import Disclosure, prepare_disclosure
from services.participant.exchange import GrpcKvExchange
from services.participant.exchange_options import PublisherOptions
from services.participant.kv_cache import CachedState
from services.participant.node import ParticipantNode
from services.participant.query import Query
from services.participant.report import is_clean
from services.participant.terms import SignedRequest, agree

log = structlog.get_logger(__name__)

_COARSE_FROM_S = 10.0
_REACH_WITHIN_S = 2.0
"""Longest wait for the connection to the aggregator of a session."""
_MAX_REDIRECTS = 3
"""Aggregators that may be out of reach before the own one is told to serve."""


class PublisherSession:
    """A session that this node opens, and what it caches of it. Lives on the event loop.

    Args:
        node: the publisher.
        aggregators: where sessions are opened.
        query: what is asked of the session.

    Attributes:
        server: the aggregator of the session, once it is open.
        arrived: when, by `time.monotonic`.
        passages: what contributors' spans are made of, by their places, once there is an exchange.
        budget_steps: steps down to keep the byte budget, likewise.
    """

    def __init__(self, node: ParticipantNode, aggregators: Aggregators, query: Query) -> None:
        self._node = node
        self._aggregators = aggregators
        self.server = aggregators.home
        self._query = query
        self.arrived = time.monotonic()
        self._identity = node.identity.pinned()
        self._keys = KeyPair() if node.identity.is_verifying else None
        self._signed: SignedRequest | None = None
        self.passages: Mapping[int, tuple[PassageSpan, ...]] = {}
        self.budget_steps = 0
        reuses = query.options.reuse
        self._cached_rows = node.rows.snapshot(MAX_PUBLISHER_KEYS) if reuses else {}
        self._states = node.states.snapshot(MAX_PUBLISHER_KEYS) if reuses else {}

    @property
    def remaining_s(self) -> float:
        """Time left until the query's deadline."""
        return self._query.options.deadline_s - (time.monotonic() - self.arrived)

    def too_late(self) -> FedAttnError:
        """What a query ends with at its deadline."""
        return DeadlineExceededError(
            f"the query did not end within its deadline of "
            f"{self._query.options.deadline_s:g} s; allow more time, or ask fewer contributors"
        )

    async def prepare(self, question_len: int = 0) -> Disclosure:
        """Settle what each node may give and is told; raises as `prepare_disclosure`."""
        return await prepare_disclosure(
            self._node, self._aggregators.home, self._query, question_len
        )

    async def open(self, disclosure: Disclosure, span_len: int) -> pb.OpenSessionResponse:
        """Ask for the session, wherever the aggregator of this node says that it is served.

        Args:
            disclosure: from `prepare`.
            span_len: tokens of the publisher's span, at most.

        Raises:
            FedAttnError: it cannot be opened.
        """
        unreachable: list[str] = []
        while True:
            opening = self._sign(disclosure, span_len)
            home = self.server = self._aggregators.home
            is_last = len(unreachable) == _MAX_REDIRECTS
            opened = await home.open_session(
                opening, self.remaining_s, redirected=is_last, unreachable=unreachable
            )
            if not opened.HasField("redirect"):
                return opened
            try:
                return await self._follow(opened.redirect, opening)
            except AggregatorUnavailableError as error:
                name = opened.redirect.name
                if is_last or name in unreachable:
                    raise
                log.warning("redirect_failed", aggregator=name, error=str(error))
                unreachable.append(name)  # the next by the hash

    async def _follow(
        self, redirect: pb.AggregatorAddress, opening: Opening
    ) -> pb.OpenSessionResponse:
        """Open the session at the aggregator that serves it.

        Raises:
            AggregatorUnavailableError: it cannot be reached, or has not heard of this node yet.
            FedAttnError: it does not open the session.
        """
        self.server = server = self._aggregators.at(redirect.address)
        await server.reach(_REACH_WITHIN_S)
        opened = await server.open_session(opening, self.remaining_s, redirected=True)
        if opened.HasField("redirect"):
            raise AggregatorUnavailableError(
                f"aggregator {redirect.name} at {server.address} sends this node on, which led "
                f"here; look at the logs of both aggregators"
            )
        return opened

    def _sign(self, disclosure: Disclosure, span_len: int) -> Opening:
        """A request for the session, signed; each is good for one attempt."""
        node, query = self._node, self._query
        resolved, is_limited = query.resolved, query.options.budget is not None
        remaining_s = _in_steps(max(0.001, self.remaining_s))
        request = SessionRequest(
            node_id=node.node_id,
            span_len=span_len,
            prefix=describe_prefix(query.options.prefix, node.prefix),
            plans=resolved.plans,
            compression=resolved.compression,
            coarser=resolved.coarser if is_limited else (),
            max_new_tokens=query.sampling.max_new_tokens,
            options=replace(disclosure.options, deadline_s=remaining_s),
            hint_digest=disclosure.digest,
            key=None if self._keys is None else self._keys.public,
        )
        payload = request_to_wire(request).SerializeToString()
        self._signed = SignedRequest.of(request, payload, self._identity.own(node.node_id))
        return Opening(
            signed=self._identity.sign(Kind.REQUEST, payload),
            request=request,
            node_token=node.token,
            cached_keys=frozenset(self._cached_rows),
            context=node.context.summary,
            hints=disclosure.sealed,
        )

    async def exchange(
        self, start: pb.SessionStart, on_layer: LayerListener = lambda *_: None
    ) -> GrpcKvExchange:
        """The exchange of the open session.

        Raises:
            InvalidInputError: its terms contradict themselves.
            SessionStateError: they do not fit this node, or count on rows that are not cached here.
            TermsRefusedError, IdentityMismatchError: as `agree`.
        """
        assert self._signed is not None, "exchange() follows open()"
        signed, node = self._signed, self._node
        agreement = await node.threads.run(lambda: agree(start, signed, node))
        self.passages, self.budget_steps = agreement.passages, agreement.rung
        return GrpcKvExchange(
            agreement.terms,
            agreement.index,
            self._node.threads.pool,
            self._node.prefiller.model,
            sealing=agreement.sealing(self._identity, self._keys),
            keeps=self._node.rows.max_bytes > 0,
            publisher=PublisherOptions(
                cached=self._cached_rows,
                required=self._query.options.require,
                query_codec=self._query.query_codec,
                on_layer=on_layer,
            ),
        )

    def claim(self, exchange: GrpcKvExchange, state_key: bytes = b"") -> Callable[[], None]:
        """Memory for the session, until what is returned is called.

        Of what is cached, it holds on to the rows that it counts on and to the state of a key.

        Raises:
            NodeBusyError: there is not enough.
        """
        used = exchange.reuse.used_keys
        self._cached_rows = {key: self._cached_rows[key] for key in used}
        self._states = {key: self._states[key] for key in (state_key,) if key in self._states}
        layout, sampling = exchange.terms.layout, self._query.sampling
        last = len(layout.members) - 1
        return self._node.memory.take(
            self._node.session_memory(layout, last, sampling.max_new_tokens)
        )

    def known_state(self, key: bytes, exchange: GrpcKvExchange) -> CachedState | None:
        """Rows of every block before the question, if nothing is to come that could change them."""
        return None if exchange.route.senders else self._states.get(key)

    def cache_rows(self, exchange: GrpcKvExchange) -> None:
        """Keep what came for later queries, if everybody did its part."""
        self._node.rows.touch(exchange.reuse.used_keys)
        if exchange.report is not None and is_clean(exchange.report):
            for key, rows in exchange.reuse.cacheable_rows(exchange.received()).items():
                self._node.rows.put(key, rows)

    def cache_state(self, key: bytes, state: CachedState, exchange: GrpcKvExchange) -> None:
        """Keep what was made of them, if everybody did its part."""
        self._node.states.touch([key])
        if exchange.report is not None and is_clean(exchange.report):
            self._node.states.put(key, state)


def _in_steps(seconds: float) -> float:
    """Rounded down: others shall not learn from it how long a question took to tokenize."""
    return float(math.floor(seconds)) if seconds >= _COARSE_FROM_S else seconds
