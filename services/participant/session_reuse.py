"""What one member of a session need not compute or send again, and what it may cache of it."""

import hashlib
from collections.abc import Collection, Mapping

from fedattn.core.errors import SessionStateError
from fedattn.core.routing import route_session
from fedattn.core.session import SessionState
from fedattn.core.types import HeadRows
from fedattn.wire.sealing import ContentKey
from services.participant.kv_cache import CachedFrames, CachedRows

CachedBySender = dict[int, CachedRows]
"""Rows from earlier sessions by place in token order."""


class SessionReuse:
    """The cache keys of one session, seen by one of its members.

    Args:
        state: routes and members of the session.
        index: place of the member.
    """

    def __init__(self, state: SessionState, index: int) -> None:
        self._state, self._index = state, index

    def cacheable_frames(
        self, sent: dict[int, bytes], left_out: Collection[int], content_key: ContentKey | None
    ) -> CachedFrames:
        """Frames that stand for this contributor's rows as a whole; none if any are missing.

        A session in which others hold or miss rows needs or makes only some of them.

        Args:
            sent: frames of this session by layer.
            left_out: members that this one went on without.
            content_key: that they are sealed with; None if they are not.
        """
        cold = route_session(self._state.layout.without_reuse())
        is_whole = sent.keys() == cold[self._index].uploads and not left_out
        return CachedFrames(sent if is_whole else {}, content_key)

    @property
    def used_keys(self) -> list[bytes]:
        """Cache keys of the rows that the session counts on."""
        return [self._state.member(index).cache_key for index in self._cached]

    @property
    def _cached(self) -> tuple[int, ...]:
        return self._state.routes[self._index].cached

    def find_cached(self, cached: Mapping[bytes, CachedRows]) -> CachedBySender:
        """The rows that the session counts on, by place.

        Raises:
            SessionStateError: they are not all here.
        """
        receives = self._state.routes[self._index].receives
        found: CachedBySender = {}
        for index in self._cached:
            member = self._state.member(index)
            entry = cached.get(member.cache_key)
            if entry is None or entry.rows.keys() != receives:
                raise SessionStateError(
                    f"the aggregator counts on rows of {member.node_id} that are not cached here; "
                    f"ask again"
                )
            found[index] = entry
        return found

    def cacheable_rows(self, received: dict[int, dict[int, HeadRows]]) -> dict[bytes, CachedRows]:
        """Rows that a publisher may cache, by cache key.

        Args:
            received: rows by sender and layer, of senders whose every layer came.
        """
        return {
            self._state.member(sender).cache_key: CachedRows(
                rows, self._state.member(sender).cache_lifetime_s
            )
            for sender, rows in received.items()
        }

    def state_key(self, context_version: bytes) -> bytes:
        """Names all that a publisher's rows before its question follow from; may be empty.

        Args:
            context_version: of its own context.
        """
        keys = [member.cache_key for member in self._state.layout.contributors]
        if not keys or not all(keys):
            return b""
        return hashlib.sha256(b"".join([*keys, context_version])).digest()

    @property
    def state_lifetime_s(self) -> float:
        """How long a publisher may keep what it made of all others' rows, seconds."""
        contributors = self._state.layout.contributors
        return min((member.cache_lifetime_s for member in contributors), default=0.0)
